"""Textures from photos: projection onto the atlas, then optimization of the texels by differentiable rendering."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.uv_atlas import UVAtlas
from unrender.render.texture import Texture
from unrender.tasks.surface.bake_vertex_colors import (
    check_observed,
    check_views,
    fill_unobserved,
    mean_by_index,
)
from unrender.tasks.surface.photo_views import PhotoView
from unrender.tasks.surface.project_photos import PointColors, estimate_exposures, project_photos
from unrender.tasks.surface.refine_texture import TextureRefinement
from unrender.tasks.surface.texels import Texels, find_texels


class BakedTexture(NamedTuple):
    """A texture from photos."""

    texture: Texture
    num_texels: int
    """Texels in the charts."""
    num_unobserved: int
    """Texels that no photo shows; their colors are interpolated from their neighbors on the surface."""
    exposures: Tensor | None
    """Factor of each channel of each photo [views, 3]; None if exposure is not compensated."""


@dataclasses.dataclass(frozen=True)
class BakeTextureStep:
    """The state after the projection of the photos, step 0, or after a step of the refinement."""

    index: int
    last_index: int
    loss: float
    """Mean Huber loss of the step's photo; 0 for the projection."""
    projected: BakedTexture
    refinement: TextureRefinement | None

    @property
    def result(self) -> BakedTexture:
        """The texture so far."""
        if self.refinement is None:
            return self.projected
        return self.projected._replace(texture=self.refinement.texture())


def bake_texture(
    mesh: Mesh,
    atlas: UVAtlas,
    views: Sequence[PhotoView],
    *,
    refine_steps: int = 300,
    exposure: bool = False,
    seconds: float | None = None,
) -> BakedTexture:
    """Compute the texture of a mesh from photos.

    Each texel starts with the mean color of the photos in which it is visible, see `project_photos`. Then
    `refine_steps` steps of gradient descent fit the rendered texture to one photo each, see `TextureRefinement`. With
    `exposure`, differences in brightness and white balance between the photos are compensated. Texels that no photo
    shows are filled from their neighbors, and the space between charts is padded. A budget in `seconds` ends the
    refinement early, and the result depends on the speed of the machine then.
    Raises InputError if no photo shows the mesh, or the atlas is of another mesh.
    Differentiable in: nothing.

    Example: `bake_texture(mesh, unwrap(mesh), load_photo_views(scene.split("train")))`.
    """
    steps = bake_texture_steps(
        mesh, atlas, views, refine_steps=refine_steps, exposure=exposure, seconds=seconds
    )
    *_, last = steps
    return last.result


def bake_texture_steps(
    mesh: Mesh,
    atlas: UVAtlas,
    views: Sequence[PhotoView],
    *,
    refine_steps: int = 300,
    exposure: bool = False,
    seconds: float | None = None,
) -> Iterator[BakeTextureStep]:
    """Compute the texture of a mesh step by step; see `bake_texture`."""
    check_views("bake_texture", mesh, views)
    if len(atlas.faces) != len(mesh.faces):
        raise InputError(
            f"bake_texture: `atlas` has {len(atlas.faces)} faces but the mesh has {len(mesh.faces)}; unwrap this mesh"
        )
    if refine_steps < 0:
        raise InputError(f"bake_texture: `refine_steps` should be at least 0, got {refine_steps}")
    plain = Mesh(mesh.vertices.detach().float(), mesh.faces)
    return _steps(plain, atlas, views, refine_steps, exposure, seconds)


def _steps(
    mesh: Mesh,
    atlas: UVAtlas,
    views: Sequence[PhotoView],
    refine_steps: int,
    exposure: bool,
    seconds: float | None,
) -> Iterator[BakeTextureStep]:
    end = math.inf if seconds is None else time.perf_counter() + seconds
    texels = find_texels(atlas)
    surface = texels.surface(mesh)
    exposures = estimate_exposures(mesh, surface, views) if exposure else None
    found = check_observed("bake_texture", project_photos(mesh, surface, views, exposures))
    texture = texels.texture(_filled(mesh, texels, surface.vertex_ids, found), atlas)
    projected = BakedTexture(texture, len(texels.slot_ids), int((~found.observed).sum()), exposures)
    yield BakeTextureStep(0, refine_steps, 0.0, projected, None)
    refinement, start = TextureRefinement(mesh, texture, texels.covered), time.perf_counter()
    for i, view in enumerate(_view_order(len(views), refine_steps)):
        now = time.perf_counter()
        if now >= end:
            break
        progress = max(i / max(refine_steps - 1, 1), (now - start) / (end - start))
        loss = refinement.step(views[view], progress, None if exposures is None else exposures[view])
        yield BakeTextureStep(i + 1, refine_steps, loss, projected, refinement)


def _view_order(num_views: int, steps: int) -> list[int]:
    """Return the view of each step: all of them in a new random order, again and again."""
    generator = torch.Generator().manual_seed(0)
    rounds = [torch.randperm(num_views, generator=generator) for _ in range(-(-steps // num_views))]
    return torch.cat(rounds)[:steps].tolist() if rounds else []


def _filled(mesh: Mesh, texels: Texels, vertex_ids: Tensor, found: PointColors) -> Tensor:
    """Return the colors of all texels: those that no photo shows get colors from their surroundings on the surface."""
    seen = vertex_ids[found.observed]
    means = mean_by_index(found.colors[found.observed], seen, len(mesh.vertices))
    known = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=seen.device)
    known[seen] = True
    colors = texels.interpolate(mesh.faces, fill_unobserved(mesh, PointColors(means, known)))
    return torch.where(found.observed[:, None], found.colors, colors)
