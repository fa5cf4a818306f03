"""Rasterization of meshes to fragments, and interpolation of vertex attributes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked, describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.kernels._dispatch import can_read
from unrender.kernels.interpolate import interpolate_attributes
from unrender.kernels.project_points import near_plane
from unrender.kernels.rasterize import Fragments, rasterize_faces


def rasterize(
    mesh: Mesh,
    camera: Camera,
    *,
    layers: int = 1,
    blur: float = 0.0,
    cull: bool = False,
    near: float | None = None,
) -> Fragments:
    """Rasterize a mesh: find the `layers` nearest faces within `blur` pixels of each pixel center.

    Faces are clipped at the near plane, at depth `near`; the default is 1e-4 times the depth of the farthest vertex in
    perspective, and 0 in orthographic projection. `cull` enables backface culling. Batches of meshes and cameras
    broadcast. With `blur=0`, a face is found where it covers the pixel center.

    Differentiable in: vertices and camera, through barycentrics, depths and squared distances (not twice).
    """
    points = camera.project_homogeneous(mesh.vertices)
    depth = default_near(points, camera) if near is None else near
    size = {"height": camera.height, "width": camera.width}
    return rasterize_faces(points, mesh.faces, **size, near=depth, layers=layers, blur=blur, cull=cull)


def default_near(points: Tensor, camera: Camera) -> float | Tensor:
    """Return the default depth of the near plane; on a GPU, which would have to be waited for, as a tensor."""
    if camera.projection == "orthographic" or points.numel() == 0:
        return 0.0
    near = near_plane(points)
    return float(near) if can_read(near) else near


class Hits(TensorStruct):
    """The filled slots of fragments as rows, the input of shading."""

    barycentric: Float[Tensor, "slots 3"]
    """Barycentric coordinates of all slots, filled or not."""
    slot_ids: Int[Tensor, " filled"]
    """Indices of the filled slots."""
    face_ids: Int[Tensor, " filled"]
    image_ids: Int[Tensor, " filled"]
    """Index of the image in the batch."""
    shape: tuple[int, ...]
    """Shape of the fragments: batch, height, width, layers."""

    def interpolate(self, faces: Tensor, values: Tensor) -> Tensor:
        """Interpolate vertex values `[*batch vertices channels]`; values without batch axes apply to every image."""
        batch, own = self.shape[:-3], values.shape[:-2]
        if len(own) > len(batch) or any(
            n not in (1, m) for n, m in zip(own[::-1], batch[::-1], strict=False)
        ):
            raise InputError(
                f"interpolate: batch axes of values and fragments should agree, got values {describe_value(values)} "
                f"and fragments {list(self.shape)}"
            )
        image_ids = self.image_ids if math.prod(own) > 1 else torch.zeros_like(self.image_ids)
        if math.prod(own) > 1:
            values = values.expand(*batch, *values.shape[-2:])
        values = values.reshape(-1, *values.shape[-2:])
        return interpolate_attributes(
            self.barycentric, values, faces, self.face_ids, self.slot_ids, image_ids
        )

    def cameras(self, camera: Camera) -> Camera:
        """Return the camera of each row's image; a single camera applies to all rows."""
        if camera.focal.dim() == 1:
            return camera
        batch, axes = self.shape[:-3], camera.focal.dim() - 1
        cameras = camera.map(lambda t: t.expand(*batch, *t.shape[axes:]).flatten(0, len(batch) - 1))
        return cameras[self.image_ids]

    def scatter(self, rows: Tensor) -> Tensor:
        """Scatter rows to the shape of the fragments, with zeros in empty slots."""
        image = rows.new_zeros(len(self.barycentric), rows.shape[-1])
        return image.index_copy(0, self.slot_ids, rows).view(*self.shape, rows.shape[-1])


def hits(fragments: Fragments) -> Hits:
    """Gather the filled slots of fragments."""
    shape = tuple(fragments.face_ids.shape)
    flat = fragments.face_ids.flatten()
    slot_ids = (flat >= 0).nonzero()[:, 0]
    slots_per_image = shape[-3] * shape[-2] * shape[-1]
    image_ids = slot_ids.div(slots_per_image, rounding_mode="floor")
    return Hits(fragments.barycentric.reshape(-1, 3), slot_ids, flat[slot_ids], image_ids, shape)


@checked
def interpolate(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], values: Float[Tensor, "*batch vertices channels"]
) -> Float[Tensor, "*batch height width layers channels"]:
    """Interpolate vertex values at each fragment: Σ b_i v_i; zero in empty slots.

    Values without batch axes apply to every image of a batch.
    Differentiable in: barycentrics, values.
    """
    rows = hits(fragments)
    return rows.scatter(rows.interpolate(faces, values))
