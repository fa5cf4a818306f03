"""Rays through random pixels of many frames, fast."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.lens import Lens
from unrender.geometry.rays import Rays, pixel_centers, rays_through

BYTES_OF_DIRECTION = 12
NODES = 128
"""Intervals along the longer side of an image in the grid of precomputed directions."""
LARGEST_STEP = 3e-4
"""Of Newton's method; as it squares the error, less than 1e-6 is left after a step that is smaller."""


class PixelRays:
    """Rays through pixels of many frames.

    If frames have intrinsics in common and memory permits, the directions of all pixels are precomputed. Otherwise lens
    distortion is inverted by one Newton step from a coarse grid of directions, and iteratively where that is too far.
    """

    def __init__(self, cameras: Sequence[Camera], memory: int) -> None:
        self.world_from_camera = torch.stack([camera.world_from_camera for camera in cameras])
        self.widths = torch.tensor([camera.width for camera in cameras])
        groups: dict[bytes, int] = {}
        self.group = torch.tensor([groups.setdefault(_intrinsics(c), len(groups)) for c in cameras])
        firsts = [int((self.group == g).nonzero()[0]) for g in range(len(groups))]
        at_origin = [cameras[i].replace(camera_from_world=torch.eye(4)) for i in firsts]
        sizes = [camera.height * camera.width for camera in at_origin]
        self.maps: Tensor | None = None
        self.lenses: _LensGrids | None = None
        self.batches = _stacked(cameras)
        if sum(sizes) * BYTES_OF_DIRECTION <= memory and len(groups) < len(cameras):
            self.maps, self.starts = (
                torch.cat([_map(c) for c in at_origin]),
                torch.tensor([0, *sizes]).cumsum(0)[:-1],
            )
        elif all(c.lens is not None and c.lens.model == "brown" for c in at_origin):
            self.lenses = _LensGrids(at_origin)

    def move_to(self, device: torch.device) -> None:
        """Return rays on a device from now on; all directions have to be precomputed."""
        assert self.maps is not None
        self.maps, self.starts, self.group = (t.to(device) for t in (self.maps, self.starts, self.group))
        self.widths, self.world_from_camera = self.widths.to(device), self.world_from_camera.to(device)

    def through(self, frame: Tensor, x: Tensor, y: Tensor) -> Rays:
        """Return rays for `frame`, one for each patch, and pixels x and y of each patch, flat."""
        if self.maps is not None:
            positions = self.starts[self.group[frame]][:, None] + y * self.widths[frame][:, None] + x
            return self._to_world(frame, self.maps.index_select(0, positions.flatten()).reshape(*x.shape, 3))
        if self.lenses is None:
            return self._solved(frame, x, y)
        local, is_close = self.lenses.directions(self.group[frame], x + 0.5, y + 0.5)
        rays, rest = self._to_world(frame, local), ~is_close
        if bool(rest.any()):
            exact, patches = self._solved(frame[rest], x[rest], y[rest]), rest.repeat_interleave(x.shape[1])
            rays.directions[patches] = exact.directions
        return rays

    def _to_world(self, frame: Tensor, local: Tensor) -> Rays:
        """Turn directions in the camera frame into the world."""
        right, down, forward, origin = self.world_from_camera[frame, None, :3].unbind(-1)
        directions = local[..., :1] * right + local[..., 1:2] * down + local[..., 2:] * forward
        return Rays(origin.expand_as(directions).reshape(-1, 3), directions.reshape(-1, 3))

    def _solved(self, frame: Tensor, x: Tensor, y: Tensor) -> Rays:
        pixels = torch.stack([x, y], -1) + 0.5
        origins, directions = pixels.new_empty(*x.shape, 3), pixels.new_empty(*x.shape, 3)
        for members, cameras in self.batches:
            index = torch.full((len(self.widths),), -1).scatter(0, members, torch.arange(len(members)))[frame]
            here = index >= 0
            if bool(here.any()):
                rays = rays_through(cameras[index[here]][:, None], pixels[here])
                origins[here], directions[here] = rays.origins, rays.directions
        return Rays(origins.flatten(0, 1), directions.flatten(0, 1))


def _map(camera: Camera) -> Tensor:
    """Find the directions through all pixels, by rows."""
    pixels = pixel_centers(camera)
    if camera.lens is None or camera.lens.model != "brown":
        return rays_through(camera, pixels).directions.flatten(0, 1)
    directions, is_close = _LensGrids([camera]).directions(
        torch.zeros(camera.height, dtype=torch.int64), *pixels.unbind(-1)
    )
    rest = ~is_close
    directions[rest] = rays_through(camera, pixels[rest]).directions
    return directions.flatten(0, 1)


class _LensGrids:
    """For each of several lenses, the undistorted x and y on a coarse grid over its image."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self.lens = _lens_batch([camera.lens for camera in cameras if camera.lens is not None])
        self.focal = torch.stack([camera.focal for camera in cameras])
        self.center = torch.stack([camera.center for camera in cameras])
        steps = [max(camera.height, camera.width) / NODES for camera in cameras]
        grids = [_grid(camera, step) for camera, step in zip(cameras, steps, strict=True)]
        self.steps, self.widths = torch.tensor(steps), torch.tensor([grid.shape[1] for grid in grids])
        self.starts = torch.tensor([0, *(grid.shape[0] * grid.shape[1] for grid in grids)]).cumsum(0)[:-1]
        self.nodes = torch.cat([grid.flatten(0, 1) for grid in grids])

    def directions(self, lens: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit directions in the camera frame, and for each patch whether all of them are close enough."""
        step, width = self.steps[lens][:, None], self.widths[lens][:, None]
        column, row = (x / step).floor(), (y / step).floor()
        right, down = (x / step - column)[..., None], (y / step - row)[..., None]
        corner = self.starts[lens][:, None] + row.long() * width + column.long()
        above = torch.lerp(self.nodes[corner], self.nodes[corner + 1], right)
        below = torch.lerp(self.nodes[corner + width], self.nodes[corner + width + 1], right)
        flat = torch.lerp(above, below, down)
        distorted = (torch.stack([x, y], -1) - self.center[lens, None]) / self.focal[lens, None]
        closer = self.lens[lens][:, None].newton_step(distorted, flat)
        is_close = ((closer - flat).abs() <= LARGEST_STEP).flatten(1).all(1)
        local = torch.cat([closer, torch.ones_like(closer[..., :1])], -1)
        return local / local.norm(dim=-1, keepdim=True), is_close


def _grid(camera: Camera, step: float) -> Tensor:
    """Undistort positions every `step` pixels, from the first corner of the image to beyond the last."""
    rows, columns = (torch.arange(int(n / step) + 2) * step for n in (camera.height, camera.width))
    positions = torch.stack([columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))], -1)
    directions = rays_through(camera, positions).directions
    return directions[..., :2] / directions[..., 2:]


def _stacked(cameras: Sequence[Camera]) -> list[tuple[Tensor, Camera]]:
    """Batch cameras by their kind of lens; return their indices and the batches, which have no image size."""
    kinds = [(c.projection, None if c.lens is None else c.lens.model) for c in cameras]
    batches = []
    for kind in dict.fromkeys(kinds):
        members = [i for i, other in enumerate(kinds) if other == kind]
        lenses = [lens for i in members if (lens := cameras[i].lens) is not None]
        camera = Camera(
            torch.stack([cameras[i].focal for i in members]),
            torch.stack([cameras[i].center for i in members]),
            torch.stack([cameras[i].camera_from_world for i in members]),
            1,
            1,
            kind[0],
            _lens_batch(lenses) if lenses else None,
        )
        batches.append((torch.tensor(members), camera))
    return batches


def _lens_batch(lenses: Sequence[Lens]) -> Lens:
    """Stack lenses of one model."""
    return Lens(
        torch.stack([lens.radial for lens in lenses]),
        torch.stack([lens.tangential for lens in lenses]),
        torch.stack([lens.denominator for lens in lenses]),
        lenses[0].model,
    )


def _intrinsics(camera: Camera) -> bytes:
    """Tell cameras apart by all but their pose."""
    lens = camera.lens
    parts = [
        camera.focal,
        camera.center,
        *([] if lens is None else [lens.radial, lens.tangential, lens.denominator]),
    ]
    model = camera.projection if lens is None else lens.model
    return torch.cat(parts).numpy().tobytes() + f"{model} {camera.height} {camera.width}".encode()
