"""Positional encodings: embeddings of coordinates with which an MLP can represent high frequencies."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from unrender._checked import checked
from unrender.errors import InputError


@checked
def harmonic_embedding(
    values: Float[Tensor, "*batch dim"],
    num_frequencies: int,
    *,
    lowest: float = 1.0,
    append_input: bool = False,
) -> Float[Tensor, "*batch functions"]:
    """Return sines and cosines of coordinates, at frequencies that double.

    sin(lowest · 2ᵏ · x) for k = 0 … num_frequencies − 1 of the first coordinate, then of the next; after them all
    cosines in the same order; last, with `append_input`, the values themselves. `lowest` is in radians per unit: π in
    the paper, for coordinates in [−1, 1]; 1 in its authors' code and, where no ω₀ is given, in PyTorch3D.

    Differentiable in: values. Source: NeRF (Mildenhall et al., 2020), eq. 4.
    """
    if num_frequencies < 0:
        raise InputError(f"harmonic_embedding: `num_frequencies` should be at least 0, got {num_frequencies}")
    doubling = 2.0 ** torch.arange(num_frequencies, dtype=values.dtype, device=values.device)
    return waves(values, lowest * doubling, append_input)


def waves(values: Tensor, frequencies: Tensor, append_input: bool) -> Tensor:
    """Return sin(f · x) of all frequencies and coordinates, then all cosines and, with `append_input`, the values.

    Without gradients, results are written to the output in place: concatenation takes longer than the sines.
    """
    angles = (values[..., None] * frequencies).flatten(-2)
    last = [values] if append_input else []
    if angles.requires_grad or _is_transformed(angles):
        return torch.cat([angles.sin(), angles.cos(), *last], -1)
    count = angles.shape[-1]
    found = angles.new_empty(*angles.shape[:-1], 2 * count + len(last) * values.shape[-1])
    torch.sin(angles, out=found[..., :count])
    torch.cos(angles, out=found[..., count : 2 * count])
    if append_input:
        found[..., 2 * count :] = values
    return found


def _is_transformed(tensor: Tensor) -> bool:
    """Return whether torch.func or forward-mode differentiation tracks a tensor: neither allows `out=`."""
    tracked = torch._C._are_functorch_transforms_active()
    return tracked or forward_ad.unpack_dual(tensor).tangent is not None
