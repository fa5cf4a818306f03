"""Reference implementation of the uniform Laplacian loss."""

import torch
from torch import Tensor

from unrender.kernels._columns import as_columns, edge_vectors, mean
from unrender.kernels._incidence import incidence
from unrender.kernels.normalize import norm
from unrender.kernels.scatter_sum import scatter_sum


def forward(vertices: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of |L_i| over vertices and batch, L_i = mean_j v_j − v_i, and L [*batch, 3, vertices].

    The neighbors j of a vertex are those it has edges [edges, 2] with; L_i is zero without any.
    """
    columns, size = as_columns(vertices), vertices.shape[-2]
    start, end = edges.unbind(1)
    vectors, count = edge_vectors(columns, edges), incidence(edges, size).starts.diff().to(columns)
    sums = scatter_sum(vectors, start, size) - scatter_sum(vectors, end, size)
    offsets = torch.where(count > 0, 1 / count, 0) * sums
    return mean(norm(offsets)), offsets
