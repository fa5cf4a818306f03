"""Optimization of a texture by differentiable rendering against photos, on a fixed mesh."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import huber_loss, max_pool2d

from unrender.geometry.mesh import Mesh
from unrender.kernels.scatter_sum import gather_columns
from unrender.render.fragments import hits, rasterize
from unrender.render.texture import Texture
from unrender.tasks.surface.photo_views import PhotoView
from unrender.tasks.surface.texels import dilate
from unrender.training.gradient_step import backpropagate

LEARNING_RATE, FINAL_LEARNING_RATE = 0.02, 0.002
HUBER = 0.3
"""Color difference beyond which the loss is linear."""
SMOOTHNESS = 0.01
"""Weight of the mean squared difference of adjacent texels."""
MIN_COVERAGE = 0.99
"""Alpha below which a pixel is mixed with the background."""


class TextureRefinement:
    """Minimizes the Huber loss between photos and the rendered texture with Adam, one photo a step.

    A small smoothness prior, the squared difference of adjacent texels, determines what the photos do not. The learning
    rate falls exponentially. Texels outside the charts, which are not `covered`, are padded.
    """

    def __init__(self, mesh: Mesh, texture: Texture, covered: Bool[Tensor, "height width"]) -> None:
        self.mesh, self._initial = mesh, texture
        # bilinear filtering reaches one texel further
        self._used = max_pool2d(covered[None, None].float(), 3, 1, 1)[0, 0] > 0
        self._slots = self._used.flatten().nonzero()[:, 0]
        row_of = torch.full((self._used.numel(),), -1, device=self._slots.device)
        row_of[self._slots] = torch.arange(len(self._slots), device=self._slots.device)
        self._row_of, self._neighbors = row_of, _neighbors(row_of.view_as(self._used))
        self._colors = texture.image.flatten(0, 1)[self._slots].T.contiguous().requires_grad_()
        self._optimizer = torch.optim.Adam(
            [self._colors], lr=LEARNING_RATE, betas=(0.9, 0.99), eps=1e-15, foreach=True
        )

    def step(self, view: PhotoView, progress: float, exposure: Float[Tensor, "3"] | None = None) -> float:
        """Take a step towards a photo, at a progress of 0 to 1; return the mean loss of its pixels."""
        rate = LEARNING_RATE * (FINAL_LEARNING_RATE / LEARNING_RATE) ** progress
        self._optimizer.param_groups[0]["lr"] = rate
        losses = self._losses(view, exposure)
        self._optimizer.zero_grad()
        backpropagate(losses.sum())
        assert self._colors.grad is not None
        self._colors.grad += SMOOTHNESS * _laplacian(self._colors.detach(), self._neighbors)
        self._optimizer.step()
        return float(losses.detach().mean()) if losses.numel() else 0.0

    def texture(self) -> Texture:
        """Return the texture after the steps so far."""
        image = self._initial.image.flatten(0, 1)
        image = image.index_copy(0, self._slots, self._colors.detach().clamp(0, 1).T)
        return self._initial.replace(image=dilate(image.view_as(self._initial.image), self._used))

    def _losses(self, view: PhotoView, exposure: Tensor | None) -> Tensor:
        device, texture = self._colors.device, self._initial
        with torch.no_grad():
            rows = hits(rasterize(self.mesh, view.camera.to(device)))
            usable = (view.usable(device) & (view.coverage(device) > MIN_COVERAGE)).flatten()[rows.slot_ids]
            uvs = rows.interpolate(texture.faces, texture.uvs)[usable]
            target = view.premultiplied(device).flatten(0, 1)[rows.slot_ids[usable]].T
            corners, shares = _bilinear(uvs, texture.image.shape[0], texture.image.shape[1])
            index = self._row_of[corners]  # −1 in charts thinner than a texel, which cover no center
            shares = shares * (index >= 0)
            shares = shares / shares.sum(0).clamp(min=1e-6)
            index = index.clamp(min=0)
        rendered = (gather_columns(self._colors, index.flatten()).unflatten(1, index.shape) * shares).sum(1)
        if exposure is not None:
            rendered = rendered * exposure[:, None]
        return huber_loss(rendered, target, reduction="none", delta=HUBER)


def _bilinear(uvs: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the four texels around UV coordinates [4, points] and their weights, as `Texture.sample` has them."""
    u, v = uvs.unbind(-1)
    x, y = (u * width - 0.5).clamp(0, width - 1), ((1 - v) * height - 0.5).clamp(0, height - 1)
    column, row = x.floor().clamp(max=width - 2), y.floor().clamp(max=height - 2)
    a, b = x - column, y - row
    first = row.long() * width + column.long()
    corners = torch.stack([first, first + 1, first + width, first + width + 1])
    return corners, torch.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])


def _neighbors(row_of: Tensor) -> list[Tensor]:
    """Return the rows of the texels beside, above and below each one; its own where there is none."""
    padded = torch.nn.functional.pad(row_of, (1, 1, 1, 1), value=-1)
    height, width = row_of.shape
    own = row_of.flatten()[row_of.flatten() >= 0]
    found = []
    for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
        beside = padded[down : down + height, right : right + width].flatten()[row_of.flatten() >= 0]
        found.append(torch.where(beside >= 0, beside, own).int())
    return found


def _laplacian(colors: Tensor, neighbors: list[Tensor]) -> Tensor:
    """Return the gradient of half the sum of squared differences of adjacent texels."""
    gradient = len(neighbors) * colors
    for index in neighbors:
        gradient -= colors.index_select(1, index)
    return gradient
