"""Similarity transforms that align point clouds: s X R + T, for rows X."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.knn import knn_points
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError

Clouds = Tensor | Pointclouds
SMALLEST_ROTATION = 1e-12
"""Weight of the identity in the covariance: above the rounding of float64, below that of float32."""


class SimilarityTransform(NamedTuple):
    """Rotations [N, D, D], translations [N, D] and scales [N]."""

    R: Tensor
    T: Tensor
    s: Tensor


class ICPSolution(NamedTuple):
    """Result of the iterative closest point algorithm."""

    converged: bool
    rmse: Tensor | None
    Xt: Clouds
    RTs: SimilarityTransform
    t_history: list[SimilarityTransform]


def corresponding_points_alignment(
    X: Clouds,
    Y: Clouds,
    weights: Tensor | list[Tensor] | None = None,
    estimate_scale: bool = False,
    allow_reflection: bool = False,
    eps: float = 1e-9,
) -> SimilarityTransform:
    """Compute the similarity that aligns corresponding points in the least-squares sense (Umeyama 1991)."""
    (points, count), (others, count_y) = _padded(X), _padded(Y)
    if points.shape != others.shape or not torch.equal(count, count_y):
        raise InputError(
            "corresponding_points_alignment: both sides should have the same number of points, got "
            f"{list(points.shape)} and {list(others.shape)}"
        )
    dtype = points.dtype
    points, others = points.double(), others.double()  # nearly collinear points amplify rounding
    there = (torch.arange(points.shape[1], device=points.device) < count[:, None]).to(points)
    if weights is not None:
        there = there * (
            torch.nn.utils.rnn.pad_sequence(weights, True) if isinstance(weights, list) else weights
        )
    normalized_weights = (there / there.sum(1, keepdim=True).clamp(min=eps))[..., None]
    centroid, other_centroid = (
        (normalized_weights * points).sum(1, keepdim=True),
        (normalized_weights * others).sum(1, keepdim=True),
    )
    centered = points - centroid
    covariance = (normalized_weights * centered).mT @ (others - other_centroid)
    spread = (normalized_weights * centered.square()).sum((1, 2))
    # of the rotations that align collinear points equally well, the smallest
    nudge = SMALLEST_ROTATION * spread[:, None, None] * torch.eye(points.shape[2]).to(points)
    u, sizes, v = torch.linalg.svd(covariance + nudge)
    signs = torch.ones_like(sizes)
    if not allow_reflection:
        signs = torch.cat([signs[:, :-1], torch.det(u @ v)[:, None].sign()], 1)
    rotation = (u * signs[:, None]) @ v
    scale = (sizes * signs).sum(1) / spread.clamp(min=eps) if estimate_scale else torch.ones_like(spread)
    translation = other_centroid[:, 0] - scale[:, None] * (centroid @ rotation)[:, 0]
    return SimilarityTransform(rotation.to(dtype), translation.to(dtype), scale.to(dtype))


def iterative_closest_point(
    X: Clouds,
    Y: Clouds,
    init_transform: SimilarityTransform | None = None,
    max_iterations: int = 100,
    relative_rmse_thr: float = 1e-6,
    estimate_scale: bool = False,
    allow_reflection: bool = False,
    verbose: bool = False,
) -> ICPSolution:
    """Align X with Y iteratively: match nearest points, then align the pairs (Besl and McKay 1992)."""
    (start, count), (target, target_count) = _padded(X), _padded(Y)
    there = (torch.arange(start.shape[1], device=start.device) < count[:, None]).to(start)
    if init_transform is None:
        batch, size = len(start), start.shape[2]
        init_transform = SimilarityTransform(
            torch.eye(size).to(start).expand(batch, size, size),
            start.new_zeros(batch, size),
            start.new_ones(batch),
        )
    found, history, before, rmse, converged = init_transform, [], None, None, False
    moved = _apply(found, start)
    for iteration in range(max_iterations):
        pairs = knn_points(moved, target, count, target_count, return_nn=True).knn
        assert pairs is not None
        found = corresponding_points_alignment(start, pairs[:, :, 0], there, estimate_scale, allow_reflection)
        moved = _apply(found, start)
        history.append(found)
        squared = ((moved - pairs[:, :, 0]).square().sum(-1) * there).sum(1) / count.to(start)
        rmse = squared.sqrt()
        relative = torch.ones_like(rmse) if before is None else (before - rmse) / before.clamp(min=1e-12)
        if verbose:
            print(f"ICP iteration {iteration}: mean rmse {float(rmse.mean()):.3e}")
        if bool((relative <= relative_rmse_thr).all()):
            converged = True
            break
        before = rmse
    result = moved if isinstance(X, Tensor) else X.update_padded(moved)
    return ICPSolution(converged, rmse, result, found, history)


def _padded(cloud: Clouds) -> tuple[Tensor, Tensor]:
    if isinstance(cloud, Pointclouds):
        return cloud.points_padded(), cloud.num_points_per_cloud()
    return cloud, torch.full((len(cloud),), cloud.shape[1], device=cloud.device)


def _apply(transform: SimilarityTransform, points: Tensor) -> Tensor:
    return transform.s[:, None, None] * (points @ transform.R) + transform.T[:, None]


__getattr__ = refuse_unknown(__name__)
