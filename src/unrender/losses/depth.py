"""How far depths are from the truth."""

import math

from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels.composite import check_offsets

CLOSE = 1.25


@checked
def depth_loss(
    weights: Float[Tensor, " samples"],
    distances: Float[Tensor, " samples"],
    offsets: Int[Tensor, " bounds"],
    known: Float[Tensor, " rays"],
    *,
    tolerance: float = 0.02,
) -> Float[Tensor, ""]:
    """Return how much of the light along rays ends elsewhere than at distances that are known, in [0, 1].

    1 − mean over rays of Σᵢ wᵢ / (1 + xᵢ), with xᵢ = |tᵢ − known| / (tolerance · known): a weight far from where it
    should be counts as one that is missing, so that wrong depths pull with no more strength than right ones. Samples
    of ray r, at distances t with weights w, are offsets[r] to offsets[r + 1]. 0 if there are no rays.

    Differentiable in: weights, distances, known.
    Compare Deng et al. 2022 (DS-NeRF), section 3.2, who take the logarithm of the weights, which outliers rule.
    """
    if not 0 < tolerance < math.inf:
        raise InputError(f"depth_loss: `tolerance` should be above 0, got {tolerance}")
    check_offsets("depth_loss", offsets, weights)
    if len(offsets) != len(known) + 1:
        raise InputError(
            f"depth_loss: {len(offsets) - 1} rays have samples, and {len(known)} a known distance"
        )
    if not bool(((known > 0) & known.isfinite()).all()):
        raise InputError(
            "depth_loss: `known` should be positive and finite; leave out rays of which nothing is known"
        )
    if len(known) == 0:
        return weights.sum()
    right = known.repeat_interleave(offsets.diff())
    x = (distances - right).abs() / (tolerance * right)
    return 1 - (weights / (1 + x)).sum() / len(known)


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
