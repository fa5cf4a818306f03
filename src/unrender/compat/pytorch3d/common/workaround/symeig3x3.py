"""Eigenvalues of symmetric 3 × 3 matrices."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown


def symeig3x3(inputs: Tensor, eigenvectors: bool = True) -> tuple[Tensor, Tensor | None]:
    """Return the eigenvalues [..., 3], ascending, and the eigenvectors as columns."""
    if inputs.shape[-2:] != (3, 3):
        raise ValueError("Only inputs of shape (..., 3, 3) are supported.")
    symmetric = (inputs + inputs.mT) / 2  # eigh reads, and has gradients for, one half only
    values, vectors = torch.linalg.eigh(symmetric)
    return values, vectors if eigenvectors else None


__getattr__ = refuse_unknown(__name__)
