"""The object whose pose is looked for: scaled to a sphere of radius 1, in as few faces as a picture can show."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.camera import Camera, rigid
from unrender.geometry.mesh import Mesh, surface_area
from unrender.geometry.simplify import cluster_vertices
from unrender.render.fragments import Hits
from unrender.render.texture import Texture

ENOUGH_FACES = 3000
"""Meshes with fewer are drawn as they are, whatever the size of the picture."""
CELLS_PER_PIXEL = 0.6
"""Along the longest side: two cells for the width of three pixels, as the object fills two thirds of a window."""


class Model(NamedTuple):
    """A mesh with the centre of its box at the origin and its farthest vertex at distance 1."""

    mesh: Mesh
    texture: Texture | None

    @property
    def has_colors(self) -> bool:
        """Whether places on the surface can be told apart by color."""
        return self.texture is not None or self.mesh.vertex_colors is not None


class Placement(NamedTuple):
    """Where a mesh was before it became a model, and what it is looked for in."""

    center: Tensor
    radius: float
    origin: Tensor
    """Of the frame in which the model is looked for: far away from it, single precision does not suffice."""

    def to_world(self, poses: Tensor) -> Tensor:
        """Turn poses of the model into poses of the mesh, in its units."""
        poses = poses.to(self.center)
        shift = self.radius * poses[..., :3, 3] - poses[..., :3, :3] @ self.center + self.origin
        return rigid(poses[..., :3, :3], shift)

    def from_world(self, poses: Tensor) -> Tensor:
        """Turn poses of the mesh into poses of the model."""
        poses = poses.to(self.center)
        shift = poses[..., :3, 3] - self.origin + poses[..., :3, :3] @ self.center
        return rigid(poses[..., :3, :3], shift / self.radius).float()


def make_model(mesh: Mesh, texture: Texture | None, use_color: bool) -> tuple[Model, Placement]:
    """Check a mesh and scale it; without `use_color` its colors are left out."""
    if mesh.vertices.dim() != 2 or len(mesh.faces) == 0:
        raise InputError(
            f"find_pose: `mesh` should have faces and one pose, got {len(mesh.faces)} faces and vertices "
            f"{list(mesh.vertices.shape)}"
        )
    if not bool(mesh.vertices.isfinite().all()):
        raise InputError("find_pose: `mesh` has vertices that are not finite; repair or remove them")
    if texture is not None and len(texture.faces) != len(mesh.faces):
        raise InputError(
            f"find_pose: `texture` has {len(texture.faces)} faces and the mesh {len(mesh.faces)}: "
            "they should come from one file"
        )
    colors = mesh.vertex_colors if use_color else None
    if colors is not None and colors.shape[1] < 3:
        colors = colors[:, :1].expand(-1, 3)
    kept, faces = mesh.faces.unique(return_inverse=True)
    used = mesh.vertices[kept].double()
    low, high = used.aminmax(dim=0)
    center = (low + high) / 2
    placement = Placement(center, float((used - center).norm(dim=1).max()), torch.zeros_like(center))
    if not placement.radius > 0:
        raise InputError("find_pose: all vertices of `mesh` are in one place")
    vertices = ((used - placement.center) / placement.radius).float()
    scaled = Mesh(vertices, faces, None if colors is None else colors[kept, :3].float())
    if not float(surface_area(scaled)) > 1e-6:
        raise InputError("find_pose: the faces of `mesh` have no area")
    if texture is not None and use_color:
        return Model(scaled, texture.replace(image=texture.image[..., :3]).to(torch.float32)), placement
    return Model(scaled, None), placement


def for_size(model: Model, size: int) -> Model:
    """Leave out what pictures of this many pixels a side cannot show."""
    if len(model.mesh.faces) <= ENOUGH_FACES:
        return model
    mesh = cluster_vertices(_baked(model), round(CELLS_PER_PIXEL * size))
    return Model(mesh, None) if ENOUGH_FACES / 10 < len(mesh.faces) < len(model.mesh.faces) / 2 else model


def albedo(model: Model, rows: Hits) -> Tensor:
    """Read the colors of the surface; white where it has none."""
    if model.texture is not None:
        return model.texture.sample_hits(rows)
    if model.mesh.vertex_colors is not None:
        return rows.interpolate(model.mesh.faces, model.mesh.vertex_colors)
    return rows.barycentric.new_ones(len(rows.slot_ids), 3)


def cameras_at(camera: Camera, poses: Tensor) -> Camera:
    """Put one camera at many poses."""
    num = len(poses)
    focal, center = camera.focal.expand(num, 2), camera.center.expand(num, 2)
    return Camera(focal, center, poses, camera.height, camera.width)


def _baked(model: Model) -> Mesh:
    """Read the texture at the vertices."""
    if model.texture is None:
        return model.mesh
    colors = torch.ones_like(model.mesh.vertices)
    colors[model.mesh.faces.flatten()] = model.texture.sample(
        model.texture.uvs[model.texture.faces.flatten()]
    )
    return model.mesh.replace(vertex_colors=colors)
