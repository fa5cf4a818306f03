"""Refinement of a surface with vertex colors against photos, by differentiable rendering."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import topology
from unrender.losses.regularize import mesh_edge_loss, mesh_laplacian_smoothing, mesh_normal_consistency
from unrender.render.fragments import interpolate, rasterize
from unrender.render.mesh import render_silhouette
from unrender.tasks.surface.config import FitSurface
from unrender.tasks.surface.photo_views import PhotoView
from unrender.training.exposure import Exposures
from unrender.training.gradient_step import backpropagate

VERTEX_STEP, COLOR_STEP, EXPOSURE_STEP = 0.1, 0.02, 0.003
"""Initial learning rates; that of vertices in mean edge lengths."""
FINAL_STEP = 0.1
"""Learning rates at the end, relative to those at the beginning; they fall exponentially."""
BETAS = (0.9, 0.99)
SILHOUETTE_BLUR = 1.0
"""Width of soft silhouettes, in pixels."""
OPAQUE = 0.99
"""Alpha from which a pixel shows nothing but the surface."""
MAX_DEPTH_ERROR = 2.0
"""Depth errors, in mean edge lengths, beyond which they do not count more: there, one of the two depths is wrong."""
NORMAL_WEIGHT, LAPLACIAN_WEIGHT, EDGE_WEIGHT = 0.04, 0.02, 0.02
"""Weights of the regularizers at a smoothness of 1."""


@dataclasses.dataclass(frozen=True)
class ViewTarget:
    """What a view should show, on the device where it is rendered."""

    photo: PhotoView
    index: int
    depth: Tensor | None = None
    """Depth of the field, at the resolution of the photo; 0 where it is unknown."""


class Refinement:
    """Vertices and colors of a mesh, and the state of their optimization."""

    def __init__(self, mesh: Mesh, num_photos: int, config: FitSurface, *, per_image_exposure: bool) -> None:
        device = mesh.vertices.device
        self.config, self.faces = config, mesh.faces
        assert mesh.vertex_colors is not None
        self.vertices = mesh.vertices.detach().clone().requires_grad_()
        self.colors = mesh.vertex_colors.detach().clone().requires_grad_()
        self.edge_length = mean_edge_length(mesh)
        self.exposures = Exposures(num_photos).to(device) if per_image_exposure else None
        self._moments = torch.zeros_like(self.vertices), torch.zeros_like(self.vertices[:, :1])
        self._count = 0
        groups = [{"params": [self.colors], "lr": COLOR_STEP}]
        if self.exposures is not None:
            groups.append({"params": list(self.exposures.parameters()), "lr": EXPOSURE_STEP})
        self._optimizer = torch.optim.Adam(groups, betas=BETAS)
        self._rates = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]

    @property
    def mesh(self) -> Mesh:
        """The mesh as it is now."""
        return Mesh(self.vertices.detach().clone(), self.faces, self.colors.detach().clamp(0, 1))

    def step(self, target: ViewTarget, progress: float, *, move: bool = True) -> dict[str, float]:
        """Take a step towards one photo, at a progress of 0 to 1; return the losses. Without `move`, colors only."""
        rate = FINAL_STEP**progress
        for group, initial in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = initial * rate
        losses = self.losses(target, move=move)
        self._optimizer.zero_grad()
        self.vertices.grad = None
        values = torch.stack(list(losses.values()))
        backpropagate(values.sum())
        self._optimizer.step()
        if move and self.vertices.grad is not None:
            self._move(self.vertices.grad, VERTEX_STEP * self.edge_length * rate)
        return dict(zip(losses, values.tolist(), strict=True))

    def _move(self, gradient: Tensor, rate: float) -> None:
        """Move the vertices by Adam with one step length for the three coordinates of a vertex."""
        self._count += 1
        mean, square = self._moments
        mean.lerp_(gradient, 1 - BETAS[0])
        square.lerp_(gradient.square().sum(1, keepdim=True), 1 - BETAS[1])
        unbiased = square / (1 - BETAS[1] ** self._count)
        typical = unbiased.mean()  # vertices that no photo shows stay where the regularizers have them
        step = mean / (1 - BETAS[0] ** self._count) / (unbiased + typical).sqrt().clamp(min=1e-20)
        with torch.no_grad():
            self.vertices -= rate * step

    def losses(self, target: ViewTarget, *, move: bool = True) -> dict[str, Tensor]:
        """Return the weighted losses of a view."""
        mesh = Mesh(self.vertices if move else self.vertices.detach(), self.faces, None)
        camera, device = target.photo.camera.to(mesh.vertices.device), mesh.vertices.device
        fragments = rasterize(mesh, camera)
        colors = interpolate(fragments, self.faces, self.colors)[..., 0, :]
        if self.exposures is not None:
            colors = colors * self.exposures.factors()[target.index]
        covered, usable = fragments.face_ids[..., 0] >= 0, target.photo.usable(device)
        alpha = target.photo.coverage(device)
        compared = covered & usable & (alpha >= OPAQUE)
        photo = target.photo.premultiplied(device)
        losses = {"photometric": _mean((colors - photo).abs().mean(-1), compared)}
        if not move:
            return losses
        if target.photo.alpha is not None and self.config.mask_loss_weight:
            silhouette = render_silhouette(mesh, camera, blur=SILHOUETTE_BLUR)
            error = torch.where(usable, (silhouette - alpha).square(), 0).sum() / alpha.sum().clamp(min=1)
            losses["mask"] = self.config.mask_loss_weight * error
        if target.depth is not None and self.config.depth_loss_weight:
            depth = target.depth.to(device)
            known = covered & (depth > 0)
            error = ((fragments.depth[..., 0] - depth) / self.edge_length).abs().clamp(max=MAX_DEPTH_ERROR)
            losses["depth"] = self.config.depth_loss_weight * _mean(error, known)
        if self.config.smoothness:
            losses["regularization"] = self.config.smoothness * self._regularization(mesh)
        return losses

    def _regularization(self, mesh: Mesh) -> Tensor:
        length = self.edge_length
        return (
            NORMAL_WEIGHT * mesh_normal_consistency(mesh)
            + LAPLACIAN_WEIGHT * mesh_laplacian_smoothing(mesh) / length
            + EDGE_WEIGHT * mesh_edge_loss(mesh, length) / length**2
        )


def _mean(values: Float[Tensor, "height width"], where: Tensor) -> Float[Tensor, ""]:
    """Return the mean over some pixels; 0 if there are none."""
    return torch.where(where, values, 0).sum() / where.sum().clamp(min=1)


def mean_edge_length(mesh: Mesh) -> float:
    """Return the mean length of the edges of a mesh, in world units."""
    start, end = topology(mesh.faces).edges.unbind(1)
    length = float((mesh.vertices[start] - mesh.vertices[end]).norm(dim=1).double().mean())
    return length if math.isfinite(length) and length > 0 else 1.0


def shuffled(count: int, generator: torch.Generator) -> list[int]:
    """Return the numbers below `count` in random order."""
    return [int(i) for i in torch.randperm(count, generator=generator)]


def reduced_targets(
    photos: Sequence[PhotoView], depths: Sequence[Tensor | None], factor: int
) -> list[ViewTarget]:
    """Return what views should show at a fraction of their resolution."""
    targets = []
    for index, (photo, depth) in enumerate(zip(photos, depths, strict=True)):
        small = photo.reduced(factor)
        size = (small.camera.height, small.camera.width)
        if depth is not None:
            depth = torch.nn.functional.interpolate(depth[None, None], size, mode="nearest")[0, 0]
        targets.append(ViewTarget(small, index, depth))
    return targets
