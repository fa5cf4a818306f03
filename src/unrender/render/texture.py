"""Texture mapping."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

from unrender._struct import TensorStruct
from unrender.geometry.constants import constant
from unrender.kernels.rasterize import Fragments
from unrender.render.fragments import Hits, hits


class Texture(TensorStruct):
    """A texture image with UV coordinates for the corners of each face.

    u increases to the right and v upwards: (0, 0) is the lower left corner of the image, (1, 1) the upper right, and
    the center of the texel in row r and column c is at u = (c + ½) / width, v = 1 − (r + ½) / height. Sampling is
    bilinear, clamped to the border.
    """

    image: Float[Tensor, "height width channels"]
    uvs: Float[Tensor, "uvs 2"]
    faces: Int[Tensor, "faces 3"]
    """Indices into `uvs` for the corners of the mesh's faces."""

    def sample(self, uvs: Float[Tensor, "points 2"]) -> Float[Tensor, "points channels"]:
        """Sample the texture at UV coordinates.

        Differentiable in: image, uvs.
        """
        grid = (uvs * 2 - 1) * constant((1.0, -1.0), uvs)
        texels = self.image.movedim(-1, 0)[None]
        found = grid_sample(texels, grid[None, None], "bilinear", "border", align_corners=False)
        return found[0, :, 0].mT

    def sample_hits(self, rows: Hits) -> Float[Tensor, "filled channels"]:
        """Sample the texture at the filled slots of fragments."""
        return self.sample(rows.interpolate(self.faces, self.uvs))


def sample_texture(
    fragments: Fragments, texture: Texture
) -> Float[Tensor, "*batch height width layers channels"]:
    """Sample a texture at each fragment; zero in empty slots.

    Differentiable in: barycentrics, image, uvs.
    """
    rows = hits(fragments)
    return rows.scatter(texture.sample_hits(rows))
