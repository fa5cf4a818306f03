"""Lenses: how far a real one bends the picture away from that of a pinhole.

A point (X, Y, Z) in the camera frame is seen at x = X / Z, y = Y / Z, at r = √(x² + y²) from the axis or at the angle
θ from it. A lens moves it to the distorted (x_d, y_d); the pixel is focal · (x_d, y_d) + center.
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

LensModel = Literal["brown", "fisheye"]
NUM_RADIAL, NUM_DENOMINATOR = 4, 3
FARTHEST = {"brown": 1e3, "fisheye": float(np.pi)}
"""The largest r (89.94 degrees from the axis) and θ that are looked at."""
RADIAL_STEPS, PLANE_STEPS, QUICK_STEPS = 60, 12, 5
SETTLED = 1e-12
"""Relative size of the last step of a search; as Newton's method doubles the digits, what remains is rounding."""


class Lens(TensorStruct):
    """Lens distortion; a batch of lenses, or one for all cameras of a batch.

    brown (OpenCV's, without and with rational terms)::

        f = (1 + k₁ r² + k₂ r⁴ + k₃ r⁶ + k₄ r⁸) / (1 + d₁ r² + d₂ r⁴ + d₃ r⁶)
        x_d = f x + 2 p₁ x y + p₂ (r² + 2 x²)
        y_d = f y + 2 p₂ x y + p₁ (r² + 2 y²)

    fisheye (OpenCV's): θ_d = θ (1 + k₁ θ² + k₂ θ⁴ + k₃ θ⁶ + k₄ θ⁸), at θ_d from the centre in the same direction.

    Far from the axis such polynomials turn back, and two directions share a place in the picture. Only what lies
    within `reach`, before that happens, is mapped; anything beyond becomes nan, there and back.
    """

    radial: Float[Tensor, "*batch 4"]
    """k₁ … k₄."""
    tangential: Float[Tensor, "*batch 2"]
    """p₁, p₂; zero for a fisheye."""
    denominator: Float[Tensor, "*batch 3"]
    """d₁ … d₃, which OpenCV calls k₄ … k₆; zero for a fisheye."""
    model: LensModel = "brown"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in FARTHEST:
            raise InputError(f"Lens: `model` should be 'brown' or 'fisheye', got {self.model!r}")
        fields = (self.radial, self.tangential, self.denominator)
        if not all(bool(field.isfinite().all()) for field in fields):
            raise InputError("Lens: its coefficients should be finite")
        if self.model == "fisheye" and any(bool(field.any()) for field in fields[1:]):
            raise InputError("Lens: a fisheye has `radial` coefficients only")

    @classmethod
    def brown(
        cls,
        radial: Sequence[float] = (),
        tangential: Sequence[float] = (0.0, 0.0),
        denominator: Sequence[float] = (),
    ) -> Self:
        """Take up to four coefficients k, two p, and up to three of the denominator; the rest are zero."""
        return cls(_filled(radial, NUM_RADIAL), _filled(tangential, 2), _filled(denominator, NUM_DENOMINATOR))

    @classmethod
    def fisheye(cls, radial: Sequence[float] = ()) -> Self:
        """Take up to four coefficients k; without any, θ_d = θ."""
        return cls(_filled(radial, NUM_RADIAL), torch.zeros(2), torch.zeros(NUM_DENOMINATOR), "fisheye")

    def __getitem__(self, index: Any) -> Self:
        lens = super().__getitem__(index)
        lens.__dict__["reach"] = self.reach[index]  # found once for all
        return lens

    @functools.cached_property
    def reach(self) -> Float[Tensor, "*batch"]:
        """The r (brown) or θ in radians (fisheye) up to which directions and places in the picture are one to one.

        Beyond it the distorted radius falls, or the denominator is zero; with tangential coefficients, which move
        this border a little, `undistort` also checks its result.
        """
        rows = torch.cat([self.radial, self.denominator], -1).detach().cpu().double().reshape(-1, 7).numpy()
        found = [_first_turn(row[:NUM_RADIAL], row[NUM_RADIAL:], FARTHEST[self.model]) for row in rows]
        return torch.tensor(found).to(self.radial).reshape(self.radial.shape[:-1])

    def distort(self, points_camera: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 2"]:
        """Map points in the camera frame to the distorted x and y; nan beyond `reach`.

        The points' axes broadcast with those of the lens.
        Differentiable in: points_camera and the lens.
        """
        x, y, z = points_camera.unbind(-1)
        if self.model == "fisheye":
            square = x * x + y * y
            off_axis = square > 0
            from_axis = torch.where(off_axis, square, 1).sqrt()  # 1 keeps gradients finite on the axis
            angle = torch.atan2(torch.where(off_axis, from_axis, 0), z)
            scale = torch.where(off_axis, self._stretched(angle) / from_axis, 1 / z)
            inside = angle <= self.reach
            xy = torch.stack([scale * x, scale * y], -1)
        else:
            flat = points_camera[..., :2] / z[..., None]
            inside = flat.detach().norm(dim=-1) <= self.reach
            xy = self._bent(flat)
        return torch.where(inside[..., None], xy, torch.nan)

    def undistort(self, distorted: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 3"]:
        """Return the unit directions in the camera frame that are seen at distorted x and y; nan where none is.

        Solved by Newton's method in double precision, safeguarded by bisection.
        Differentiable in: distorted and the lens.
        """
        wide = self.detach().to(torch.float64)
        with torch.no_grad():
            target = distorted.detach().double()
            reach = self.reach.double()
        if self.model == "fisheye":
            with torch.no_grad():
                start = wide._solve_radius(target.norm(dim=-1), reach).to(distorted)
            radius = distorted.norm(dim=-1)
            slope = self.detach()._slope(start)
            angle = start - (self._stretched(start) - radius) / slope  # carries the gradients
            off_axis = radius > 0
            scale = torch.where(off_axis, angle.sin() / torch.where(off_axis, radius, 1), 1)
            return torch.cat([distorted * scale[..., None], angle.cos()[..., None]], -1)
        with torch.no_grad():
            flat64 = wide._solve_plane(target, reach)
            jacobian = wide._jacobian(flat64).to(distorted)
        flat = flat64.to(distorted)
        flat = flat - _solve_2x2(jacobian, self._bent(flat) - distorted)
        ray = torch.cat([flat, torch.ones_like(flat[..., :1])], -1)
        directions: Tensor = ray / ray.norm(dim=-1, keepdim=True)
        return directions

    def approach(
        self, distorted: Float[Tensor, "*points 2"], flat: Float[Tensor, "*points 2"]
    ) -> Float[Tensor, "*points 2"]:
        """Take one step of Newton's method from undistorted x and y to those that are bent to `distorted` (brown)."""
        return flat - _solve_2x2(self._jacobian(flat), self._bent(flat) - distorted)

    def _factor(self, square: Tensor) -> Tensor:
        """Evaluate the factor f by which a radius or angle of that square is stretched."""
        factor: Tensor = _polynomial(self.radial, square) / _polynomial(self.denominator, square)
        return factor

    def _stretched(self, radius: Tensor) -> Tensor:
        return radius * self._factor(radius * radius)

    def _slope(self, radius: Tensor) -> Tensor:
        """Differentiate the stretched radius."""
        square = radius * radius
        above, below = _polynomial(self.radial, square), _polynomial(self.denominator, square)
        slope: Tensor = above / below + 2 * square * self._factor_slope(square, above, below)
        return slope

    def _factor_slope(self, square: Tensor, above: Tensor, below: Tensor) -> Tensor:
        """Differentiate the factor by r²."""
        up, down = (_polynomial_slope(k, square) for k in (self.radial, self.denominator))
        slope: Tensor = (up * below - above * down) / (below * below)
        return slope

    def _bent(self, flat: Tensor) -> Tensor:
        (x, y), (p1, p2) = flat.unbind(-1), self.tangential.unbind(-1)
        square = x * x + y * y
        factor = self._factor(square)
        bent_x = factor * x + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        bent_y = factor * y + 2 * p2 * x * y + p1 * (square + 2 * y * y)
        return torch.stack([bent_x, bent_y], -1)

    def _jacobian(self, flat: Tensor) -> Tensor:
        """Differentiate `_bent`; rows are outputs."""
        (x, y), (p1, p2) = flat.unbind(-1), self.tangential.unbind(-1)
        square = x * x + y * y
        above, below = _polynomial(self.radial, square), _polynomial(self.denominator, square)
        factor, slope = above / below, 2 * self._factor_slope(square, above, below)
        xx = factor + slope * x * x + 2 * p1 * y + 6 * p2 * x
        xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
        yy = factor + slope * y * y + 2 * p2 * x + 6 * p1 * y
        return torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)

    def _solve_radius(self, target: Tensor, reach: Tensor) -> Tensor:
        """Find the radius or angle within `reach` that is stretched to `target`; nan if there is none."""
        beyond = target > self._stretched(reach)
        wanted = torch.where(beyond, 0, target)
        low, high = torch.zeros_like(wanted), reach.expand(wanted.shape)
        radius = torch.minimum(wanted, reach)
        for _ in range(RADIAL_STEPS):
            excess = self._stretched(radius) - wanted
            low, high = torch.where(excess <= 0, radius, low), torch.where(excess >= 0, radius, high)
            newton = radius - excess / self._slope(radius)
            step = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
            settled = bool(((step - radius).abs() <= SETTLED * (1 + radius)).all())
            radius = step
            if settled:
                break
        found = (self._stretched(radius) - target).abs() <= 1e-9 * (1 + target)
        return torch.where(found, radius, torch.nan)

    def _solve_plane(self, target: Tensor, reach: Tensor) -> Tensor:
        """Find the x and y within `reach` that are bent to `target`; nan if there are none.

        Nearly all are found from the target itself; the rest begins where the radial part alone leads.
        """
        flat, found = self._newton(target, target, reach, QUICK_STEPS)
        if not bool(found.all()):
            rest = ~found
            shape = rest.shape
            lens = self.replace(
                radial=self.radial.expand(*shape, 4)[rest],
                tangential=self.tangential.expand(*shape, 2)[rest],
                denominator=self.denominator.expand(*shape, 3)[rest],
            )
            flat[rest] = lens._solve_slowly(target[rest], reach.expand(shape)[rest])
        return flat

    def _solve_slowly(self, target: Tensor, reach: Tensor) -> Tensor:
        length = target.norm(dim=-1)
        radius = self._solve_radius(length, reach)
        start = torch.where(radius.isnan(), reach, radius) / torch.where(length > 0, length, 1)
        flat, found = self._newton(target, target * start[..., None], reach, PLANE_STEPS)
        return torch.where(found[..., None], flat, torch.nan)

    def _newton(self, target: Tensor, start: Tensor, reach: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Descend from `start`; return where that led, and whether it is a solution within `reach`."""
        flat = start
        for _ in range(steps):
            step = _solve_2x2(self._jacobian(flat), self._bent(flat) - target)
            flat = flat - step
            settled = (step.abs() <= SETTLED * (1 + flat.abs())).all(-1)
            if bool(settled.all()):
                break
        error = (self._bent(flat) - target).norm(dim=-1)
        found = (error <= 1e-9 * (1 + target.norm(dim=-1))) & (flat.norm(dim=-1) <= reach)
        return flat, found


def _filled(values: Sequence[float], length: int) -> Tensor:
    if len(values) > length:
        raise InputError(f"Lens: there are at most {length} such coefficients, got {len(values)}")
    return torch.tensor([*map(float, values), *[0.0] * (length - len(values))])


def _polynomial(coefficients: Tensor, square: Tensor) -> Tensor:
    """Evaluate 1 + c₁ s + c₂ s² + …."""
    value = torch.zeros((), dtype=square.dtype, device=square.device)
    for c in reversed(_used(coefficients)):
        value = (value + c) * square
    return value + 1


def _polynomial_slope(coefficients: Tensor, square: Tensor) -> Tensor:
    value = torch.zeros((), dtype=square.dtype, device=square.device)
    for power, c in reversed([*enumerate(_used(coefficients), start=1)]):
        value = value * square + power * c
    return value


def _used(coefficients: Tensor) -> list[Tensor]:
    """Leave out the last coefficients if they are zero and need no gradient."""
    columns = list(coefficients.unbind(-1))
    while columns and not coefficients.requires_grad and not bool(columns[-1].any()):
        columns.pop()
    return columns


def _solve_2x2(matrix: Tensor, right: Tensor) -> Tensor:
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    u, v = right.unbind(-1)
    determinant = a * d - b * c
    return torch.stack([d * u - b * v, a * v - c * u], -1) / determinant[..., None]


def _first_turn(radial: np.ndarray, denominator: np.ndarray, farthest: float) -> float:
    """Find the smallest positive r where r · above(r²) / below(r²) stops rising, or where below is zero."""
    above, below = (np.polynomial.Polynomial([1.0, *c]) for c in (radial, denominator))
    square = np.polynomial.Polynomial([0.0, 1.0])
    rise = above * below + 2 * square * (above.deriv() * below - above * below.deriv())
    roots = np.concatenate([poly.trim().roots() for poly in (rise, below)])
    turns = roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0)]
    return min(farthest, float(np.sqrt(turns.min()))) if len(turns) else farthest
