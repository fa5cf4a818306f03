"""The texels of an atlas: the points of the surface that they show, and the padding between charts."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.uv_atlas import UVAtlas
from unrender.kernels.interpolate import interpolate_attributes
from unrender.kernels.rasterize import rasterize_faces
from unrender.render.texture import Texture
from unrender.tasks.surface.project_photos import SurfacePoints


class Texels(NamedTuple):
    """The texels whose centers lie in a chart, as rows."""

    covered: Bool[Tensor, "height width"]
    slot_ids: Int[Tensor, " texels"]
    """Indices into the image, row by row."""
    face_ids: Int[Tensor, " texels"]
    barycentric: Float[Tensor, "slots 3"]
    """Of all texels, covered or not."""

    def interpolate(self, faces: Tensor, values: Float[Tensor, "vertices channels"]) -> Tensor:
        """Interpolate vertex values at the texels."""
        return interpolate_attributes(
            self.barycentric,
            values[None],
            faces,
            self.face_ids,
            self.slot_ids,
            torch.zeros_like(self.face_ids),
        )

    def surface(self, mesh: Mesh) -> SurfacePoints:
        """Return the points of the surface at the texels, with interpolated vertex normals."""
        normals = normalize(self.interpolate(mesh.faces, vertex_normals(mesh)), dim=-1)
        vertex_ids = mesh.faces[self.face_ids.long(), 0]
        return SurfacePoints(self.interpolate(mesh.faces, mesh.vertices), normals, vertex_ids)

    def texture(self, colors: Float[Tensor, "texels channels"], atlas: UVAtlas) -> Texture:
        """Return a texture with these colors, and padding around the charts."""
        image = colors.new_zeros(self.covered.numel(), colors.shape[1]).index_copy(0, self.slot_ids, colors)
        return Texture(
            dilate(image.view(*self.covered.shape, -1), self.covered), atlas.uvs.to(colors.dtype), atlas.faces
        )


def find_texels(atlas: UVAtlas) -> Texels:
    """Find the texels whose centers lie in a chart."""
    size = atlas.texture_size
    u, v = atlas.uvs.unbind(-1)
    one = torch.ones_like(u)
    points = torch.stack([u * size, (1 - v) * size, one, one], -1)
    fragments = rasterize_faces(points, atlas.faces, height=size, width=size, near=0.0)
    face_ids = fragments.face_ids.flatten()
    slot_ids = (face_ids >= 0).nonzero()[:, 0]
    covered = (face_ids >= 0).view(size, size)
    return Texels(covered, slot_ids, face_ids[slot_ids], fragments.barycentric.reshape(-1, 3))


def dilate(
    image: Float[Tensor, "height width channels"], covered: Bool[Tensor, "height width"]
) -> Float[Tensor, "height width channels"]:
    """Fill all texels that are not covered with the color of the nearest one that is.

    Bilinear filtering and mip maps then have no seams.
    """
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(
        (~covered).cpu().numpy(), return_distances=False, return_indices=True
    )
    source = torch.from_numpy(rows * covered.shape[1] + columns).long().to(image.device)
    return image.flatten(0, 1)[source]
