"""How pictures of a moving surface change, in sums over all pixels: what Gauss-Newton steps need."""

from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.align import reference


@checked
def normal_equations(
    images: Float[Tensor, "batch channels height width"],
    slopes: Float[Tensor, "batch channels height width 3"],
    depth: Float[Tensor, "batch height width"],
    residual: Float[Tensor, "batch channels height width"],
    weight: Float[Tensor, "batch channels height width"],
    rays: Float[Tensor, "height width 4"],
    pivot: Float[Tensor, "batch 3"],
    *,
    with_depth: bool = False,
) -> tuple[Float[Tensor, "batch 6"], Float[Tensor, "batch 6 6"]]:
    """Return Σ J e and Σ w J Jᵀ over all pixels and channels, for residuals e and weights w.

    J says how the value of a pixel changes when the surface it shows moves by a twist (w, v), rotating about `pivot`
    by the vector w and shifting by v: dI = −∇I · u + slope · w, with u the motion in the image. At an edge the
    gradient is that of the surface in front: so the derivative of coverage crosses silhouettes (Li et al. 2018).

    `depth` is 0 where there is no surface; `rays` has x / z, y / z and the two focal lengths of every pixel; `slopes`
    says how a value changes when its surface turns where it is, by w. `with_depth` says that the last channel is the
    depth, which changes as its surface comes nearer, too.
    Differentiable in: nothing.
    """
    arguments = [t.detach() for t in (images, slopes, depth, residual, weight, rays, pivot)]
    fast = implementation("align", images.device)
    sums: tuple[Tensor, Tensor] = (reference if fast is None else fast).forward(*arguments, with_depth)
    return sums
