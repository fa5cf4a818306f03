"""Reference implementation of the reflection of one light."""

import torch
from torch import Tensor


def forward(
    normals: Tensor,
    directions: Tensor,
    views: Tensor,
    colors: Tensor,
    diffuse: Tensor | float,
    specular: Tensor | float,
    shininess: Tensor | float,
) -> Tensor:
    """Return k_d c max(n · l, 0) + k_s max(r · v, 0)^shininess, r = 2 (n · l) n − l (Phong 1975).

    For unit normals n, directions to the light l and to the camera v [points 3], and colors c [points channels]; of
    the coefficients k, [channels] or [1], tensors are differentiable. There is no highlight where n · l ≤ 0.
    """
    cosine = (normals * directions).sum(-1, keepdim=True)
    reflected = colors * diffuse * cosine.clamp(min=0)
    if not isinstance(specular, Tensor) and specular == 0:
        return reflected
    mirrored = 2 * cosine * normals - directions
    aligned = (mirrored * views).sum(-1, keepdim=True)
    has_highlight = (aligned > 0) & (cosine > 0)
    highlight = torch.where(has_highlight, aligned, 1) ** shininess * has_highlight
    return reflected + specular * highlight
