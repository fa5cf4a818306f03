"""Depth as pictures to look at: colors, with a legend that says what they mean."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Colormap = Literal["viridis", "magma", "inferno", "plasma", "cividis", "grey"]
EMPTY = (0.55, 0.7, 0.95)
GREYS = (0.1, 0.95)
"""Of the nearest and the farthest."""
DARKEST = 0.15
"""Where color maps begin: black is hard to tell from a dark background."""
LEGEND, LINE = 76, 12
"""Width, and height of a line of text, in pixels."""


def depth_picture(
    depth: Float[Tensor, "height width"], valid: Bool[Tensor, "height width"], colormap: Colormap = "viridis"
) -> Float[Tensor, "height columns 3"]:
    """Draw depth from its 1st to its 99th percentile, what is not valid in light blue, and a legend to the right."""
    low, high = depth_range(depth, valid)
    picture = color_depth(depth, valid, low, high, colormap)
    return torch.cat([picture, _legend(depth.shape[0], low, high, colormap, bool(valid.any()))], 1)


def depth_range(depth: Tensor, valid: Tensor) -> tuple[float, float]:
    """Return the 1st and the 99th percentile of what is valid."""
    some = depth[valid]
    some = some[:: max(1, len(some) // 100_000)]
    low, high = (float(some.quantile(q)) if len(some) else 0.0 for q in (0.01, 0.99))
    return low, high


def color_depth(
    depth: Float[Tensor, "height width"],
    valid: Bool[Tensor, "height width"],
    low: float,
    high: float,
    colormap: Colormap = "viridis",
) -> Float[Tensor, "height width 3"]:
    """Give each depth the color of its place between two; beyond them, that of the nearer one."""
    share = ((depth - low) / max(high - low, 1e-12)).clamp(0, 1)
    return torch.where(valid[..., None], _colors(share, colormap), depth.new_tensor(EMPTY))


def _colors(share: Tensor, colormap: Colormap) -> Tensor:
    if colormap == "grey":
        return (GREYS[0] + (GREYS[1] - GREYS[0]) * share)[..., None].expand(*share.shape, 3)
    from matplotlib import colormaps

    values = colormaps[colormap](DARKEST + (1 - DARKEST) * share.double().cpu().numpy())[..., :3]
    return torch.from_numpy(values).to(share)


def _legend(height: int, low: float, high: float, colormap: Colormap, has_depth: bool) -> Tensor:
    """Draw a bar from the farthest, above, to the nearest, with their depths, and the color of nothing below."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (LEGEND, height), (255, 255, 255))
    draw, bar = ImageDraw.Draw(image), max(1, height - LINE - 12)
    if has_depth:
        shares = torch.linspace(1, 0, bar)[:, None].expand(bar, LINE)
        image.paste(_picture(_colors(shares, colormap)), (6, 4))
        for y, value in ((0, high), ((bar - LINE) // 2, (low + high) / 2), (bar - LINE, low)):
            if bar >= 3 * LINE:
                draw.text((24, 4 + max(0, y)), f"{value:.4g}", fill=(0, 0, 0))
    image.paste(_picture(torch.tensor(EMPTY).expand(LINE, LINE, 3)), (6, bar + 8))
    draw.text((24, bar + 8), "nothing", fill=(0, 0, 0))
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255)


def _picture(colors: Tensor) -> "Image":
    from PIL import Image

    return Image.fromarray((colors * 255).round().to(torch.uint8).cpu().numpy())
