"""Initial occupancy of a scene: the visual hull of alpha masks, a bounding box, or all of contracted space."""

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

COARSE_VOXELS = 64
"""Voxels along the longest side of the coarse hull that determines the scene box."""
MASK_SIZE = 100
"""Pixels along the shorter side of the downsampled masks."""
INNER_FRACTION = 0.5
"""Half extent of the uncontracted cube, as a fraction of the distance from the center of the scene to the cameras."""
ROUNDING = 1e-3
"""Tolerance, as a fraction of a brick: an excess below it does not add another brick."""
MIN_VISIBILITY = 0.25
"""Voxels observed by fewer views than this fraction of the largest number of views of a voxel are carved."""
MIN_DEPTH = 4.0
"""Depth, in voxels, below which a mask does not carve: nearer voxels cover too much of the image."""
SAME_POSITION = 1e-6
"""Distance between cameras, as a fraction of their largest coordinate, up to which they share one position."""
NEAR_FRACTION = 0.05
"""Near distance of the rays, as a fraction of the distance from the center of the scene to the cameras."""


class Mask(NamedTuple):
    """A conservative mask of the object in one image, downsampled by maximum pooling."""

    camera: Camera
    covered: Bool[Tensor, "height width"]
    """Whether any image pixel under a mask pixel is not transparent."""
    pixel_size: int
    """Side of a mask pixel, in image pixels."""


Space = Literal["auto", "visual_hull", "aabb", "unbounded"]


def find_space(
    scene: Scene, frames: Sequence[Frame], kind: Space, num_voxels: int, pixels: DevicePixels | None = None
) -> SceneRegion:
    """Return the region to model, with `num_voxels` along its longest side, in the frame of the scene.

    `auto` is the visual hull if images have transparent pixels, else unbounded space.
    """
    region = _region(scene, frames, kind, num_voxels, pixels)
    return region._replace(scene_box=region.scene_box.replace(origin=scene.origin))


def _region(
    scene: Scene, frames: Sequence[Frame], kind: Space, num_voxels: int, pixels: DevicePixels | None
) -> SceneRegion:
    _check_baseline(frames)
    if kind in ("auto", "visual_hull"):
        masks = _load_masks(frames) if pixels is None else _masks_on_device(frames, pixels)
        if masks:
            return visual_hull(masks, scene.bounds, num_voxels)
        if kind == "visual_hull":
            raise InputError(
                "`space` is visual_hull, but no perspective image of the scene has an alpha channel to carve with"
            )
    if kind == "aabb":
        return _carved_box(scene.bounds[0], scene.bounds[1], num_voxels, ())
    return unbounded_space(frames, num_voxels)


def _check_baseline(frames: Sequence[Frame]) -> None:
    positions = torch.stack([frame.camera.position for frame in frames]).double()
    apart = float((positions - positions[0]).norm(dim=-1).max())
    if len(frames) > 1 and apart <= SAME_POSITION * float(positions.abs().max()):
        raise InputError("all cameras share one position: depth cannot be recovered without a baseline")


def _load_masks(frames: Sequence[Frame]) -> list[Mask]:
    """Load the masks of all images that have transparent pixels."""
    with ThreadPoolExecutor(READERS) as pool:
        return [mask for mask in pool.map(_load_mask, frames) if mask is not None]


def _masks_on_device(frames: Sequence[Frame], pixels: DevicePixels) -> list[Mask]:
    """Return the masks of images in device memory."""
    if not pixels.has_alpha:
        return []
    device, masks = pixels.colors.device, []
    for frame, packed in zip(frames, pixels.colors.split(pixels.starts.diff().tolist()), strict=True):
        if frame.camera.projection == "equirectangular":
            continue
        height, width = frame.camera.height, frame.camera.width
        size = max(1, min(height, width) // MASK_SIZE)
        covered = (packed.view(torch.uint8).view(1, height, width, 4)[..., 3] > 0).float()
        covered = max_pool2d(covered, size, ceil_mode=True)[0] > 0
        masks.append(Mask(frame.camera.to(device), covered, size))
    return masks


def _load_mask(frame: Frame) -> Mask | None:
    if frame.camera.projection == "equirectangular":
        return None  # near its poles, voxels cover any number of pixels
    colors = frame.load_pixels()
    if colors.shape[2] < 4 or colors[..., 3].min() > 0:
        return None
    pixels = max(1, min(colors.shape[:2]) // MASK_SIZE)
    covered = torch.from_numpy(colors[..., 3] > 0)[None].float()
    return Mask(frame.camera, max_pool2d(covered, pixels, ceil_mode=True)[0] > 0, pixels)


def visual_hull(masks: Sequence[Mask], bounds: Tensor, num_voxels: int) -> SceneRegion:
    """Return the visual hull of the masks, in the smallest box of voxels around it."""
    low, high = bounds.to(masks[0].covered.device)
    for _ in range(3):  # bounds may be many times as wide as the object
        voxel = float((high - low).max()) / COARSE_VOXELS
        cells = _carve(masks, low, voxel, (COARSE_VOXELS, COARSE_VOXELS, COARSE_VOXELS)).nonzero()
        if len(cells) == 0:
            raise InputError(
                "the visual hull is empty: no point within the scene's bounds lies inside all masks; check poses, "
                "masks and bounds with `unrender inspect`"
            )
        low, high = low + (cells.amin(0) - 1) * voxel, low + (cells.amax(0) + 2) * voxel
    return _carved_box(low, high, num_voxels, masks)


def unbounded_space(frames: Sequence[Frame], num_voxels: int) -> SceneRegion:
    """Return all of contracted space; the uncontracted cube is centered at the focus of the cameras."""
    positions = torch.stack([frame.camera.position for frame in frames])
    forward = torch.stack([frame.camera.camera_from_world[2, :3] for frame in frames])
    if all(frame.camera.projection == "equirectangular" for frame in frames):
        center = positions.mean(0)  # such cameras look in all directions: they are within the scene
        reach = float((positions - center).norm(dim=-1).max()) / INNER_FRACTION
    else:
        center = focus_point(positions, forward)
        reach = float((positions - center).norm(dim=-1).median())
    if not reach > 0:
        raise InputError("all cameras share one position: depth cannot be recovered without a baseline")
    sides = -(-num_voxels // BRICK) * BRICK
    mask = torch.ones(sides, sides, sides, dtype=torch.bool)
    box = SceneBox.cube(center, INNER_FRACTION * reach, contracted=True)
    return SceneRegion(box, mask, NEAR_FRACTION * reach)


def _carved_box(low: Tensor, high: Tensor, num_voxels: int, masks: Sequence[Mask]) -> SceneRegion:
    voxel = float((high - low).max()) / num_voxels
    x, y, z = (math.ceil(side / BRICK - ROUNDING) * BRICK for side in ((high - low) / voxel).tolist())
    box = SceneBox.from_bounds(low, low + voxel * low.new_tensor([x, y, z]))
    return SceneRegion(box.to("cpu"), _carve(masks, low, voxel, (x, y, z)).cpu(), 0.0)


def _carve(
    masks: Sequence[Mask], low: Tensor, voxel: float, shape: tuple[int, int, int]
) -> Bool[Tensor, "x y z"]:
    """Mark the voxels that every mask that observes them covers, at least in part, and that enough views observe."""
    axes = [low[i] + (torch.arange(n, device=low.device) + 0.5) * voxel for i, n in enumerate(shape)]
    centers = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
    remaining = torch.arange(len(centers), device=low.device)
    views = torch.zeros(len(centers), device=low.device)
    for mask in masks:
        if len(remaining) == 0:
            break
        points = mask.camera.project(centers[remaining])
        pixels = points[:, :2] / mask.pixel_size
        height, width = mask.covered.shape
        observed = (
            (points[:, 2] > 0) & (pixels >= 0).all(-1) & (pixels < points.new_tensor([width, height])).all(-1)
        )
        views[remaining] += observed
        remaining = remaining[_is_kept(mask, pixels, torch.where(observed, points[:, 2] / voxel, 0))]
    occupied = torch.zeros(len(centers), dtype=torch.bool, device=low.device)
    occupied[remaining] = True
    if len(masks) > 0 and len(remaining) > 0:  # masks do not carve behind their cameras
        occupied &= views >= MIN_VISIBILITY * views[remaining].max()
    return occupied.reshape(shape)


def _is_kept(mask: Mask, pixels: Tensor, depth: Tensor) -> Bool[Tensor, " voxels"]:
    """Return which voxels a mask covers or does not observe; depths are in voxels.

    The mask is dilated by the projected radius of a voxel, for bands of depth that double.
    """
    kept = torch.ones_like(depth, dtype=torch.bool)
    nearest = MIN_DEPTH
    while bool((depth >= nearest).any()):
        band = (depth >= nearest) & (depth < 2 * nearest)
        radius = 0.87 * float(mask.camera.focal.max()) / nearest / mask.pixel_size
        x, y = pixels[band].long().unbind(-1)
        kept[band] = _dilate(mask.covered, int(radius) + 1)[y, x]
        nearest *= 2
    return kept


def _dilate(covered: Tensor, radius: int) -> Tensor:
    wide, high = (min(radius, side) for side in (covered.shape[1], covered.shape[0]))
    rows = max_pool2d(covered[None].float(), (1, 2 * wide + 1), 1, (0, wide))
    dilated: Tensor = max_pool2d(rows, (2 * high + 1, 1), 1, (high, 0))[0]
    return dilated > 0
