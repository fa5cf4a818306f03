"""Normal equations of pose updates: a rotation about the object's center and a translation, both in camera axes."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from unrender.tasks.pose.color_regions import Array


class NormalEquations(NamedTuple):
    """The Hessian Σ w J Jᵀ and the right side Σ w J e."""

    hessian: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def of(cls, jacobian: Array, residual: Array, weight: Array) -> Self:
        """Sum over measurements with Jacobians [measurements, 6]."""
        weighted = (jacobian * weight[:, None]).astype(np.float64)
        return cls(weighted.T @ jacobian, weighted.T @ residual)

    def plus(self, other: "NormalEquations") -> "NormalEquations":
        """Add the measurements of another term."""
        return NormalEquations(self.hessian + other.hessian, self.right + other.right)


def zero_equations() -> NormalEquations:
    """Return equations without measurements."""
    return NormalEquations(np.zeros((6, 6)), np.zeros(6))


def flow_jacobians(offsets: Array, points: Array, focal: Array) -> tuple[Array, Array]:
    """Return the derivatives of x and y of projected points by the twist: [points, 6] each.

    `points` are in the camera frame, `offsets` relative to the object's center, in camera axes.
    """
    x, y, z = points.T
    rx, ry, rz = offsets.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    # the motion of a point is w × r + v
    dx = np.stack([zero, rz, -ry, one, zero, zero], 1)
    dy = np.stack([-rz, zero, rx, zero, one, zero], 1)
    dz = np.stack([ry, -rx, zero, zero, zero, one], 1)
    by_x = (focal[0] / z)[:, None] * (dx - (x / z)[:, None] * dz)
    by_y = (focal[1] / z)[:, None] * (dy - (y / z)[:, None] * dz)
    return by_x.astype(np.float32), by_y.astype(np.float32)


def apply_twist(pose: NDArray[np.float64], twist: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate a pose about its own origin, and translate it."""
    moved = pose.copy()
    moved[:3, :3] = rotation_from_vector(twist[:3]) @ pose[:3, :3]
    moved[:3, 3] += twist[3:]
    return moved


def rotation_from_vector(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation matrix of a rotation vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return rotation


def twist_between(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the twist that moves one pose to another."""
    relative = after[:3, :3] @ before[:3, :3].T
    axis = np.array(
        [relative[2, 1] - relative[1, 2], relative[0, 2] - relative[2, 0], relative[1, 0] - relative[0, 1]]
    )
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(relative) - 1) / 2
    angle = np.arctan2(sine, cosine)
    vector = axis / max(2 * float(sine), 1e-12) * angle
    return np.concatenate([vector, after[:3, 3] - before[:3, 3]])
