"""What a camera sees of a mesh, and what lies there."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked, describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.kernels.interpolate import mix_corners
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
    """Find the `layers` nearest faces that cover a pixel or pass within `blur` pixels of its centre.

    Faces are cut at depth `near`; by default that is a ten-thousandth of the farthest vertex's depth in
    perspective, and 0 in orthographic projection. `cull` leaves out faces that show their back. Batches of
    meshes and cameras broadcast.

    Differentiable in: vertices and camera, through barycentrics, depths and squared distances (not twice).
    """
    points = camera.project_homogeneous(mesh.vertices)
    near = near_plane(points, camera) if near is None else near
    size = {"height": camera.height, "width": camera.width}
    return rasterize_faces(points, mesh.faces, **size, near=near, layers=layers, blur=blur, cull=cull)


def near_plane(points: Tensor, camera: Camera) -> float:
    """Return the depth at which faces are cut unless a caller says otherwise."""
    if camera.projection == "orthographic" or points.numel() == 0:
        return 0.0
    return max(1e-4 * float(points.detach()[..., 3].max()), torch.finfo(points.dtype).tiny)


class Hits(TensorStruct):
    """The filled slots of fragments, one row each: what shading works on."""

    barycentric: Float[Tensor, "slots 3"]
    """Of all slots."""
    places: Int[Tensor, " filled"]
    """Which slots are filled."""
    face_ids: Int[Tensor, " filled"]
    images: Int[Tensor, " filled"]
    """Which image of the batch each belongs to."""
    shape: tuple[int, ...]
    """Of the fragments: batch, height, width, layers."""

    def mix(self, faces: Tensor, values: Tensor) -> Tensor:
        """Interpolate values `[*batch vertices channels]`; those without batch axes serve every image."""
        batch, own = self.shape[:-3], values.shape[:-2]
        if len(own) > len(batch) or any(
            n not in (1, m) for n, m in zip(own[::-1], batch[::-1], strict=False)
        ):
            raise InputError(
                f"interpolate: batch axes of values and fragments should agree, got values {describe_value(values)} "
                f"and fragments {list(self.shape)}"
            )
        images = self.images if math.prod(own) > 1 else torch.zeros_like(self.images)
        if math.prod(own) > 1:
            values = values.expand(*batch, *values.shape[-2:])
        values = values.reshape(-1, *values.shape[-2:])
        return mix_corners(self.barycentric, values, faces, self.face_ids, self.places, images)

    def of_each_image(self, camera: Camera) -> Camera:
        """Repeat the camera of each row's image; one camera serves all."""
        if camera.focal.dim() == 1:
            return camera
        batch, axes = self.shape[:-3], camera.focal.dim() - 1
        cameras = camera.map(lambda t: t.expand(*batch, *t.shape[axes:]).flatten(0, len(batch) - 1))
        return cameras[self.images]

    def spread(self, rows: Tensor) -> Tensor:
        """Put rows back into an image with layers, zero in empty slots."""
        image = rows.new_zeros(len(self.barycentric), rows.shape[-1])
        return image.index_copy(0, self.places, rows).view(*self.shape, rows.shape[-1])


def hits(fragments: Fragments) -> Hits:
    """List the filled slots of fragments."""
    shape = tuple(fragments.face_ids.shape)
    flat = fragments.face_ids.flatten()
    places = (flat >= 0).nonzero()[:, 0]
    slots_per_image = shape[-3] * shape[-2] * shape[-1]
    images = places.div(slots_per_image, rounding_mode="floor")
    return Hits(fragments.barycentric.reshape(-1, 3), places, flat[places], images, shape)


@checked
def interpolate(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], values: Float[Tensor, "*batch vertices channels"]
) -> Float[Tensor, "*batch height width layers channels"]:
    """Interpolate values given at the vertices: Σ b_i v_i at each fragment, zero in empty slots.

    Values without batch axes serve every image of a batch.
    Differentiable in: barycentrics, values.
    """
    rows = hits(fragments)
    return rows.spread(rows.mix(faces, values))
