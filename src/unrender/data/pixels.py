"""Random pixels of many images, with their rays: what radiance fields are trained on."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.data.device_pixels import DevicePixels
from unrender.data.frames import Frame
from unrender.data.pixel_rays import PixelRays
from unrender.data.seeds import derived_seed
from unrender.devices import has_room
from unrender.errors import FileFormatError, InputError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays
from unrender.io.geometry_data import Floats
from unrender.io.images import has_high_bit_depth, normalize_pixels

MEBIBYTE = 2**20
MIN_TILES = 8
"""Tiles held in memory at a time, at least, if not all images fit."""
DRAWS_PER_TILE = 4
"""Draws after which one of the tiles in memory is replaced."""
DIRECTIONS_FRACTION = 0.25
"""Fraction of the memory for ray directions that images have in common."""
SHRINKS = (1, 2, 4, 8, 16)
READERS = max(2, min(os.cpu_count() or 2, 16))
"""Threads that read images."""


class PixelBatch(TensorStruct):
    """Pixels in patches: all of a patch one after the other, by rows."""

    rays: Rays
    colors: Float[Tensor, "*batch 3"]
    """RGB in [0, 1], not multiplied by alpha."""
    alpha: Float[Tensor, "*batch"] | None
    """Opacity of the pixel; None if all images are opaque."""
    frame: Int[Tensor, "*batch"]
    """Which of the source's frames each pixel is of."""
    valid: Bool[Tensor, "*batch"]
    """Whether to use the pixel: it is inside the mask and in the field of view of the lens."""


class _Tile(NamedTuple):
    """Rows of one frame."""

    frame: int
    top: int
    rows: int


class PixelSource:
    """Random pixels of frames, from memory as 8 or 16 bits.

    Datasets larger than `memory_mib` are streamed: random tiles are held in memory, whole images or bands of rows of
    large ones, and one of them is replaced every four draws by a tile that is read in the background. The same seed
    gives the same pixels: which tiles are in memory follows from the seed and the number of draws alone.

    With `shrink`, images are 2, 4, 8 or 16 times smaller: means over squares of pixels, colors weighted by alpha. Rows
    and columns that do not fill a square are dropped.
    """

    _store: Tensor
    """The pixels of all slots in a row."""
    _mask: Tensor
    _slots: Tensor
    """Where slots begin."""

    def __init__(
        self, frames: Sequence[Frame], *, memory_mib: float = 1500, shrink: int = 1, seed: int = 0
    ) -> None:
        if not frames:
            raise InputError("PixelSource: there are no frames")
        if shrink not in SHRINKS:
            raise InputError(f"PixelSource: `shrink` should be one of {SHRINKS}, got {shrink}")
        self.frames, self.shrink = tuple(frames), shrink
        self.cameras = [_shrunk_camera(frame, shrink) for frame in frames]
        self._seed, self._generator = seed, torch.Generator().manual_seed(seed)
        self._deep = shrink > 1 or any(has_high_bit_depth(frame.image_path) for frame in frames)
        self._has_mask = any(frame.has_mask for frame in frames)
        self._has_panoramas = any(camera.projection == "equirectangular" for camera in self.cameras)
        self._rays = PixelRays(self.cameras, int(DIRECTIONS_FRACTION * memory_mib * MEBIBYTE))
        self._plan(int(memory_mib * MEBIBYTE))
        self._fill()

    @property
    def is_streaming(self) -> bool:
        """Whether only a part of the images is in memory at a time."""
        return self._streams

    def on_device(self, device: torch.device) -> DevicePixels | None:
        """Return all pixels and their rays on a device, to draw from there.

        None where that is not possible: images that are streamed, equirectangular, have 16 bits or are too large for
        the device, or intrinsics of too many kinds.
        """
        if not self._fits(device):
            return None
        assert self._rays.maps is not None
        ends = self._slots[-1] + self._capacities[-1]
        return DevicePixels(
            self._store.to(device),
            self._mask.to(device),
            torch.cat([self._slots, ends[None]]).to(device),
            self._rays.starts[self._rays.group].to(device),
            self._rays.maps.to(device),
            self._rays.world_from_camera[:, :3].contiguous().to(device),
            self._has_alpha,
        )

    def _fits(self, device: torch.device) -> bool:
        """Say whether a device can hold all pixels, or already does."""
        maps = self._rays.maps
        if self._streams or self._deep or self._has_panoramas or maps is None:
            return False
        there = self._store.device.type == device.type
        return there or has_room(device, self._store.nbytes + self._mask.nbytes + maps.nbytes)

    def move_to(self, device: torch.device) -> bool:
        """Draw from memory of a device from now on; False, and nothing changes, where `on_device` is not possible."""
        if not self._fits(device):
            return False
        self._store, self._mask = self._store.to(device), self._mask.to(device)
        self._slots = self._slots.to(device)
        self._rays.move_to(device)
        self._describe_tiles()
        return True

    def draw(self, num_patches: int, patch_size: int = 4) -> PixelBatch:
        """Draw square patches of pixels from all frames, with a probability proportional to the size of the image.

        In equirectangular images, the probability of a row is proportional to the solid angle of its pixels.
        Pixels less than `patch_size` from the border of an image are in fewer patches than others.
        """
        self._begin_draw()
        device = self._store.device
        tile, x, y = (t.to(device) for t in self._choose(num_patches, patch_size))
        steps = torch.arange(patch_size, device=device)
        offset_y, offset_x = (t.flatten() for t in torch.meshgrid(steps, steps, indexing="ij"))
        width = self._widths[tile]
        corner = self._slots[tile] + y * width + x
        indices = (corner[:, None] + offset_y * width[:, None] + offset_x).flatten()
        frame = self._frame_of_tile[tile]
        pixel_x, pixel_y = x[:, None] + offset_x, (y + self._tops[tile])[:, None] + offset_y
        rays = self._rays.through(frame, pixel_x, pixel_y)
        values = self._unpacked(indices)
        valid = ~rays.directions[:, 0].isnan()
        if self._has_mask:
            valid &= self._mask[indices]
        return PixelBatch(
            rays,
            values[:, :3],
            values[:, 3] if self._has_alpha else None,
            frame.repeat_interleave(patch_size**2),
            valid,
        )

    def _choose(self, num_patches: int, patch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Choose tiles, each with a probability proportional to its number of pixels, and a position in each."""
        smallest = min(min(tile.rows, self.cameras[tile.frame].width) for tile in self._tiles)
        if num_patches < 1 or not 1 <= patch_size <= smallest:
            raise InputError(
                f"PixelSource.draw: patches of {patch_size} × {patch_size} do not fit into images, or tiles of "
                f"them, of {smallest} pixels; `num_patches` should be at least 1, got {num_patches}"
            )
        random = torch.rand(3, num_patches, generator=self._generator, dtype=torch.float64)
        rows, widths = self._sizes
        ends = (rows * widths * self._density).cumsum(0)
        tile = torch.searchsorted(ends, random[0] * ends[-1], right=True)
        x = (random[1] * (widths[tile] - patch_size + 1)).long()
        y = (self._heights(tile, random[2]) * (rows[tile] - patch_size + 1)).long()
        return tile, x, y

    def _heights(self, tile: Tensor, uniform: Tensor) -> Tensor:
        """Map uniform numbers to heights within tiles, both in [0, 1), uniform in solid angle in panoramas."""
        if not self._has_panoramas:
            return uniform
        top, bottom = self._latitudes[tile].unbind(1)
        heights = (torch.lerp(top.sin(), bottom.sin(), uniform).asin() - top) / (bottom - top)
        return torch.where(top.isnan(), uniform, heights.clamp(0, 1 - 1e-9))

    def _unpacked(self, indices: Tensor) -> Tensor:
        """Look up RGBA in [0, 1]."""
        packed = self._store[indices]
        if not self._deep:
            return packed.view(torch.uint8).reshape(-1, 4).float() / 255
        words = packed.view(torch.int16).reshape(-1, 4).to(torch.int32) & 0xFFFF
        return words.float() / 65535

    def _plan(self, memory: int) -> None:
        """Choose the sizes of slots: one for each frame, or fewer of equal size."""
        pixel = (8 if self._deep else 4) + self._has_mask
        sizes = [camera.height * camera.width for camera in self.cameras]
        self._streams = sum(sizes) * pixel > memory
        if not self._streams:
            self._capacities = sizes
            return
        capacity = min(max(sizes), memory // pixel // MIN_TILES)
        if capacity < max(camera.width for camera in self.cameras):
            raise InputError(
                f"PixelSource: {memory / MEBIBYTE:g} MiB do not hold {MIN_TILES} rows of the largest image; "
                "raise `memory_mib`"
            )
        self._capacities = [capacity] * (memory // pixel // capacity)

    def _fill(self) -> None:
        """Read the first tiles, several files at a time."""
        self._num_draws = 0
        self._pool = ThreadPoolExecutor(READERS)
        self._coming: Future[tuple[_Tile, Floats, Floats | None]] | None = None
        self._has_alpha = False
        slots = torch.tensor([0, *self._capacities]).cumsum(0)
        self._slots = slots[:-1]
        self._store = torch.zeros(int(slots[-1]), dtype=torch.int64 if self._deep else torch.int32)
        self._mask = torch.ones(int(slots[-1]) if self._has_mask else 0, dtype=torch.bool)
        self._tiles = [self._tile(number) for number in range(len(self._capacities))]
        self._read_tiles()
        if not self._streams:
            self._pool.shutdown()
        else:
            logging.getLogger("unrender").info(
                "%d images do not fit into memory: streaming them, %d tiles at a time",
                len(self.frames),
                len(self._tiles),
            )

    def _read_tiles(self) -> None:
        for slot, content in enumerate(self._pool.map(self._read, self._tiles)):
            self._put(slot, *content)
        self._describe_tiles()

    def _tile(self, number: int) -> _Tile:
        """Return the tile that is the next one to read after `number` others: all frames in turn, in random order."""
        if not self._streams:
            return _Tile(number, 0, self.cameras[number].height)
        turn, place = divmod(number, len(self.frames))
        generator = torch.Generator().manual_seed(derived_seed(self._seed, turn))
        frame = int(torch.randperm(len(self.frames), generator=generator)[place])
        height = self.cameras[frame].height
        rows = min(height, self._capacities[0] // self.cameras[frame].width)
        generator.manual_seed(derived_seed(self._seed, turn, place))
        return _Tile(frame, int(torch.randint(height - rows + 1, (), generator=generator)), rows)

    def _read(self, tile: _Tile) -> tuple[_Tile, Floats, Floats | None]:
        frame = self.frames[tile.frame]
        values = frame.load_pixels()
        if self._deep:
            values = np.rint(_shrunk_colors(normalize_pixels(values), self.shrink) * 65535)
        rows = values[tile.top : tile.top + tile.rows]
        packed = np.full(
            (*rows.shape[:2], 4), 65535 if self._deep else 255, np.uint16 if self._deep else np.uint8
        )
        packed[..., : rows.shape[2]] = rows
        self._has_alpha |= rows.shape[2] == 4 and bool(packed[..., 3].min() < np.iinfo(packed.dtype).max)
        mask = frame.load_mask()
        if mask is not None:
            mask = _shrunk_mask(mask, self.shrink)[tile.top : tile.top + tile.rows]
        return tile, packed, mask

    def _put(self, slot: int, tile: _Tile, packed: Floats, mask: Floats | None) -> None:
        start, count = int(self._slots[slot]), packed.shape[0] * packed.shape[1]
        words = packed.reshape(-1).view(np.int64 if self._deep else np.int32)
        self._store[start : start + count] = torch.from_numpy(words)
        if self._has_mask:
            self._mask[start : start + count] = (
                True if mask is None else torch.from_numpy(np.ascontiguousarray(mask)).flatten()
            )
        self._tiles[slot] = tile

    def _describe_tiles(self) -> None:
        frames, tops, rows = torch.tensor(self._tiles).unbind(-1)
        widths = torch.tensor([self.cameras[tile.frame].width for tile in self._tiles])
        self._sizes = rows, widths
        self._latitudes = torch.tensor(
            [_latitudes(self.cameras[tile.frame], tile) for tile in self._tiles], dtype=torch.float64
        )
        top, bottom = self._latitudes.unbind(1)
        self._density = ((bottom.sin() - top.sin()) / (bottom - top)).nan_to_num(nan=1.0)
        self._frame_of_tile, self._tops, self._widths = (
            t.to(self._store.device) for t in (frames, tops, widths)
        )

    def _begin_draw(self) -> None:
        """Every few draws, replace the oldest tile by the one that was read in the background."""
        self._num_draws += 1
        if not self._streams or self._num_draws % DRAWS_PER_TILE:
            return
        if self._coming is not None:
            slot = (self._num_replaced() - 1) % len(self._tiles)
            self._put(slot, *self._coming.result())
            self._describe_tiles()
        self._read_next()

    def _num_replaced(self) -> int:
        """Return how many tiles were replaced so far: the first one is read after four draws, and used after eight."""
        return max(self._num_draws // DRAWS_PER_TILE - 1, 0) if self._streams else 0

    def _read_next(self) -> None:
        self._coming = self._pool.submit(self._read, self._tile(len(self._tiles) + self._num_replaced()))

    def seek(self, num_draws: int, seed: int) -> None:
        """Continue as after `num_draws` draws, with pixels chosen from another seed."""
        self._generator.manual_seed(seed)
        if num_draws == self._num_draws:
            return
        self._num_draws = num_draws
        if self._streams:
            self._restore_tiles()

    def _restore_tiles(self) -> None:
        """Read the tiles that are in memory after the draws so far."""
        held, replaced = len(self._tiles), self._num_replaced()
        numbers = [slot + held * ((replaced - slot + held - 1) // held) for slot in range(held)]
        self._tiles = [self._tile(number) for number in numbers]
        self._read_tiles()
        self._coming = None
        if self._num_draws >= DRAWS_PER_TILE:
            self._read_next()

    def state(self) -> dict[str, Tensor]:
        """Return what later draws depend on, for `restore`."""
        return {"random": self._generator.get_state(), "draws": torch.tensor(self._num_draws)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue with the draws that came after `state`, for the same frames.

        With another `memory_mib`, streamed tiles differ, and so do the draws.
        """
        draws = state["draws"]
        if draws.dtype != torch.int64 or draws.dim() != 0 or not 0 <= int(draws) < 2**62:
            raise FileFormatError(f"the number of draws should be a whole number of 0 or more, is {draws}")
        self.seek(int(draws), 0)
        self._generator.set_state(state["random"])


def _shrunk_camera(frame: Frame, shrink: int) -> Camera:
    camera = frame.camera
    height, width = camera.height // shrink, camera.width // shrink
    if min(height, width) < 1:
        raise InputError(
            f"PixelSource: frame {frame.name} has {camera.height} × {camera.width} pixels, too few to `shrink` "
            f"by {shrink}"
        )
    return camera.crop(0, 0, height=height * shrink, width=width * shrink).resize(height, width)


def _shrunk_colors(values: Floats, shrink: int) -> Floats:
    """Average squares of pixels; colors count as much as their alpha."""
    if shrink == 1:
        return values
    if values.shape[2] == 4:
        values[..., :3] *= values[..., 3:]
    height, width = (n // shrink * shrink for n in values.shape[:2])
    total = np.zeros((height // shrink, width // shrink, values.shape[2]), np.float32)
    for row in range(shrink):
        for column in range(shrink):
            total += values[row:height:shrink, column:width:shrink]
    if values.shape[2] == 3:
        return total / shrink**2
    alpha = total[..., 3:]
    return np.concatenate([total[..., :3] / np.where(alpha > 0, alpha, 1), alpha / shrink**2], axis=-1)


def _shrunk_mask(mask: Floats, shrink: int) -> Floats:
    """Use a square of pixels if all of them are inside the mask."""
    height, width = (n // shrink for n in mask.shape)
    squares = mask[: height * shrink, : width * shrink].reshape(height, shrink, width, shrink)
    return np.asarray(squares.all(axis=(1, 3)))


def _latitudes(camera: Camera, tile: _Tile) -> tuple[float, float]:
    """Return the latitudes of the upper and the lower edge of a tile, downwards, in radians; nan in other images."""
    if camera.projection != "equirectangular":
        return math.nan, math.nan
    center, focal = float(camera.center[1]), float(camera.focal[1])
    top, bottom = ((row - center) / focal for row in (tile.top, tile.top + tile.rows))
    return max(top, -math.pi / 2), min(bottom, math.pi / 2)
