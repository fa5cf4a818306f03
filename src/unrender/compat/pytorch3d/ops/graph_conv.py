"""Graph convolution over the edges of meshes."""

from typing import Any

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown


class GraphConv(nn.Module):
    """Linear layer: each vertex gets W₀ of itself plus the sum of W₁ of its neighbors."""

    def __init__(self, input_dim: int, output_dim: int, init: str = "normal", directed: bool = False) -> None:
        super().__init__()
        self.input_dim, self.output_dim, self.directed = input_dim, output_dim, directed
        self.w0, self.w1 = nn.Linear(input_dim, output_dim), nn.Linear(input_dim, output_dim)
        if init not in ("normal", "zero"):
            raise ValueError(f"Invalid GraphConv initialization {init!r}")
        for layer in (self.w0, self.w1):
            if init == "normal":
                nn.init.normal_(layer.weight, mean=0, std=0.01)
                layer.bias.data.zero_()
            else:
                layer.weight.data.zero_()

    def forward(self, verts: Tensor, edges: Tensor) -> Tensor:
        """Return features [V, output_dim] of vertices with features [V, input_dim]."""
        if len(verts) == 0:
            return verts.new_zeros((0, self.output_dim)) * verts.sum()
        total: Tensor = self.w0(verts) + gather_scatter(self.w1(verts), edges, self.directed)
        return total

    def __repr__(self) -> str:
        return f"GraphConv({self.input_dim} -> {self.output_dim}, directed={self.directed})"


def gather_scatter(input: Tensor, edges: Tensor, directed: bool = False) -> Tensor:
    """Sum the features of the neighbors of each vertex; with `directed`, from ends to starts only."""
    start, end = edges.unbind(1)
    total = torch.zeros_like(input).index_add(0, start, input[end])
    return total if directed else total.index_add(0, end, input[start])


def gather_scatter_python(input: Any, edges: Any, directed: bool = False) -> Tensor:
    """Do the same as `gather_scatter`."""
    if not (input.dim() == 2 and edges.dim() == 2 and edges.shape[1] == 2):
        raise ValueError("takes features [V, D] and edges [E, 2]")
    return gather_scatter(input, edges, directed)


__getattr__ = refuse_unknown(__name__)
