"""Poses of calibrated cameras from points and their images."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.rotations import so3_exp_map

MIN_POINTS = 4
REFINEMENTS = 20
DAMPING = 1e-6


@checked
def perspective_n_points(
    points: Float[Tensor, "*batch points 3"],
    image_points: Float[Tensor, "*batch points 2"],
    weights: Float[Tensor, "*batch points"] | None = None,
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Estimate rotation R and translation t of a camera, with x_camera = R x + t, that projects points onto images.

    Image points are (x, y) / z in the camera frame: for pixels p, (p − center) / focal. Takes at least 4 points, best 6
    or more. A closed-form solution from control points (Lepetit et al., EPnP, 2009) is refined by Gauss–Newton on the
    weighted reprojection error. Use it to register a photo with known correspondences; `find_pose` needs none.

    Example: `R, t = perspective_n_points(points, (pixels - camera.center) / camera.focal)`.
    Differentiable in: nothing.
    """
    if points.shape[-2] < MIN_POINTS:
        raise InputError(
            f"perspective_n_points: at least {MIN_POINTS} points are needed, got {points.shape[-2]}"
        )
    flat = points.detach().reshape(-1, *points.shape[-2:]).double()
    images = image_points.detach().reshape(-1, *image_points.shape[-2:]).double()
    shares = (
        torch.ones_like(flat[..., 0])
        if weights is None
        else weights.detach().reshape(flat.shape[:2]).double()
    )
    rotation, translation = _closed_form(flat, images, shares)
    for _ in range(REFINEMENTS):
        rotation, translation = _refine(rotation, translation, flat, images, shares)
    batch = points.shape[:-2]
    return rotation.to(points).view(*batch, 3, 3), translation.to(points).view(*batch, 3)


def _closed_form(points: Tensor, images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pose of smallest reprojection error among those from one to three null vectors."""
    controls = _control_points(points, weights)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    basis = torch.cat([controls, torch.ones_like(controls[..., :1])], -1)
    barycentric = homogeneous @ torch.linalg.pinv(basis)
    zero, (u, v) = torch.zeros_like(barycentric), (image[..., None] for image in images.unbind(-1))
    rows = [(barycentric, zero, -barycentric * u), (zero, barycentric, -barycentric * v)]
    root = weights.sqrt()[..., None]
    matrix = torch.cat([torch.stack(row, -1).flatten(-2) * root for row in rows], 1)
    vectors = torch.linalg.eigh(matrix.mT @ matrix).eigenvectors[..., :4].mT.unflatten(-1, (4, 3))
    candidates = [
        _pose(barycentric @ _combined(vectors[:, :n], controls), points, weights) for n in (1, 2, 3)
    ]
    errors = torch.stack([_error(*pose, points, images, weights) for pose in candidates])
    best = errors.nan_to_num(torch.inf).argmin(0)
    each = torch.arange(len(points), device=points.device)
    rotation, translation = (torch.stack(parts)[best, each] for parts in zip(*candidates, strict=True))
    return rotation, translation


def _control_points(points: Tensor, weights: Tensor) -> Tensor:
    """Return the centroid, and points one standard deviation from it along the principal axes: [N, 4, 3]."""
    shares = (weights / weights.sum(1, keepdim=True).clamp(min=1e-12))[..., None]
    centroid = (points * shares).sum(1, keepdim=True)
    centered = (points - centroid) * shares.sqrt()
    variances, axes = torch.linalg.eigh(centered.mT @ centered)
    lengths = variances.clamp(min=1e-8 * float(variances.amax().clamp(min=1e-12))).sqrt()
    return torch.cat([centroid, centroid + axes.mT * lengths[..., None]], 1)


def _combined(vectors: Tensor, controls: Tensor) -> Tensor:
    """Combine null vectors [N, n, 4, 3] such that the distances between control points are right."""
    i, j = torch.triu_indices(4, 4, 1, device=controls.device)
    wanted = (controls[:, i] - controls[:, j]).square().sum(-1)
    ways = vectors[:, :, i] - vectors[:, :, j]
    count = vectors.shape[1]
    a, b = torch.triu_indices(count, count, device=controls.device)
    products = (ways[:, a] * ways[:, b]).sum(-1) * torch.where(a == b, 1, 2)[:, None]
    solved = torch.linalg.lstsq(products.mT, wanted[..., None]).solution[..., 0]
    squares = solved[:, a == 0]  # β_0², β_0 β_1, …
    first = squares[:, :1].abs().clamp(min=1e-24).sqrt()
    betas = torch.cat([first, squares[:, 1:] / first * squares[:, :1].sign()], 1)
    return (betas[..., None, None] * vectors).sum(1)


def _pose(in_camera: Tensor, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Align points with their positions in the camera frame, which are in front of it."""
    depth = (in_camera[..., 2] * weights).sum(1)
    in_camera = in_camera * torch.where(depth < 0, -1, 1)[:, None, None]
    shares = (weights / weights.sum(1, keepdim=True).clamp(min=1e-12))[..., None]
    centers = [(t * shares).sum(1, keepdim=True) for t in (points, in_camera)]
    u, _, vh = torch.linalg.svd(((in_camera - centers[1]) * shares).mT @ (points - centers[0]))
    signs = torch.ones_like(u[..., 0])
    signs[:, 2] = torch.det(u @ vh).sign()
    rotation = (u * signs[:, None]) @ vh
    scale = ((in_camera - centers[1]).square() * shares).sum((1, 2)).sqrt()
    scale = scale / ((points - centers[0]).square() * shares).sum((1, 2)).clamp(min=1e-24).sqrt()
    moved = centers[1] / scale.clamp(min=1e-12)[:, None, None]
    return rotation, (moved - centers[0] @ rotation.mT)[:, 0]


def _error(rotation: Tensor, translation: Tensor, points: Tensor, images: Tensor, weights: Tensor) -> Tensor:
    in_camera = points @ rotation.mT + translation[:, None]
    found = in_camera[..., :2] / in_camera[..., 2:]
    return ((found - images).square().sum(-1) * weights).sum(1)


def _refine(
    rotation: Tensor, translation: Tensor, points: Tensor, images: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one damped Gauss–Newton step on rotation and translation, unless the error grows."""
    turned = points @ rotation.mT
    x, y, z = (turned + translation[:, None]).unbind(-1)
    inverse, zero = 1 / torch.where(z.abs() < 1e-9, 1e-9, z), torch.zeros_like(x)
    u, v = x * inverse, y * inverse
    by_position = torch.stack(
        [torch.stack([inverse, zero, -u * inverse], -1), torch.stack([zero, inverse, -v * inverse], -1)], -2
    )
    a, b, c = turned.unbind(-1)
    cross = torch.stack([zero, c, -b, -c, zero, a, b, -a, zero], -1).unflatten(-1, (3, 3))
    jacobian = torch.cat([by_position @ cross, by_position], -1).flatten(1, 2)
    residual = (torch.stack([u, v], -1) - images).flatten(1)
    weighted = jacobian * weights.repeat_interleave(2, 1)[..., None]
    normal = weighted.mT @ jacobian
    damping = DAMPING * torch.diag_embed(normal.diagonal(dim1=-2, dim2=-1) + 1e-12)
    step = torch.linalg.solve(normal + damping, -(weighted.mT @ residual[..., None]))[..., 0]
    moved = so3_exp_map(step[:, :3]) @ rotation, translation + step[:, 3:]
    before = _error(rotation, translation, points, images, weights)
    better = _error(*moved, points, images, weights) < before
    kept = torch.where(better[:, None, None], moved[0], rotation)
    return kept, torch.where(better[:, None], moved[1], translation)
