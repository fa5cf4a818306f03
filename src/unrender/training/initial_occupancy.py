"""Where in the world voxels can be: in the visual hull of masks, in a box, or everywhere."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import max_pool2d

from unrender.data.device_pixels import DevicePixels
from unrender.data.frames import Frame
from unrender.data.pixels import READERS
from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.trainable import SceneRegion
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import focus_point
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.march_voxels.table import BRICK

ROUGH = 64
"""Voxels along the longest side of the hull from which the box is taken."""
COARSE = 100
"""Pixels along the shorter side of the pictures that carve."""
INNER_SHARE = 0.5
"""Of the way from the middle of the scene to its cameras: so far space is not contracted."""
ROUNDING = 1e-3
"""Of a brick: so much of it is left out rather than begin another."""
SEEN_ENOUGH = 0.25
"""Of the largest number of pictures that see any voxel left: voxels in fewer pictures are not of the object."""
CLEAR = 4.0
"""Voxels before a camera from which on its picture carves: nearer ones cover too much of it."""
SAME_PLACE = 1e-6
"""Of the largest coordinate of a camera: so far apart they are in one place."""
NEAREST = 0.05
"""Of the same way: nothing can be so close to a camera."""


class Outline(NamedTuple):
    """Where an object is seen in one picture, at most."""

    camera: Camera
    covered: Bool[Tensor, "height width"]
    """In a coarser picture."""
    pixels: int
    """That one pixel of it is wide."""


Space = Literal["auto", "visual_hull", "aabb", "unbounded"]


def find_space(
    scene: Scene, frames: Sequence[Frame], kind: Space, num_voxels: int, pixels: DevicePixels | None = None
) -> SceneRegion:
    """Lay so many voxels along the longest side; with `auto`, in the hull where pictures have transparency."""
    _check_apart(frames)
    if kind in ("auto", "visual_hull"):
        outlines = _outlines(frames) if pixels is None else _outlines_on_device(frames, pixels)
        if outlines:
            return space_of_hull(outlines, scene.bounds, num_voxels)
        if kind == "visual_hull":
            raise InputError(
                "`space` is visual_hull, but no image of the scene has an alpha channel to carve with"
            )
    if kind == "aabb":
        return _in_box(scene.bounds[0], scene.bounds[1], num_voxels, ())
    return space_of_everything(frames, num_voxels)


def _check_apart(frames: Sequence[Frame]) -> None:
    positions = torch.stack([frame.camera.position for frame in frames]).double()
    apart = float((positions - positions[0]).norm(dim=-1).max())
    if len(frames) > 1 and apart <= SAME_PLACE * float(positions.abs().max()):
        raise InputError("all cameras share one position: depth cannot be recovered without a baseline")


def _outlines(frames: Sequence[Frame]) -> list[Outline]:
    """Load where pictures are not transparent, in squares of pixels."""
    with ThreadPoolExecutor(READERS) as pool:
        return [outline for outline in pool.map(_outline, frames) if outline is not None]


def _outlines_on_device(frames: Sequence[Frame], pixels: DevicePixels) -> list[Outline]:
    """Return the same from images in device memory."""
    if not pixels.has_alpha:
        return []
    device, outlines = pixels.colors.device, []
    for frame, packed in zip(frames, pixels.colors.split(pixels.starts.diff().tolist()), strict=True):
        height, width = frame.camera.height, frame.camera.width
        size = max(1, min(height, width) // COARSE)
        covered = (packed.view(torch.uint8).view(1, height, width, 4)[..., 3] > 0).float()
        covered = max_pool2d(covered, size, ceil_mode=True)[0] > 0
        outlines.append(Outline(frame.camera.to(device), covered, size))
    return outlines


def _outline(frame: Frame) -> Outline | None:
    colors = frame.load_pixels()
    if colors.shape[2] < 4 or colors[..., 3].min() > 0:
        return None
    pixels = max(1, min(colors.shape[:2]) // COARSE)
    covered = torch.from_numpy(colors[..., 3] > 0)[None].float()
    return Outline(frame.camera, max_pool2d(covered, pixels, ceil_mode=True)[0] > 0, pixels)


def space_of_hull(outlines: Sequence[Outline], bounds: Tensor, num_voxels: int) -> SceneRegion:
    """Keep what no outline excludes, in the smallest box of voxels around it."""
    low, high = bounds.to(outlines[0].covered.device)
    for _ in range(3):  # bounds may be many times as wide as what is in them
        voxel = float((high - low).max()) / ROUGH
        places = _carve(outlines, low, voxel, (ROUGH, ROUGH, ROUGH)).nonzero()
        if len(places) == 0:
            raise InputError(
                "no place in the scene's bounds lies within all its masks; poses, masks or bounds are "
                "wrong: `unrender inspect` shows them"
            )
        low, high = low + (places.amin(0) - 1) * voxel, low + (places.amax(0) + 2) * voxel
    return _in_box(low, high, num_voxels, outlines)


def space_of_everything(frames: Sequence[Frame], num_voxels: int) -> SceneRegion:
    """Fill all space; the inner cube lies where the cameras look, half of the way to them."""
    positions = torch.stack([frame.camera.position for frame in frames])
    forward = torch.stack([frame.camera.camera_from_world[2, :3] for frame in frames])
    middle = focus_point(positions, forward)
    reach = float((positions - middle).norm(dim=-1).median())
    if not reach > 0:
        raise InputError("all cameras share one position: depth cannot be recovered without a baseline")
    sides = -(-num_voxels // BRICK) * BRICK
    mask = torch.ones(sides, sides, sides, dtype=torch.bool)
    box = SceneBox.cube(middle, INNER_SHARE * reach, contracted=True)
    return SceneRegion(box, mask, NEAREST * reach)


def _in_box(low: Tensor, high: Tensor, num_voxels: int, outlines: Sequence[Outline]) -> SceneRegion:
    voxel = float((high - low).max()) / num_voxels
    x, y, z = (math.ceil(side / BRICK - ROUNDING) * BRICK for side in ((high - low) / voxel).tolist())
    box = SceneBox.from_bounds(low, low + voxel * low.new_tensor([x, y, z]))
    return SceneRegion(box.to("cpu"), _carve(outlines, low, voxel, (x, y, z)).cpu(), 0.0)


def _carve(
    outlines: Sequence[Outline], low: Tensor, voxel: float, shape: tuple[int, int, int]
) -> Bool[Tensor, "x y z"]:
    """Mark the voxels that are covered, wholly or in part, in all pictures that see them, if these are not few."""
    axes = [low[i] + (torch.arange(n, device=low.device) + 0.5) * voxel for i, n in enumerate(shape)]
    centers = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
    left = torch.arange(len(centers), device=low.device)
    views = torch.zeros(len(centers), device=low.device)
    for outline in outlines:
        if len(left) == 0:
            break
        points = outline.camera.project(centers[left])
        pixels = points[:, :2] / outline.pixels
        height, width = outline.covered.shape
        seen = (
            (points[:, 2] > 0) & (pixels >= 0).all(-1) & (pixels < points.new_tensor([width, height])).all(-1)
        )
        views[left] += seen
        left = left[_may_stay(outline, pixels, torch.where(seen, points[:, 2] / voxel, 0))]
    mask = torch.zeros(len(centers), dtype=torch.bool, device=low.device)
    mask[left] = True
    if len(outlines) > 0 and len(left) > 0:  # behind the cameras nothing is carved
        mask &= views >= SEEN_ENOUGH * views[left].max()
    return mask.reshape(shape)


def _may_stay(outline: Outline, pixels: Tensor, depth: Tensor) -> Bool[Tensor, " voxels"]:
    """Say of voxels, in depths counted in voxels, whether the picture has something there or says nothing of them.

    Around each voxel's pixel so much counts as a voxel covers at that depth; voxels are taken in bands, each twice as
    far as the one before.
    """
    stays = torch.ones_like(depth, dtype=torch.bool)
    nearest = CLEAR
    while bool((depth >= nearest).any()):
        band = (depth >= nearest) & (depth < 2 * nearest)
        radius = 0.87 * float(outline.camera.focal.max()) / nearest / outline.pixels
        x, y = pixels[band].long().unbind(-1)
        stays[band] = _grow(outline.covered, int(radius) + 1)[y, x]
        nearest *= 2
    return stays


def _grow(covered: Tensor, radius: int) -> Tensor:
    wide, high = (min(radius, side) for side in (covered.shape[1], covered.shape[0]))
    rows = max_pool2d(covered[None].float(), (1, 2 * wide + 1), 1, (0, wide))
    grown: Tensor = max_pool2d(rows, (2 * high + 1, 1), 1, (high, 0))[0]
    return grown > 0
