"""A mesh from posed images: extracted from a field, cleaned, and refined by differentiable rendering."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.protocol import Field, RenderedField
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.render.depth import DepthView
from unrender.tasks.depth.view_consistency import unproject_view
from unrender.tasks.surface.bake_vertex_colors import bake_vertex_colors
from unrender.tasks.surface.config import FitSurface, check
from unrender.tasks.surface.depth_images import (
    SIZE,
    DepthPlan,
    render_depth_images,
    within_bounds,
)
from unrender.tasks.surface.extract_surface import VERTICES_PER_QUERY
from unrender.tasks.surface.initial_surface import clean_surface, extract_initial
from unrender.tasks.surface.photo_views import PhotoView, load_photo_view
from unrender.tasks.surface.refine import Refinement, ViewTarget, reduced_targets, shuffled

DEFAULT_MINUTES = 10.0
"""Budget where neither steps nor minutes are given."""
DEPTH_FRACTION = 0.35
"""Fraction of a budget in minutes for depth images, at most."""
COARSE_UNTIL, MOVE_UNTIL = 0.35, 0.85
"""Progress up to which photos of half the size are compared, and from which vertices stay and colors only change."""
COARSE_FACTOR = 2
MIN_DEPTH_FRACTION = 1e-3
"""Fraction of the pixels of all depth images that have to show a surface."""
ONE_SIDE = 0.75
"""Length of the mean direction from the surface to the cameras above which all of them are on one side."""
ONE_SIDED = "all cameras are on one side: the other side of the surface is left out"
PARTS = 1000
"""Parts of the refinement that progress is counted in, with a budget in minutes."""
Stage = Literal["depth", "initial", "coarse", "fine", "colors"]


@dataclasses.dataclass(frozen=True)
class FitSurfaceStep:
    """The state after a step: a depth image of the field, the initial surface, or a step of the refinement."""

    index: int
    """Progress, as a part of `last_index`."""
    last_index: int
    stage: Stage
    """depth: the field is rendered; initial: the cleaned surface; coarse and fine: vertices and colors are refined
    against smaller photos, then those of full size; colors: vertices stay."""
    num_steps: int
    """Steps of the refinement so far."""
    mesh: Mesh | None
    """The surface with vertex colors; None while depth is rendered."""
    losses: dict[str, float]
    """photometric, mask, depth and regularization, each times its weight."""
    notes: tuple[str, ...] = ()
    """What was removed, closed or left open, in sentences."""

    @property
    def result(self) -> Mesh:
        """The surface with vertex colors, in the frame of the field; InputError while depth is rendered."""
        if self.mesh is None:
            raise InputError("fit_surface: there is no surface yet; take more steps")
        return self.mesh


def fit_surface(
    scene: Scene, field: RenderedField, config: FitSurface = FitSurface()
) -> Iterator[FitSurfaceStep]:
    """Fit a mesh with vertex colors to the training photos of a scene, starting from a field trained on it.

    The surface is extracted within the scene box of the field, from depth images that it renders or from its density.
    Small parts are removed, small holes closed, and what no camera observed is left open. Then vertices and colors
    descend on the difference to the photos. It is computed on the device of the field.

    Example: `*_, last = fit_surface(scene, field)`, then `save_mesh(last.result, "mesh.glb")`.

    Raises InputError before the first step for settings out of range and for a scene without training photos, and at
    the initial surface if the field has none.
    """
    check(config)
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_surface: the scene {scene.name} has no training photos")
    if config.minutes is None and config.steps is None:
        config = dataclasses.replace(config, minutes=DEFAULT_MINUTES)
    return _steps(frames, field, config)


def _steps(frames: Sequence[Frame], field: RenderedField, config: FitSurface) -> Iterator[FitSurfaceStep]:
    start, seconds = time.perf_counter(), None if config.minutes is None else 60 * config.minutes
    photos = [load_photo_view(frame, config.image_size) for frame in frames]
    parts = PARTS if config.steps is None else config.steps
    visible, depths, count = within_bounds(field), dict[int, DepthView](), 0
    depth_seconds = None if seconds is None else DEPTH_FRACTION * seconds
    for image in render_depth_images(visible, photos, config.views, depth_seconds):
        count, depths[image.photo] = len(image.plan.indices), image.view
        yield FitSurfaceStep(image.number, count + parts, "depth", 0, None, {})
    views = list(depths.values())
    _require_surface(views)
    one_sided = _is_one_sided(views)
    if config.unobserved == "auto":
        is_open = field.scene_box.contracted or one_sided
        config = dataclasses.replace(config, unobserved="open" if is_open else "close")
    clean = clean_surface(extract_initial(field, views, config), config)
    mesh = _colored(clean.mesh, field, photos)
    notes = (*clean.notes(), *([ONE_SIDED] if one_sided else []), *_shortage(image.plan, len(photos), config))
    yield FitSurfaceStep(count, count + parts, "initial", 0, mesh, {}, notes)
    aligned = [depths[i].depth.nan_to_num(posinf=0) if i in depths else None for i in range(len(photos))]
    per_image = compensates_exposure(config, field)
    refinement = Refinement(mesh, len(photos), config, per_image_exposure=per_image)
    left = None if seconds is None else start + seconds - time.perf_counter()
    for done, stage, losses, progress in _refine(refinement, photos, aligned, config, left):
        index = count + min(parts, max(1, round(progress * parts)))
        yield FitSurfaceStep(index, count + parts, stage, done, refinement.mesh, losses, notes)


def _refine(
    refinement: Refinement,
    photos: Sequence[PhotoView],
    depths: Sequence[Tensor | None],
    config: FitSurface,
    seconds: float | None,
) -> Iterator[tuple[int, Stage, dict[str, float], float]]:
    """Take refinement steps until the budget is spent; yield their number, stage, losses and progress.

    seconds: what is left of a budget in minutes; there is at least one step.
    """
    start, generator = time.perf_counter(), torch.Generator().manual_seed(config.seed)
    targets: list[ViewTarget] = []
    order: list[int] = []
    done, progress, factor = 0, 0.0, 0
    while progress < 1 and config.steps != 0:
        wanted = COARSE_FACTOR if progress < COARSE_UNTIL else 1
        if wanted != factor:
            factor, targets = wanted, reduced_targets(photos, depths, wanted)
        order = order or shuffled(len(photos), generator)
        move = progress < MOVE_UNTIL
        losses = refinement.step(targets[order.pop()], progress, move=move)
        done += 1
        if config.steps is not None:
            progress = done / config.steps
        else:
            assert seconds is not None
            progress = min(1.0, (time.perf_counter() - start) / max(seconds, 1e-9))
        yield done, ("colors" if not move else "fine" if factor == 1 else "coarse"), losses, progress


def compensates_exposure(config: FitSurface, field: RenderedField) -> bool:
    """Say whether the exposure of each photo is compensated."""
    return config.exposure == "per_image" or (config.exposure == "auto" and field.scene_box.contracted)


def _colored(mesh: Mesh, field: RenderedField, photos: Sequence[PhotoView]) -> Mesh:
    """Return a mesh with the colors of a field along its normals; of the photos if the field has none at points."""
    if not isinstance(field, Field):
        return bake_vertex_colors(mesh, photos).mesh
    with torch.no_grad():
        pairs = zip(
            mesh.vertices.split(VERTICES_PER_QUERY),
            vertex_normals(mesh).split(VERTICES_PER_QUERY),
            strict=True,
        )
        colors = torch.cat([field(points, -normals)[1] for points, normals in pairs])
    return mesh.replace(vertex_colors=colors.clamp(0, 1))


def _shortage(plan: DepthPlan, num_photos: int, config: FitSurface) -> list[str]:
    """Say that the budget did not suffice for all depth images."""
    wanted = min(num_photos, config.views)
    if len(plan.indices) == wanted and plan.size == SIZE:
        return []
    return [
        f"as time was short, depth was rendered from {len(plan.indices)} views instead of {wanted}, with "
        f"{plan.size} pixels along the longer side"
    ]


def _require_surface(views: Sequence[DepthView]) -> None:
    surface = [(view.depth > 0) & view.depth.isfinite() for view in views]
    fraction = sum(float(each.double().mean()) for each in surface) / len(views)
    if fraction < MIN_DEPTH_FRACTION:
        raise InputError(
            f"fit_surface: the field has no surface: only {100 * fraction:.2g} % of the pixels of its depth images are "
            "opaque; train it longer, or check the cameras with `unrender inspect`"
        )


def _is_one_sided(views: Sequence[DepthView]) -> bool:
    """Say whether all cameras are on one side of the surface that their depth images show."""
    center = torch.cat([unproject_view(view)[0] for view in views]).median(0).values
    offsets = torch.stack([view.camera.position for view in views]) - center
    mean = torch.nn.functional.normalize(offsets, dim=1).mean(0)
    return float(mean.norm()) > ONE_SIDE
