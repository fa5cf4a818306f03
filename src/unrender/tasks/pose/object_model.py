"""The object whose pose is estimated: normalized to the unit sphere, and simplified to the image resolution."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.camera import Camera, rigid
from unrender.geometry.mesh import Mesh, surface_area
from unrender.geometry.simplify import cluster_vertices
from unrender.render.fragments import Hits
from unrender.render.texture import Texture

MIN_FACES_TO_SIMPLIFY = 3000
"""Meshes with fewer faces are not simplified."""
CELLS_PER_PIXEL = 0.6
"""Clustering cells along the longest side per pixel of the window, of which the object fills two thirds."""


class Model(NamedTuple):
    """A mesh with the center of its bounding box at the origin and its farthest vertex at distance 1."""

    mesh: Mesh
    texture: Texture | None

    @property
    def has_colors(self) -> bool:
        """Whether the model has a texture or vertex colors."""
        return self.texture is not None or self.mesh.vertex_colors is not None


class Placement(NamedTuple):
    """The transform between a mesh and its normalized model."""

    center: Tensor
    radius: float
    origin: Tensor
    """Origin of the frame in which the pose is estimated, as single precision does not suffice far away from it."""

    def to_world(self, poses: Tensor) -> Tensor:
        """Convert poses of the model to poses of the mesh, in its units."""
        poses = poses.to(self.center)
        shift = self.radius * poses[..., :3, 3] - poses[..., :3, :3] @ self.center + self.origin
        return rigid(poses[..., :3, :3], shift)

    def from_world(self, poses: Tensor) -> Tensor:
        """Convert poses of the mesh to poses of the model."""
        poses = poses.to(self.center)
        shift = poses[..., :3, 3] - self.origin + poses[..., :3, :3] @ self.center
        return rigid(poses[..., :3, :3], shift / self.radius).float()


def make_model(
    mesh: Mesh, texture: Texture | None, use_color: bool, task: str = "find_pose"
) -> tuple[Model, Placement]:
    """Validate and normalize a mesh; without `use_color` its colors are dropped. Errors name the `task`."""
    if mesh.vertices.dim() != 2 or len(mesh.faces) == 0:
        raise InputError(
            f"{task}: `mesh` should be a single mesh with faces, got {len(mesh.faces)} faces and vertices "
            f"{list(mesh.vertices.shape)}"
        )
    if not bool(mesh.vertices.isfinite().all()):
        raise InputError(f"{task}: `mesh` has NaN or infinite vertices; repair or remove them")
    if texture is not None and len(texture.faces) != len(mesh.faces):
        raise InputError(
            f"{task}: `texture` has {len(texture.faces)} faces but the mesh has {len(mesh.faces)}; "
            "load both from the same file"
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
        raise InputError(f"{task}: all vertices of `mesh` coincide")
    vertices = ((used - placement.center) / placement.radius).float()
    scaled = Mesh(vertices, faces, None if colors is None else colors[kept, :3].float())
    if not float(surface_area(scaled)) > 1e-6:
        raise InputError(f"{task}: the faces of `mesh` have no area")
    if texture is not None and use_color:
        return Model(scaled, texture.replace(image=texture.image[..., :3]).to(torch.float32)), placement
    return Model(scaled, None), placement


def simplify_for_resolution(model: Model, size: int) -> Model:
    """Simplify a model to the detail that is visible in images of this many pixels per side."""
    if len(model.mesh.faces) <= MIN_FACES_TO_SIMPLIFY:
        return model
    mesh = cluster_vertices(_bake_texture(model), round(CELLS_PER_PIXEL * size))
    return (
        Model(mesh, None)
        if MIN_FACES_TO_SIMPLIFY / 10 < len(mesh.faces) < len(model.mesh.faces) / 2
        else model
    )


def albedo(model: Model, rows: Hits) -> Tensor:
    """Return the surface colors at the filled slots of fragments; white without colors."""
    if model.texture is not None:
        return model.texture.sample_hits(rows)
    if model.mesh.vertex_colors is not None:
        return rows.interpolate(model.mesh.faces, model.mesh.vertex_colors)
    return rows.barycentric.new_ones(len(rows.slot_ids), 3)


def cameras_at(camera: Camera, poses: Tensor) -> Camera:
    """Create a batch of cameras with the same intrinsics at many poses."""
    num = len(poses)
    focal, center = camera.focal.expand(num, 2), camera.center.expand(num, 2)
    return Camera(focal, center, poses, camera.height, camera.width)


def _bake_texture(model: Model) -> Mesh:
    """Bake the texture to vertex colors."""
    if model.texture is None:
        return model.mesh
    colors = torch.ones_like(model.mesh.vertices)
    colors[model.mesh.faces.flatten()] = model.texture.sample(
        model.texture.uvs[model.texture.faces.flatten()]
    )
    return model.mesh.replace(vertex_colors=colors)
