"""Reference implementation of the edge loss."""

from torch import Tensor

from unrender.kernels._columns import as_columns, dot, edge_vectors, mean
from unrender.kernels.normalize import norm


def forward(vertices: Tensor, edges: Tensor, target_length: float) -> Tensor:
    """Return the mean of (|v_j − v_i| − `target_length`)² over edges [edges, 2] and batch.

    Vertices v are [*batch, vertices, 3]. The gradient is zero at an edge of length zero.
    """
    vectors = edge_vectors(as_columns(vertices), edges)
    return mean(dot(vectors, vectors) if target_length == 0 else (norm(vectors) - target_length).square())
