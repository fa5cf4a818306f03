"""Lens distortion models of OpenCV.

A pinhole projects a point (X, Y, Z) in the camera frame to x = X / Z, y = Y / Z, at the radius r = √(x² + y²) or at the
angle θ from the optical axis. A lens maps it to the distorted (x_d, y_d); the pixel is focal · (x_d, y_d) + center.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.kernels._dispatch import can_read

LensModel = Literal["brown", "fisheye"]
NUM_RADIAL, NUM_DENOMINATOR = 4, 3
MAX_RADIUS = {"brown": 1e3, "fisheye": float(np.pi)}
"""Upper bound of the valid r (89.94 degrees from the axis) and of the valid θ."""
RADIAL_STEPS, PLANE_STEPS, FIRST_PLANE_STEPS = 60, 12, 5
STEP_TOLERANCE = 1e-12
"""Relative step size at which Newton's method stops; as it converges quadratically, the rest is rounding error."""


class Lens(TensorStruct):
    """Lens distortion: one lens per camera of a batch, or one for all of them.

    brown (OpenCV's default and rational models)::

        f = (1 + k₁ r² + k₂ r⁴ + k₃ r⁶ + k₄ r⁸) / (1 + d₁ r² + d₂ r⁴ + d₃ r⁶)
        x_d = f x + 2 p₁ x y + p₂ (r² + 2 x²)
        y_d = f y + 2 p₂ x y + p₁ (r² + 2 y²)

    fisheye (OpenCV's): θ_d = θ (1 + k₁ θ² + k₂ θ⁴ + k₃ θ⁶ + k₄ θ⁸), at the radius θ_d in the same direction.

    Far from the axis these polynomials are not monotonic, and several directions map to the same pixel. The lens is
    valid up to `max_radius`, where it is still one-to-one; `distort` and `undistort` return nan beyond it.
    """

    radial: Float[Tensor, "*batch 4"]
    """k₁ … k₄."""
    tangential: Float[Tensor, "*batch 2"]
    """p₁, p₂; zero for a fisheye."""
    denominator: Float[Tensor, "*batch 3"]
    """d₁ … d₃ of the rational model, k₄ … k₆ in OpenCV; zero for a fisheye."""
    model: LensModel = "brown"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in MAX_RADIUS:
            raise InputError(f"Lens: `model` should be 'brown' or 'fisheye', got {self.model!r}")
        fields = (self.radial, self.tangential, self.denominator)
        if not all(bool(field.isfinite().all()) for field in fields):
            raise InputError("Lens: the distortion coefficients should be finite, got nan or inf")
        if self.model == "fisheye" and any(bool(field.any()) for field in fields[1:]):
            raise InputError(
                "Lens: a fisheye has `radial` coefficients only; set `tangential` and `denominator` to zero"
            )

    @classmethod
    def brown(
        cls,
        radial: Sequence[float] = (),
        tangential: Sequence[float] = (0.0, 0.0),
        denominator: Sequence[float] = (),
    ) -> Self:
        """Create a Brown-Conrady lens from up to four k, two p and up to three d; missing coefficients are zero."""
        return cls(_filled(radial, NUM_RADIAL), _filled(tangential, 2), _filled(denominator, NUM_DENOMINATOR))

    @classmethod
    def fisheye(cls, radial: Sequence[float] = ()) -> Self:
        """Create an equidistant fisheye lens from up to four k; without any, θ_d = θ."""
        return cls(_filled(radial, NUM_RADIAL), torch.zeros(2), torch.zeros(NUM_DENOMINATOR), "fisheye")

    def __getitem__(self, index: Any) -> Self:
        lens = super().__getitem__(index)
        lens.__dict__["max_radius"] = self.max_radius[index]  # computed once for the whole batch
        return lens

    @functools.cached_property
    def max_radius(self) -> Float[Tensor, "*batch"]:
        """The r (brown) or θ in radians (fisheye) up to which the mapping of directions to pixels is one-to-one.

        Beyond it the distorted radius decreases, or the denominator vanishes. Tangential coefficients shift this limit
        slightly; `undistort` therefore verifies its result.
        """
        rows = torch.cat([self.radial, self.denominator], -1).detach().cpu().double().reshape(-1, 7).numpy()
        limits = [
            _monotonic_limit(row[:NUM_RADIAL], row[NUM_RADIAL:], MAX_RADIUS[self.model]) for row in rows
        ]
        return torch.tensor(limits).to(self.radial).reshape(self.radial.shape[:-1])

    def distort(self, points_camera: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 2"]:
        """Map points in the camera frame to distorted x and y; nan beyond `max_radius`.

        Batch axes of points and lens broadcast.
        Differentiable in: points_camera and the lens.
        """
        x, y, z = points_camera.unbind(-1)
        if self.model == "fisheye":
            square = x * x + y * y
            off_axis = square > 0
            from_axis = torch.where(off_axis, square, 1).sqrt()  # 1 keeps gradients finite on the axis
            angle = torch.atan2(torch.where(off_axis, from_axis, 0), z)
            scale = torch.where(off_axis, self._distort_radius(angle) / from_axis, 1 / z)
            inside = angle <= self.max_radius
            xy = torch.stack([scale * x, scale * y], -1)
        else:
            flat = points_camera[..., :2] / z[..., None]
            inside = flat.detach().norm(dim=-1) <= self.max_radius
            xy = self._distort_plane(flat)
        return torch.where(inside[..., None], xy, torch.nan)

    def undistort(self, distorted: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 3"]:
        """Map distorted x and y to unit directions in the camera frame; nan where no direction maps to them.

        Solved by Newton's method in double precision, safeguarded by bisection.
        Differentiable in: distorted and the lens.
        """
        wide = self.detach().to(torch.float64)
        with torch.no_grad():
            target = distorted.detach().double()
            reach = self.max_radius.double()
        if self.model == "fisheye":
            with torch.no_grad():
                start = wide._solve_radius(target.norm(dim=-1), reach).to(distorted)
            radius = distorted.norm(dim=-1)
            derivative = self.detach()._radius_derivative(start)
            angle = start - (self._distort_radius(start) - radius) / derivative  # carries the gradients
            off_axis = radius > 0
            scale = torch.where(off_axis, angle.sin() / torch.where(off_axis, radius, 1), 1)
            return torch.cat([distorted * scale[..., None], angle.cos()[..., None]], -1)
        with torch.no_grad():
            flat64 = wide._solve_plane(target, reach)
            jacobian = wide._jacobian(flat64).to(distorted)
        flat = flat64.to(distorted)
        flat = flat - _solve_2x2(jacobian, self._distort_plane(flat) - distorted)
        ray = torch.cat([flat, torch.ones_like(flat[..., :1])], -1)
        directions: Tensor = ray / ray.norm(dim=-1, keepdim=True)
        return directions

    def newton_step(
        self, distorted: Float[Tensor, "*points 2"], flat: Float[Tensor, "*points 2"]
    ) -> Float[Tensor, "*points 2"]:
        """Refine an estimate of the undistorted x and y by one step of Newton's method (brown)."""
        return flat - _solve_2x2(self._jacobian(flat), self._distort_plane(flat) - distorted)

    def _factor(self, square: Tensor) -> Tensor:
        """Evaluate the radial factor f at a squared radius or angle."""
        factor: Tensor = _polynomial(self.radial, square) / _polynomial(self.denominator, square)
        return factor

    def _distort_radius(self, radius: Tensor) -> Tensor:
        return radius * self._factor(radius * radius)

    def _radius_derivative(self, radius: Tensor) -> Tensor:
        """Differentiate `_distort_radius`."""
        square = radius * radius
        above, below = _polynomial(self.radial, square), _polynomial(self.denominator, square)
        derivative: Tensor = above / below + 2 * square * self._factor_derivative(square, above, below)
        return derivative

    def _factor_derivative(self, square: Tensor, above: Tensor, below: Tensor) -> Tensor:
        """Differentiate the radial factor with respect to r²."""
        up, down = (_polynomial_derivative(k, square) for k in (self.radial, self.denominator))
        derivative: Tensor = (up * below - above * down) / (below * below)
        return derivative

    def _distort_plane(self, flat: Tensor) -> Tensor:
        (x, y), (p1, p2) = flat.unbind(-1), self.tangential.unbind(-1)
        square = x * x + y * y
        factor = self._factor(square)
        distorted_x = factor * x + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        distorted_y = factor * y + 2 * p2 * x * y + p1 * (square + 2 * y * y)
        return torch.stack([distorted_x, distorted_y], -1)

    def _jacobian(self, flat: Tensor) -> Tensor:
        """Differentiate `_distort_plane`; rows are outputs."""
        (x, y), (p1, p2) = flat.unbind(-1), self.tangential.unbind(-1)
        square = x * x + y * y
        above, below = _polynomial(self.radial, square), _polynomial(self.denominator, square)
        factor, derivative = above / below, 2 * self._factor_derivative(square, above, below)
        xx = factor + derivative * x * x + 2 * p1 * y + 6 * p2 * x
        xy = derivative * x * y + 2 * p1 * x + 2 * p2 * y
        yy = factor + derivative * y * y + 2 * p2 * x + 6 * p1 * y
        return torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)

    def _solve_radius(self, target: Tensor, reach: Tensor) -> Tensor:
        """Invert `_distort_radius` for radii or angles up to `reach`; nan where there is no solution."""
        beyond = target > self._distort_radius(reach)
        wanted = torch.where(beyond, 0, target)
        low, high = torch.zeros_like(wanted), reach.expand(wanted.shape)
        radius = torch.minimum(wanted, reach)
        for _ in range(RADIAL_STEPS):
            excess = self._distort_radius(radius) - wanted
            low, high = torch.where(excess <= 0, radius, low), torch.where(excess >= 0, radius, high)
            newton = radius - excess / self._radius_derivative(radius)
            step = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
            has_converged = bool(((step - radius).abs() <= STEP_TOLERANCE * (1 + radius)).all())
            radius = step
            if has_converged:
                break
        found = (self._distort_radius(radius) - target).abs() <= 1e-9 * (1 + target)
        return torch.where(found, radius, torch.nan)

    def _solve_plane(self, target: Tensor, reach: Tensor) -> Tensor:
        """Invert `_distort_plane` for radii up to `reach`; nan where there is no solution.

        Most points converge from the target itself; the rest restart from the solution of the radial part alone.
        """
        flat, found = self._newton(target, target, reach, FIRST_PLANE_STEPS)
        if not bool(found.all()):
            rest = ~found
            shape = rest.shape
            lens = self.replace(
                radial=self.radial.expand(*shape, 4)[rest],
                tangential=self.tangential.expand(*shape, 2)[rest],
                denominator=self.denominator.expand(*shape, 3)[rest],
            )
            flat[rest] = lens._solve_from_radius(target[rest], reach.expand(shape)[rest])
        return flat

    def _solve_from_radius(self, target: Tensor, reach: Tensor) -> Tensor:
        length = target.norm(dim=-1)
        radius = self._solve_radius(length, reach)
        start = torch.where(radius.isnan(), reach, radius) / torch.where(length > 0, length, 1)
        flat, found = self._newton(target, target * start[..., None], reach, PLANE_STEPS)
        return torch.where(found[..., None], flat, torch.nan)

    def _newton(self, target: Tensor, start: Tensor, reach: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Run Newton's method from `start`; return the result and whether it is a solution within `reach`."""
        flat = start
        for _ in range(steps):
            step = _solve_2x2(self._jacobian(flat), self._distort_plane(flat) - target)
            flat = flat - step
            has_converged = (step.abs() <= STEP_TOLERANCE * (1 + flat.abs())).all(-1)
            if bool(has_converged.all()):
                break
        error = (self._distort_plane(flat) - target).norm(dim=-1)
        found = (error <= 1e-9 * (1 + target.norm(dim=-1))) & (flat.norm(dim=-1) <= reach)
        return flat, found


def _filled(values: Sequence[float], length: int) -> Tensor:
    if len(values) > length:
        raise InputError(f"Lens: expected at most {length} coefficients, got {len(values)}")
    return torch.tensor([*map(float, values), *[0.0] * (length - len(values))])


def _polynomial(coefficients: Tensor, square: Tensor) -> Tensor:
    """Evaluate 1 + c₁ s + c₂ s² + …."""
    value = torch.zeros((), dtype=square.dtype, device=square.device)
    for c in reversed(_used(coefficients)):
        value = (value + c) * square
    return value + 1


def _polynomial_derivative(coefficients: Tensor, square: Tensor) -> Tensor:
    value = torch.zeros((), dtype=square.dtype, device=square.device)
    for power, c in reversed([*enumerate(_used(coefficients), start=1)]):
        value = value * square + power * c
    return value


def _used(coefficients: Tensor) -> list[Tensor]:
    """Drop trailing coefficients that are zero and need no gradient, where asking costs nothing."""
    columns = list(coefficients.unbind(-1))
    while (
        columns and can_read(coefficients) and not coefficients.requires_grad and not bool(columns[-1].any())
    ):
        columns.pop()
    return columns


def _solve_2x2(matrix: Tensor, right: Tensor) -> Tensor:
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    u, v = right.unbind(-1)
    determinant = a * d - b * c
    return torch.stack([d * u - b * v, a * v - c * u], -1) / determinant[..., None]


def _monotonic_limit(radial: np.ndarray, denominator: np.ndarray, max_radius: float) -> float:
    """Find the smallest positive r where r · above(r²) / below(r²) stops increasing, or where below is zero."""
    above, below = (np.polynomial.Polynomial([1.0, *c]) for c in (radial, denominator))
    square = np.polynomial.Polynomial([0.0, 1.0])
    rise = above * below + 2 * square * (above.deriv() * below - above * below.deriv())
    roots = np.concatenate([poly.trim().roots() for poly in (rise, below)])
    squares = roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0)]
    return min(max_radius, float(np.sqrt(squares.min()))) if len(squares) else max_radius
