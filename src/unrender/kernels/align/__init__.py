"""Normal equations of image alignment, for Gauss-Newton steps on the pose of a surface."""

from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.align import reference


@checked
def normal_equations(
    images: Float[Tensor, "batch channels height width"],
    shading_gradients: Float[Tensor, "batch channels height width 3"],
    depth: Float[Tensor, "batch height width"],
    residual: Float[Tensor, "batch channels height width"],
    weight: Float[Tensor, "batch channels height width"],
    rays: Float[Tensor, "height width 4"],
    pivot: Float[Tensor, "batch 3"],
    *,
    with_depth: bool = False,
) -> tuple[Float[Tensor, "batch 6"], Float[Tensor, "batch 6 6"]]:
    """Compute Σ J e and Σ w J Jᵀ over all pixels and channels, for residuals e and weights w.

    J is the derivative of a pixel's value with respect to a twist (w, v) of the visible surface, a rotation about
    `pivot` by the vector w and a translation v: dI = −∇I · u + s · w, with the optical flow u. At occlusion
    boundaries the image gradient belongs to the surface in front, which gives the derivative of coverage at silhouettes
    (Li et al. 2018).

    `depth` is 0 for background; `rays` holds x / z, y / z and the two focal lengths of every pixel. `shading_gradients`
    holds s, the derivative of a value with respect to a rotation w of the surface in place, as shading has. With
    `with_depth`, the last channel is depth, which also changes with the distance of the surface.
    Differentiable in: nothing.
    """
    arguments = [t.detach() for t in (images, shading_gradients, depth, residual, weight, rays, pivot)]
    fast = implementation("align", images.device)
    sums: tuple[Tensor, Tensor] = (reference if fast is None else fast).forward(*arguments, with_depth)
    return sums
