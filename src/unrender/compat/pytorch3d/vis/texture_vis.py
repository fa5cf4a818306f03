"""Texture images with the uv coordinates of the vertices."""

from typing import Any, Literal

import numpy as np
import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesUV


def texturesuv_image_matplotlib(
    texture: TexturesUV,
    *,
    texture_index: int = 0,
    radius: float = 1,
    color: Any = (1.0, 0.0, 0.0),
    subsample: int | None = 10000,
    origin: Literal["upper", "lower"] = "upper",
) -> None:
    """Plot a texture image into the current axes of matplotlib, with a circle at each uv coordinate."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Circle

    axes = plt.gca()
    axes.imshow(texture.maps_padded()[texture_index].detach().cpu().numpy(), origin=origin)
    for center in _centers(texture, texture_index, subsample):
        axes.add_patch(Circle(center, radius, color=color, clip_on=False))


def texturesuv_image_PIL(  # noqa: N802
    texture: TexturesUV,
    *,
    texture_index: int = 0,
    radius: float = 1,
    color: Any = "red",
    subsample: int | None = 10000,
) -> Any:
    """Return a texture image as an image of PIL, with a disc at each uv coordinate."""
    from PIL import Image, ImageDraw

    levels = (texture.maps_padded()[texture_index].detach().cpu().clamp(0, 1) * 255).byte().numpy()
    image = Image.fromarray(np.ascontiguousarray(levels))
    draw = ImageDraw.Draw(image)
    for x, y in _centers(texture, texture_index, subsample):
        draw.ellipse([(x - radius, y - radius), (x + radius, y + radius)], fill=color)
    return image


def _centers(texture: TexturesUV, index: int, subsample: int | None) -> list[tuple[float, float]]:
    centers = texture.centers_for_image(index)
    if subsample is not None and len(centers) > subsample:
        centers = centers[torch.randperm(len(centers))[:subsample]]
    return [(float(x), float(y)) for x, y in centers.tolist()]


__getattr__ = refuse_unknown(__name__)
