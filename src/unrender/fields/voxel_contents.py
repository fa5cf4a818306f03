"""Validation of saved voxel fields."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.harmonics import MAX_DEGREE


def check_contents(tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError for contents of damaged files."""
    axes = {"log_density": 1, "harmonics": 2, "background": 1, "voxels": 2}
    for name, count in axes.items():
        tensor = tensors[name]
        if tensor.dim() != count or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise InputError(f"SparseVoxels: {name} is {tensor.dtype} of shape {list(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"SparseVoxels: {name} has values that are not finite")
    widths = [3 * (degree + 1) ** 2 for degree in range(MAX_DEGREE + 1)]
    if (
        tensors["harmonics"].shape[1] not in widths
        or any(tensors[name].shape[-1] != 3 for name in ("background", "voxels"))
        or bool((tensors["voxels"] < 0).any())
    ):
        raise InputError("SparseVoxels: harmonics, background or voxels do not have the right shape")
