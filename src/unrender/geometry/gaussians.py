"""3D Gaussians with opacity and view-dependent color: the contents of Gaussian splat files."""

from jaxtyping import Float
from torch import Tensor

from unrender._struct import TensorStruct


class Gaussians(TensorStruct):
    """Gaussians as 3D Gaussian splatting trains them (Kerbl et al. 2023).

    A Gaussian has the covariance R S² Rᵀ, where R is the rotation of its quaternion and S the diagonal of its scales.
    """

    means: Float[Tensor, "gaussians 3"]
    """Centers, in world coordinates."""
    scales: Float[Tensor, "gaussians 3"]
    """Standard deviations along the own axes, in world units."""
    quaternions: Float[Tensor, "gaussians 4"]
    """Rotation from own axes to the world as (w, x, y, z), of any length."""
    opacities: Float[Tensor, " gaussians"]
    """Alpha at the center, in [0, 1]."""
    harmonics: Float[Tensor, "gaussians functions 3"]
    """Coefficients of the real spherical harmonics of color; a color is their sum plus 0.5."""
    is_antialiased: bool = False
    """Whether the Gaussians were trained with opacities that compensate the dilation in the image (Mip-Splatting)."""
