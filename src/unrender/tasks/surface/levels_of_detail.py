"""Levels of detail: simplified copies of a textured mesh, each with a texture of its own."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.simplify import simplify_quadric
from unrender.geometry.uv_atlas import MIN_TEXTURE_SIZE, UVAtlas, unwrap
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.render.texture import Texture
from unrender.tasks.surface.texels import find_texels

MIN_FACES = 64
"""Levels do not get fewer faces."""
TEXELS_PER_QUERY = 2**20


class LevelOfDetail(NamedTuple):
    """A mesh with its texture, if it has one."""

    mesh: Mesh
    texture: Texture | None


def levels_of_detail(
    mesh: Mesh, texture: Texture | None = None, *, levels: int = 3, factor: int = 4, padding: int = 4
) -> list[LevelOfDetail]:
    """Return the mesh and `levels` simplified copies, each with 1/`factor` of the faces of the one before it.

    Each copy is unwrapped again, and its texture has 1/√`factor` of the side and of the padding. Its colors are those
    of the nearest point of the full mesh. Vertex colors are simplified with the mesh. Copies of less than 64 faces are
    left out.
    Raises InputError if a texture is too small for the charts of a level.
    Differentiable in: nothing.
    """
    if levels < 0 or factor < 2:
        raise InputError(
            f"levels_of_detail: `levels` should be at least 0 and `factor` at least 2, got {levels} and {factor}"
        )
    return [LevelOfDetail(mesh, texture), *iterate_levels(mesh, texture, levels, factor, padding)]


def iterate_levels(
    mesh: Mesh, texture: Texture | None, levels: int, factor: int = 4, padding: int = 4
) -> Iterator[LevelOfDetail]:
    """Yield the simplified copies of `levels_of_detail`, one at a time."""
    simple = mesh
    for level in range(1, levels + 1):
        num_faces = len(mesh.faces) // factor**level
        if num_faces < MIN_FACES:
            break
        simple = simplify_quadric(simple, num_faces)
        if texture is None:
            yield LevelOfDetail(simple, None)
            continue
        scale = factor ** (-level / 2)
        size = max(MIN_TEXTURE_SIZE, round(scale * texture.image.shape[0]))
        atlas = unwrap(simple, texture_size=size, padding=max(1, round(scale * padding)))
        yield LevelOfDetail(simple, transfer_texture(mesh, texture, simple, atlas))


@torch.no_grad()
def transfer_texture(source: Mesh, texture: Texture, target: Mesh, atlas: UVAtlas) -> Texture:
    """Bake the texture of a mesh to the atlas of another one: each texel has the color of the nearest surface point.

    Differentiable in: nothing.
    """
    texels = find_texels(atlas)
    points = texels.surface(target).points
    colors = torch.cat(
        [_nearest_colors(source, texture, chunk) for chunk in points.split(TEXELS_PER_QUERY)]
        or [points.new_zeros(0, texture.image.shape[2])]
    )
    return texels.texture(colors, atlas)


def _nearest_colors(source: Mesh, texture: Texture, points: Tensor) -> Tensor:
    found = closest_on_mesh(points, source.vertices, source.faces)
    corners = texture.uvs[texture.faces[found.face_ids]]
    return texture.sample((found.barycentrics[..., None] * corners).sum(-2))
