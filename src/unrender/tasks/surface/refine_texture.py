"""Optimization of a texture by differentiable rendering against photos, on a fixed mesh."""

import math
from collections.abc import Sequence

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

LEARNING_RATE, FINAL_LEARNING_RATE = 0.02, 0.002
HUBER = 0.1
"""Color difference beyond which the loss is linear."""
SMOOTHNESS = 0.01
"""Weight of the mean squared difference of adjacent texels."""
MIN_COVERAGE = 0.99
"""Alpha below which a pixel is mixed with the background."""


def refine_texture(
    mesh: Mesh,
    texture: Texture,
    covered: Bool[Tensor, "height width"],
    views: Sequence[PhotoView],
    exposures: Float[Tensor, "views 3"] | None,
    *,
    steps: int,
) -> Texture:
    """Minimize the Huber loss between photos and the rendered texture with Adam, one photo a step.

    A small smoothness prior, the squared difference of adjacent texels, fills what the photos do not determine. The
    learning rate falls exponentially. Texels outside the charts, whose `covered` is false, are padded.
    Differentiable in: nothing.
    """
    used = (
        max_pool2d(covered[None, None].float(), 3, 1, 1)[0, 0] > 0
    )  # bilinear filtering reaches one texel further
    slots = used.flatten().nonzero()[:, 0]
    row_of = torch.full((used.numel(),), -1, device=slots.device)
    row_of[slots] = torch.arange(len(slots), device=slots.device)
    colors = texture.image.flatten(0, 1)[slots].T.contiguous().requires_grad_()
    neighbors = _neighbors(row_of.view_as(used))
    optimizer = torch.optim.Adam([colors], lr=LEARNING_RATE, betas=(0.9, 0.99), fused=True)
    decay = (FINAL_LEARNING_RATE / LEARNING_RATE) ** (1 / max(steps - 1, 1))
    for view in _view_order(len(views), steps):
        exposure = None if exposures is None else exposures[view]
        loss = _photo_loss(mesh, texture, colors, row_of, views[view], exposure)
        optimizer.zero_grad()
        loss.backward()
        assert colors.grad is not None
        colors.grad += SMOOTHNESS * _laplacian(colors.detach(), neighbors)
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= decay
    image = texture.image.flatten(0, 1).index_copy(0, slots, colors.detach().clamp(0, 1).T)
    return texture.replace(image=dilate(image.view_as(texture.image), used))


def _view_order(num_views: int, steps: int) -> list[int]:
    """Return the view of each step: all of them in a new random order, again and again."""
    generator = torch.Generator().manual_seed(0)
    rounds = [torch.randperm(num_views, generator=generator) for _ in range(math.ceil(steps / num_views))]
    return torch.cat(rounds)[:steps].tolist() if rounds else []


def _photo_loss(
    mesh: Mesh, texture: Texture, colors: Tensor, row_of: Tensor, view: PhotoView, exposure: Tensor | None
) -> Tensor:
    device = colors.device
    with torch.no_grad():
        rows = hits(rasterize(mesh, view.camera.to(device)))
        usable = (view.usable(device) & (view.coverage(device) > MIN_COVERAGE)).flatten()[rows.slot_ids]
        uvs = rows.interpolate(texture.faces, texture.uvs)[usable]
        target = view.premultiplied(device).flatten(0, 1)[rows.slot_ids[usable]].T
        corners, shares = _bilinear(uvs, texture.image.shape[0], texture.image.shape[1])
        index = row_of[corners]  # −1 in charts thinner than a texel, which cover no center
        shares = shares * (index >= 0)
        shares = shares / shares.sum(0).clamp(min=1e-6)
        index = index.clamp(min=0)
    rendered = (gather_columns(colors, index.flatten()).unflatten(1, index.shape) * shares).sum(1)
    if exposure is not None:
        rendered = rendered * exposure[:, None]
    return huber_loss(rendered, target, reduction="sum", delta=HUBER)


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
