"""A linear layer whose input is repeated in part."""

import math

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown


class LinearWithRepeat(nn.Module):
    """Do as `nn.Linear` of (…, n, a) concatenated with (…, b) repeated n times, without the repetition."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(in_features)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: tuple[Tensor, Tensor]) -> Tensor:
        """Return [..., n, out_features] of [..., n, a] and [..., b]."""
        own, shared = input
        split = own.shape[-1]
        result: Tensor = nn.functional.linear(own, self.weight[:, :split], self.bias)
        return result + nn.functional.linear(shared, self.weight[:, split:])[..., None, :]


__getattr__ = refuse_unknown(__name__)
