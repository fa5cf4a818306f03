"""Systematic errors that residuals at one pose do not show: of the focal length, and of the size of the mask.

Both move the estimated pose along the viewing direction, and its rendering fits almost as well. They show when the pose
is refined again, at other focal lengths and with other masks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from unrender.geometry.camera import Camera
from unrender.tasks.pose.levenberg_marquardt import Fit, levenberg_marquardt
from unrender.tasks.pose.photo_alignment import Window

FOCAL_STEP = 1.2
"""The cost is evaluated at the focal length times and divided by this factor."""
MAX_STEPS = 8
MIN_FOCAL_ERROR, MIN_SIGNIFICANCE = 0.03, 1.5
"""Smaller errors of the focal length, relative to it and in standard deviations, are not reported."""
MAX_OBSERVABLE_STD = 1 / 3
"""An error of the focal length is evident if its standard deviation is below this fraction of the expected one."""
MAX_MASK_COST_RATIO = 0.6
"""A mask is too large if the silhouette cost with an eroded mask is lower by this factor, and vice versa."""
MASK_ERROR_IF_VISIBLE = 2.0
"""Standard deviation, in pixels, by which a mask is too large or too small if the residuals show it."""


class FocalError(NamedTuple):
    """Estimated logarithm of the true focal length divided by the given one, with its standard deviation."""

    mean: float = 0.0
    std: float = 0.0
    prior: float = 0.0
    """Standard deviation that is expected, without the photo."""

    @property
    def bound(self) -> float:
        """Largest relative error that is likely; 0 if an error would be evident and none is."""
        if self.std < MAX_OBSERVABLE_STD * self.prior and not self.is_significant:
            return 0.0
        return abs(self.mean) + MIN_SIGNIFICANCE * self.std

    @property
    def is_significant(self) -> bool:
        """Whether the given focal length is probably wrong."""
        return abs(self.mean) > max(MIN_FOCAL_ERROR, MIN_SIGNIFICANCE * self.std)


class SystematicErrors(NamedTuple):
    """Systematic errors of a photo that affect the distance of an object."""

    focal: FocalError = FocalError()
    mask: int = 0
    """1 if the mask is too large, -1 if it is too small, 0 if neither is evident."""

    @property
    def message(self) -> str:
        """Describe the error that is evident, or nothing; a wrong mask makes the focal length seem wrong, too."""
        if self.mask:
            return f"the mask seems to be too {'large' if self.mask > 0 else 'small'}"
        if not self.focal.is_significant:
            return ""
        percent = 100 * abs(math.expm1(-self.focal.mean))
        size = "small" if self.focal.mean > 0 else "large"
        return f"the focal length seems to be about {percent:.0f} % too {size}"


NO_ERRORS = SystematicErrors()


def estimate_focal_error(
    evaluate: Callable[[Window, Tensor], Fit],
    window: Window,
    best: Fit,
    num_measurements: float,
    prior: float,
) -> FocalError:
    """Fit a parabola to the cost at three focal lengths, each with its own best pose.

    `prior` is the standard deviation of the focal length, relative to it: it limits the estimate where the cost hardly
    depends on the focal length, as for objects that are far away.
    """
    if prior == 0:
        return FocalError()
    costs, step = [], math.log(FOCAL_STEP)
    for factor in (1 / FOCAL_STEP, FOCAL_STEP):
        poses = best.poses.clone()
        poses[:, 2, 3] *= factor
        costs.append(_refined_cost(evaluate, _with_focal(window, factor), poses))
    low, center, high = costs[0], float(best.cost[0]), costs[1]
    if not math.isfinite(low + high):
        return FocalError(0.0, prior, prior)
    gradient, curvature = (high - low) / (4 * step), max(0.0, low + high - 2 * center) / (2 * step**2)
    per_cost = num_measurements / max(min(low, center, high), 1e-12)
    precision = 1 / prior**2 + curvature * per_cost
    return FocalError(max(-step, min(step, -gradient * per_cost / precision)), precision**-0.5, prior)


def estimate_mask_error(
    evaluate: Callable[[Window, Tensor], Fit], window: Window, best: Fit, radius: int
) -> int:
    """Compare the silhouette costs of the mask, eroded and dilated by `radius` pixels, each with its own best pose."""
    background = (1 - window.coverage) * window.known
    eroded = torch.minimum(window.coverage, 1 - _dilate(background, radius))
    masks = (eroded, window.coverage, _dilate(window.coverage, radius))
    windows = [window._replace(coverage=mask) for mask in masks]
    smaller, same, larger = (_refined_cost(evaluate, w, best.poses) * float(w.area) for w in windows)
    if min(smaller, larger) > MAX_MASK_COST_RATIO * same:
        return 0
    return 1 if smaller < larger else -1


def _dilate(mask: Tensor, radius: int) -> Tensor:
    return max_pool2d(mask[None], 2 * radius + 1, 1, radius)[0]


def _refined_cost(evaluate: Callable[[Window, Tensor], Fit], window: Window, poses: Tensor) -> float:
    *_, fit = levenberg_marquardt(lambda trial: evaluate(window, trial), poses, MAX_STEPS)
    return float(fit.cost[0])


def _with_focal(window: Window, factor: float) -> Window:
    camera: Camera = window.camera.replace(focal=window.camera.focal * factor)
    return window._replace(camera=camera)
