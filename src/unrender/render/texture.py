"""Pictures on surfaces."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

from unrender._struct import TensorStruct
from unrender.kernels.rasterize import Fragments
from unrender.render.fragments import Hits, hits


class Texture(TensorStruct):
    """A picture, and where each corner of each face lies on it.

    u runs to the right and v upwards: (0, 0) is the lower left corner of the picture, (1, 1) the upper right, and
    the centre of the texel in row r and column c lies at u = (c + ½) / width, v = 1 − (r + ½) / height. Between
    centres texels are mixed bilinearly; outside of them the nearest counts.
    """

    image: Float[Tensor, "height width channels"]
    uvs: Float[Tensor, "uvs 2"]
    faces: Int[Tensor, "faces 3"]
    """Which uvs the corners of the mesh's faces have."""

    def at(self, uvs: Float[Tensor, "points 2"]) -> Float[Tensor, "points channels"]:
        """Read the picture at points.

        Differentiable in: image, uvs.
        """
        grid = (uvs * 2 - 1) * uvs.new_tensor([1.0, -1.0])
        texels = self.image.movedim(-1, 0)[None]
        found = grid_sample(texels, grid[None, None], "bilinear", "border", align_corners=False)
        return found[0, :, 0].mT

    def on(self, rows: Hits) -> Float[Tensor, "filled channels"]:
        """Read the picture where a camera hits the surface."""
        return self.at(rows.mix(self.faces, self.uvs))


def sample_texture(
    fragments: Fragments, texture: Texture
) -> Float[Tensor, "*batch height width layers channels"]:
    """Read a texture at each fragment, zero in empty slots.

    Differentiable in: barycentrics, image, uvs.
    """
    rows = hits(fragments)
    return rows.spread(texture.on(rows))
