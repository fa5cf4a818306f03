"""Reference implementation of the Chamfer distance."""

from torch import Tensor

from unrender.kernels.nearest import reference


def forward(x: Tensor, y: Tensor, x_ids: Tensor | None, y_ids: Tensor | None, norm: int) -> Tensor:
    """Return mean_i min_j Σ|x_i − y_j|^norm + mean_j min_i Σ|y_j − x_i|^norm, over all point clouds of a batch."""
    return _mean(x, y, x_ids, norm) + _mean(y, x, y_ids, norm)


def _mean(queries: Tensor, points: Tensor, ids: Tensor | None, norm: int) -> Tensor:
    if ids is None:
        ids = reference.forward(queries.detach(), points.detach(), 1, norm)[1]
    neighbors = points.gather(-2, ids.expand(*ids.shape[:-1], points.shape[-1]))
    offsets = queries.contiguous() - neighbors.contiguous()  # memory decides on the order of sums
    return (offsets.abs() if norm == 1 else offsets.square()).sum(-1).mean()
