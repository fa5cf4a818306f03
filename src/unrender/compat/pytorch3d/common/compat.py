"""Functions of torch that had other signatures once."""

from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown


def solve(A: Tensor, B: Tensor) -> Tensor:
    """Solve A X = B."""
    solution: Tensor = torch.linalg.solve(A, B)
    return solution


def lstsq(A: Tensor, B: Tensor) -> Tensor:
    """Return the least-squares solution of A X = B."""
    solution: Tensor = torch.linalg.lstsq(A, B).solution
    return solution


def qr(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return the QR decomposition."""
    q, r = torch.linalg.qr(A)
    return q, r


def eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of symmetric matrices."""
    values, vectors = torch.linalg.eigh(A)
    return values, vectors


def meshgrid_ij(*A: Any) -> Any:
    """Return `torch.meshgrid` with indexing "ij"."""
    return torch.meshgrid(*A, indexing="ij")


def prod(iterable: Any, *, start: Any = 1) -> Any:
    """Multiply all items."""
    for item in iterable:
        start = start * item
    return start


__getattr__ = refuse_unknown(__name__)
