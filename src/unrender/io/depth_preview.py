"""Preview images of depth, with a color bar."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Colormap = Literal["viridis", "magma", "inferno", "plasma", "cividis", "gray"]
INVALID_COLOR = (0.55, 0.7, 0.95)
GRAY_RANGE = (0.1, 0.95)
"""Gray levels of the nearest and the farthest depth."""
COLORMAP_START = 0.15
"""Start of the color map: its darkest colors are hard to tell from a dark background."""
LEGEND_WIDTH, LINE_HEIGHT = 76, 12
"""Width of the color bar with its labels, and height of a line of text, in pixels."""


def depth_preview_image(
    depth: Float[Tensor, "height width"], valid: Bool[Tensor, "height width"], colormap: Colormap = "viridis"
) -> Float[Tensor, "height columns 3"]:
    """Colorize depth between its 1st and 99th percentile, with a color bar; invalid pixels are light blue."""
    depth, valid = depth.detach().cpu(), valid.cpu()
    low, high = depth_range(depth, valid)
    image = colorize_depth(depth, valid, low, high, colormap)
    return torch.cat([image, _legend(depth.shape[0], low, high, colormap, bool(valid.any()))], 1)


def depth_range(depth: Tensor, valid: Tensor) -> tuple[float, float]:
    """Return the 1st and 99th percentile of the valid depths."""
    some = depth[valid]
    some = some[:: max(1, len(some) // 100_000)]
    low, high = (float(some.quantile(q)) if len(some) else 0.0 for q in (0.01, 0.99))
    return low, high


def colorize_depth(
    depth: Float[Tensor, "height width"],
    valid: Bool[Tensor, "height width"],
    low: float,
    high: float,
    colormap: Colormap = "viridis",
) -> Float[Tensor, "height width 3"]:
    """Map depth between `low` and `high` to colors; values beyond are clamped."""
    fraction = ((depth - low) / max(high - low, 1e-12)).clamp(0, 1)
    return torch.where(valid[..., None], _colors(fraction, colormap), depth.new_tensor(INVALID_COLOR))


def _colors(fraction: Tensor, colormap: Colormap) -> Tensor:
    if colormap == "gray":
        return (GRAY_RANGE[0] + (GRAY_RANGE[1] - GRAY_RANGE[0]) * fraction)[..., None].expand(
            *fraction.shape, 3
        )
    from matplotlib import colormaps

    values = colormaps[colormap](COLORMAP_START + (1 - COLORMAP_START) * fraction.double().cpu().numpy())[
        ..., :3
    ]
    return torch.from_numpy(values).to(fraction)


def _legend(height: int, low: float, high: float, colormap: Colormap, has_depth: bool) -> Tensor:
    """Draw a color bar with labels, far depth at the top, and the color of invalid pixels below."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (LEGEND_WIDTH, height), (255, 255, 255))
    draw, bar = ImageDraw.Draw(image), max(1, height - LINE_HEIGHT - 12)
    if has_depth:
        fractions = torch.linspace(1, 0, bar)[:, None].expand(bar, LINE_HEIGHT)
        image.paste(_pil_image(_colors(fractions, colormap)), (6, 4))
        for y, value in ((0, high), ((bar - LINE_HEIGHT) // 2, (low + high) / 2), (bar - LINE_HEIGHT, low)):
            if bar >= 3 * LINE_HEIGHT:
                draw.text((24, 4 + max(0, y)), f"{value:.4g}", fill=(0, 0, 0))
    image.paste(_pil_image(torch.tensor(INVALID_COLOR).expand(LINE_HEIGHT, LINE_HEIGHT, 3)), (6, bar + 8))
    draw.text((24, bar + 8), "no depth", fill=(0, 0, 0))
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255)


def _pil_image(colors: Tensor) -> "Image":
    from PIL import Image

    return Image.fromarray((colors * 255).round().to(torch.uint8).cpu().numpy())
