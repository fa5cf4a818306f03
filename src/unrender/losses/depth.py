"""Depth supervision loss and depth error metrics."""

import math

from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels.composite import check_offsets

DELTA_THRESHOLD = 1.25


@checked
def depth_loss(
    weights: Float[Tensor, " samples"],
    distances: Float[Tensor, " samples"],
    offsets: Int[Tensor, " bounds"],
    target: Float[Tensor, " rays"],
    *,
    tolerance: float = 0.02,
) -> Float[Tensor, ""]:
    """Penalize volume rendering weights away from target distances along rays; the result is in [0, 1].

    1 − mean over rays of Σᵢ wᵢ / (1 + xᵢ), with xᵢ = |tᵢ − target| / (tolerance · target). The penalty is bounded: a
    weight far from the target counts as missing, so that outliers among the targets have limited influence. The samples
    of ray r, at distances t with weights w, are offsets[r] to offsets[r + 1]. The loss is 0 if there are no rays.

    Differentiable in: weights, distances, target.
    Compare Deng et al. 2022 (DS-NeRF), section 3.2, whose loss is logarithmic in the weights and dominated by outliers.
    """
    if not 0 < tolerance < math.inf:
        raise InputError(f"depth_loss: `tolerance` should be positive and finite, got {tolerance}")
    check_offsets("depth_loss", offsets, weights)
    if len(offsets) != len(target) + 1:
        raise InputError(
            f"depth_loss: `offsets` has {len(offsets) - 1} rays and `target` {len(target)}; give one target per ray"
        )
    if not bool(((target > 0) & target.isfinite()).all()):
        raise InputError("depth_loss: `target` should be positive and finite; omit rays without known depth")
    if len(target) == 0:
        return weights.sum()
    expected = target.repeat_interleave(offsets.diff())
    x = (distances - expected).abs() / (tolerance * expected)
    return 1 - (weights / (1 + x)).sum() / len(target)


@checked
def depth_errors(
    estimate: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], valid: Bool[Tensor, "*shape"]
) -> dict[str, float]:
    """Compute standard depth error metrics where the estimate is valid and the ground truth is known (above 0).

    abs_rel = mean |d − d*| / d*, mae = mean |d − d*|, rmse = √ mean (d − d*)², delta_1.25 = fraction with
    max(d / d*, d* / d) < 1.25; and valid_fraction, the fraction of pixels with ground truth that are valid. Metrics are
    nan if no pixel can be compared.
    Differentiable in: nothing. Source: Eigen et al., Depth map prediction from a single image, 2014, section 4.
    """
    known = truth.isfinite() & (truth > 0)
    compared = known & valid
    d, t = estimate.detach()[compared].double(), truth.detach()[compared].double()
    error = (d - t).abs()
    close = (d < DELTA_THRESHOLD * t) & (t < DELTA_THRESHOLD * d)
    return {
        "abs_rel": float((error / t).mean()),
        "mae": float(error.mean()),
        "rmse": float(error.square().mean().sqrt()),
        "delta_1.25": float(close.double().mean()),
        "valid_fraction": float(compared.sum()) / max(int(known.sum()), 1),
    }
