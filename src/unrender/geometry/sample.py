"""Random sampling of points on mesh surfaces."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.geometry.mesh import Mesh
from unrender.kernels.surface_samples import draw_on_surface


class SurfaceSamples(TensorStruct):
    """Points sampled on a mesh, with their normals, faces and barycentric coordinates."""

    points: Float[Tensor, "*batch samples 3"]
    normals: Float[Tensor, "*batch samples 3"]
    """Unit outward normals of the faces."""
    face_ids: Int[Tensor, "*batch samples"]
    barycentric: Float[Tensor, "*batch samples 3"]


def sample_points_from_mesh(
    mesh: Mesh, count: int, *, generator: torch.Generator | None = None
) -> SurfaceSamples:
    """Sample `count` points uniformly over the surface, ordered by face.

    Sampling is stratified: one point is drawn from each of `count` strata of equal area, so that the number of points
    on a face is proportional to its area to within two. In a face (a, b, c), the point is
    (1 − √u) a + √u (1 − v) b + √u v c for uniform u, v (Osada et al. 2002, eq. 1).
    Raises InputError for a mesh without surface area.
    Differentiable in: the vertices, with faces and barycentric coordinates held fixed.
    """
    shape, like = (*mesh.vertices.shape[:-2], count), mesh.vertices
    device = like.device if generator is None else generator.device
    jitter = torch.rand(*shape, generator=generator, dtype=torch.float64, device=device).to(like.device)
    uv = torch.rand(2, *shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
    return SurfaceSamples(*draw_on_surface(mesh.vertices, mesh.faces, jitter, uv))
