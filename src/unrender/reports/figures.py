"""Pictures for reports: shapes seen from around, errors as colors, curves."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.render.mesh import render_mesh
from unrender.render.points import render_points

SIZE = 320
Image = npt.NDArray[np.uint8]


def view_from(degrees: float, points: Float[Tensor, "points 3"], up: str = "y", size: int = SIZE) -> Camera:
    """Look at all points from a direction around the axis `up` (such as "y" or "-z"), somewhat from above."""
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


def show(shape: Mesh | PointCloud, camera: Camera) -> Image:
    """Shade a mesh, or draw points as small discs."""
    if isinstance(shape, Mesh):
        return to_bytes(render_mesh(shape, camera, supersampling=2))
    return to_bytes(render_points(shape, camera))


def colored(
    values: Float[Tensor, " points"], highest: float, colormap: str = "viridis"
) -> Float[Tensor, "points 3"]:
    """Turn values from 0 to `highest` into colors."""
    from matplotlib import colormaps

    return torch.from_numpy(colormaps[colormap]((values / highest).clamp(0, 1).numpy())[:, :3])


def png(image: Image) -> bytes:
    """Encode an image."""
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "png", optimize=True)
    return file.getvalue()


def curves(
    series: Mapping[str, Sequence[float]],
    marks: Mapping[str, int],
    steps: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Plot curves over the steps, on a logarithmic scale, with vertical marks; return an SVG.

    steps: of each value, by series; where it says nothing, every step from the first has one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, (name, values) in zip(
        figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True
    ):
        places = (steps or {}).get(name, range(1, len(values) + 1))
        axes.semilogy(places, values, color="#2a5d9c", linewidth=1.5)
        for label, step in ((label, step) for label, step in marks.items() if step <= len(values)):
            axes.axvline(step, color="#bbbbbb", linewidth=0.8)
            axes.text(
                step,
                1.0,
                f" {label}",
                transform=axes.get_xaxis_transform(),
                va="top",
                fontsize=7,
                color="#777777",
            )
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def to_bytes(image: Tensor) -> Image:
    """Turn values in [0, 1] into bytes."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
