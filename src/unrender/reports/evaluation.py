"""Frames that were not learned from: how a field shows them, compared to the photos."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unrender.data.frames import Frame, View
from unrender.fields.protocol import RadianceField, RenderOutput
from unrender.io.images import save_image
from unrender.losses.images import SSIM_WINDOW, match_exposure, psnr, ssim
from unrender.losses.perceptual import PerceptualLoss
from unrender.render.colormaps import distance_colors
from unrender.reports import figures
from unrender.reports.html import Picture
from unrender.runs.saved_run import as_color

Metrics = dict[str, Any]
Item = TypeVar("Item")
VIEWS_SHOWN = 4
NAMED = 40
"""Names of frames in a report, at most."""
SHOWN_SIDE = 400
"""Pixels of the longer side of pictures in reports."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A frame that was not learned from, and how it came out."""

    index: int
    last_index: int
    name: str
    pictures: tuple[Picture, ...]
    """For the report; of a few frames only."""
    metrics: dict[str, float | None]
    """How far the picture is from the photo, by name: psnr, ssim, …; None for what cannot be told."""


def evaluate_frames(
    field: RadianceField,
    frames: Sequence[Frame],
    behind: Tensor | None,
    folder: Path,
    perceptual: PerceptualLoss | None = None,
) -> Iterator[HeldOut]:
    """Render frames, save what came out in a folder, and compare it to the photos before the same color."""
    folder.mkdir(exist_ok=True)
    for index, (frame, name) in enumerate(zip(frames, _file_names(frames), strict=True)):
        view = frame.load()
        photo = photo_before(view, field.background if behind is None else behind)
        seen = field.render(frame.camera, behind)
        save_image(seen.color, folder / name)
        metrics = _compare(seen, photo, view, perceptual)
        is_shown = index % max(1, -(-len(frames) // VIEWS_SHOWN)) == 0
        shown = side_by_side(frame.name, photo, seen, metrics["psnr"]) if is_shown else ()
        yield HeldOut(index, len(frames) - 1, frame.name, shown, metrics)


def progress_words(view: HeldOut) -> str:
    """Say in a line how far the comparison is."""
    return f"held out {view.index + 1} of {view.last_index + 1}  {view.metrics['psnr']:5.2f} dB"


def _compare(
    seen: RenderOutput, photo: Tensor, view: View, perceptual: PerceptualLoss | None
) -> dict[str, float | None]:
    """Measure one view; each figure has a name of its own, and `mean_metrics` takes their means."""
    is_whole = view.mask is None
    can_compare = is_whole and min(photo.shape[:2]) >= SSIM_WINDOW
    metrics: dict[str, float | None] = {
        "psnr": psnr(seen.color, photo, view.mask),
        "ssim": ssim(seen.color, photo) if can_compare else None,
    }
    if view.alpha is None:  # photos, whose exposure may differ
        metrics["psnr_matched"] = psnr(match_exposure(seen.color, photo, view.mask), photo, view.mask)
    if perceptual is not None:
        metrics["lpips"] = perceptual(seen.color, photo) if is_whole else None
    return metrics


def photo_before(view: View, behind: Tensor) -> Tensor:
    """Put a transparent photo before a color."""
    if view.alpha is None:
        return view.image
    return torch.lerp(behind.detach().expand_as(view.image), view.image, view.alpha[..., None])


def side_by_side(name: str, photo: Tensor, seen: RenderOutput, error: float | None) -> tuple[Picture, ...]:
    """Show a photo, what was learned, and how far it is away."""
    distance = distance_colors(seen.distance, seen.opacity)
    return (
        Picture(f"{name}: the photo", [small_png(photo)]),
        Picture(f"{name}: what was learned, {error:.1f} dB", [small_png(seen.color)]),
        Picture(f"{name}: distance, near dark, far bright, nothing blue", [small_png(distance)]),
    )


def small_png(image: Tensor) -> bytes:
    """Encode a picture, averaged down to fit a report."""
    step = max(1, round(max(image.shape[:2]) / SHOWN_SIDE))
    if step > 1:
        image = torch.nn.functional.avg_pool2d(image.movedim(-1, 0), step).movedim(0, -1)
    return figures.png(figures.to_bytes(image))


def _file_names(frames: Sequence[Frame]) -> list[str]:
    """Call pictures like their photos; with their folders, where those of several have the same names."""
    short = [Path(frame.name).stem for frame in frames]
    if len(set(short)) < len(short):
        short = ["_".join(Path(frame.name).with_suffix("").parts) for frame in frames]
    return [f"{name}.png" for name in short]


def evenly(items: Sequence[Item], count: int | None) -> list[Item]:
    """Choose so many items, as far apart as possible; all, if there are no more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def mean_metrics(views: Sequence[HeldOut]) -> Metrics:
    """Count the views and take the mean of each figure, over the views that have it."""
    found: Metrics = {"num_held_out": len(views)}
    for name in dict.fromkeys(name for view in views for name in view.metrics):
        values = [
            value
            for view in views
            if (value := view.metrics.get(name)) is not None
            and not math.isnan(value)  # of masks that leave nothing
        ]
        found[name] = sum(values) / len(values) if values else None
    return found


def metrics_of_views(views: Sequence[HeldOut]) -> Metrics:
    """Write the figures of each view under names such as psnr/VIEW."""
    return {f"{name}/{view.name}": value for view in views for name, value in view.metrics.items()}


def protocol(frames: Sequence[Frame], compared: Sequence[HeldOut], behind: Tensor | None) -> Metrics:
    """State how frames of a split were compared, so that others can do the same."""
    chosen = frames[: len(compared)]
    return {
        "frames": [frame.name for frame in chosen],
        "sizes": sorted({(frame.camera.width, frame.camera.height) for frame in chosen}),
        "background": as_color(behind),
        "masked_frames": sum(frame.mask_path is not None for frame in chosen),
        "psnr": "from the mean squared error over all channels of a picture (within its mask, if it has one), "
        "values in 0 to 1; then the mean over pictures",
        "psnr_matched": "the same, after each channel of a view is multiplied by what brings it nearest to its photo: "
        "nothing tells how a photo was exposed that was not learned from; of photos without transparency",
        "ssim": "Wang et al. 2004, Gaussian windows of 11 × 11 pixels with a deviation of 1.5, mean over channels, "
        "data range 1 (scikit-image, use_sample_covariance=False); then the mean over pictures",
    }


def protocol_words(how: Mapping[str, Any]) -> str:
    """Say the same in a sentence or two."""
    sizes, names = how["sizes"], how["frames"]
    if not names:
        return ""
    size = " and ".join(f"{width} × {height}" for width, height in sizes[:3])
    more = " and other sizes" if len(sizes) > 3 else ""
    behind = "" if how["background"] is None else f"; transparent ones lie before {_named(how['background'])}"
    others = f" and {len(names) - NAMED} more, named in metrics.json" if len(names) > NAMED else ""
    return (
        f"PSNR {how['psnr']}; SSIM over Gaussian windows of 11 × 11 pixels. Pictures of {size} pixels{more}{behind}: "
        f"{', '.join(names[:NAMED])}{others}."
    )


def _named(color: Sequence[float]) -> str:
    if min(color) == max(color) and color[0] in (0.0, 1.0):
        return "white" if color[0] else "black"
    return f"the color {' '.join(f'{channel:.3g}' for channel in color)}"


def verdict(of: str, metrics: Metrics, *, learned_from: bool = False) -> str:
    """Say in a sentence how good the pictures are that were not learned from."""
    count = metrics["num_held_out"]
    if not count:
        return "No picture was held out: nothing says how new views look. Look for yourself."
    similar = "".join(
        f", {name.upper()} {metrics[name]:.3f}" for name in ("ssim", "lpips") if metrics.get(name) is not None
    )
    were = f"{'were' if count > 1 else 'was'}{'' if learned_from else ' not'}"
    return (
        f"On {count} picture{'s' * (count > 1)} of {of} that {were} learned from: "
        f"PSNR {metrics['psnr']:.2f} dB{similar}"
    )
