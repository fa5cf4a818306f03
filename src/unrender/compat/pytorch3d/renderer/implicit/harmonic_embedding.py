"""Harmonic embedding of points."""

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.fields.encoding import waves


class HarmonicEmbedding(nn.Module):
    """Embed x as sin(2ⁿ ω₀ x), then cos(2ⁿ ω₀ x), for n from 0, and, if requested, x itself.

    Without `logspace` the frequencies are spaced linearly over the same range.
    """

    _frequencies: Tensor

    def __init__(
        self,
        n_harmonic_functions: int = 6,
        omega_0: float = 1.0,
        logspace: bool = True,
        append_input: bool = True,
    ) -> None:
        super().__init__()
        if logspace:
            frequencies = 2.0 ** torch.arange(n_harmonic_functions, dtype=torch.float32)
        else:
            frequencies = torch.linspace(1.0, 2.0 ** (n_harmonic_functions - 1), n_harmonic_functions)
        self.register_buffer("_frequencies", frequencies * omega_0, persistent=False)
        self.append_input = append_input

    def forward(self, x: Tensor, diag_cov: Tensor | None = None, **kwargs: object) -> Tensor:
        """Return [..., D · 2n (+ D)]; with variances `diag_cov` the mean over that normal distribution (mip-NeRF)."""
        found = waves(x, self._frequencies, self.append_input)
        if diag_cov is None:
            return found
        damping = (-0.5 * diag_cov[..., None] * self._frequencies**2).exp().flatten(-2)
        rest = [torch.ones_like(x)] if self.append_input else []
        return found * torch.cat([damping, damping, *rest], -1)

    def get_output_dim(self, input_dims: int = 3) -> int:
        """Return the number of output channels for a number of input channels."""
        return self.get_output_dim_static(input_dims, len(self._frequencies), self.append_input)

    @staticmethod
    def get_output_dim_static(input_dims: int, n_harmonic_functions: int, append_input: bool) -> int:
        """Return the number of output channels for a number of input channels."""
        return input_dims * (2 * n_harmonic_functions + int(append_input))


__getattr__ = refuse_unknown(__name__)
