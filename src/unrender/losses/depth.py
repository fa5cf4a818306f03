"""How far depths are from the truth."""

from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked

CLOSE = 1.25


@checked
def depth_errors(
    estimate: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], valid: Bool[Tensor, "*shape"]
) -> dict[str, float]:
    """Compare depths where the estimate is valid and the truth is known, which is where it is above 0.

    abs_rel = mean |d − d*| / d*, mae = mean |d − d*|, rmse = √ mean (d − d*)², delta_1.25 = share with
    max(d / d*, d* / d) < 1.25; and valid_share, the share of the known pixels that are valid. nan of none.
    Differentiable in: nothing. Source: Eigen et al., Depth map prediction from a single image, 2014, section 4.
    """
    known = truth.isfinite() & (truth > 0)
    there = known & valid
    d, t = estimate.detach()[there].double(), truth.detach()[there].double()
    error = (d - t).abs()
    close = (d < CLOSE * t) & (t < CLOSE * d)
    return {
        "abs_rel": float((error / t).mean()),
        "mae": float(error.mean()),
        "rmse": float(error.square().mean().sqrt()),
        "delta_1.25": float(close.double().mean()),
        "valid_share": float(there.sum()) / max(int(known.sum()), 1),
    }
