"""Images of reports: renderings of shapes, colormapped values, plots."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.render.mesh import render_mesh
from unrender.render.points import render_points

SIZE = 320
Image = npt.NDArray[np.uint8]


def view_from(degrees: float, points: Float[Tensor, "points 3"], up: str = "y", size: int = SIZE) -> Camera:
    """Return a camera that frames all points, from about 20° above, at an azimuth around the axis `up`."""
    axis = "xyz".index(up[-1])
    sign = -1.0 if up.startswith("-") else 1.0
    upward, forward, aside = (torch.zeros(3, dtype=points.dtype) for _ in range(3))
    upward[axis], forward[(axis + 1) % 3], aside[(axis + 2) % 3] = sign, 1.0, sign
    turn = math.radians(degrees)
    direction = 0.35 * upward + math.cos(turn) * forward + math.sin(turn) * aside
    low, high = points.amin(0), points.amax(0)
    center, radius = (low + high) / 2, float((high - low).norm()) / 2
    eye = center + direction / direction.norm() * radius * 3.9
    return Camera.look_at(eye, center, upward, fov_degrees=30.0, height=size, width=size)


def turntable(
    points: Float[Tensor, "points 3"], count: int, up: str = "y", start: float = 30.0
) -> list[Camera]:
    """Return `count` cameras on a circle around points, starting at an azimuth in degrees."""
    return [view_from(start + 360 * index / count, points, up) for index in range(count)]


def render(shape: Mesh | PointCloud, camera: Camera) -> Image:
    """Render a shaded mesh, or points as small discs, on the device of the shape."""
    if isinstance(shape, Mesh):
        return to_bytes(render_mesh(shape, camera.to(shape.vertices.device), supersampling=2))
    return to_bytes(render_points(shape, camera.to(shape.points.device)))


def colored(
    values: Float[Tensor, " points"], highest: float, colormap: str = "viridis"
) -> Float[Tensor, "points 3"]:
    """Map values from 0 to `highest` to colors of a matplotlib colormap."""
    from matplotlib import colormaps

    return torch.from_numpy(colormaps[colormap]((values / highest).clamp(0, 1).numpy())[:, :3])


def png(image: Image | Tensor) -> bytes:
    """Encode an image as PNG; float images in [0, 1]."""
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(to_bytes(image) if isinstance(image, Tensor) else image).save(file, "png", optimize=True)
    return file.getvalue()


def thumbnail(image: Float[Tensor, "height width 3"], size: int) -> Float[Tensor, "rows columns 3"]:
    """Reduce an image by an integer factor, averaging pixels, to at most `size` pixels along the longer side."""
    factor = -(-max(image.shape[:2]) // size)
    if factor == 1:
        return image
    return avg_pool2d(image.movedim(-1, 0), factor, ceil_mode=True).movedim(0, -1)


def curves(
    series: Mapping[str, Sequence[float]],
    marks: Mapping[str, int],
    steps: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Plot each series over the steps on a logarithmic scale, with labelled vertical lines; return an SVG.

    marks: steps of the vertical lines, by label. steps: those of the values, by series, by default 1, 2, 3, …
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    class PlainLabels(LogFormatter):
        """0.02 instead of 2 × 10⁻², where the base class has a label."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:.3g}" if super().__call__(x, pos) else ""

    # fixed margins, and labels without formulas: measuring and setting those takes three quarters of the time
    figure = Figure(figsize=(8, 2.6))
    figure.subplots_adjust(left=0.065, right=0.985, bottom=0.16, top=0.9, wspace=0.1 * len(series))
    for axes, (name, values) in zip(
        figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True
    ):
        positions = (steps or {}).get(name, range(1, len(values) + 1))
        axes.semilogy(positions, values, color="#2a5d9c", linewidth=1.5)
        for label, step in ((label, step) for label, step in marks.items() if step <= len(values)):
            axes.axvline(step, color="#bbbbbb", linewidth=0.8)
            axes.text(
                step,
                0.97,
                f" {label}",
                transform=axes.get_xaxis_transform(),
                va="top",
                fontsize=7,
                color="#777777",
            )
        axes.yaxis.set_major_formatter(PlainLabels())
        axes.yaxis.set_minor_formatter(PlainLabels())
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(which="both", labelsize=7)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def to_bytes(image: Tensor) -> Image:
    """Convert an image from floats in [0, 1] to 8 bits per channel."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
