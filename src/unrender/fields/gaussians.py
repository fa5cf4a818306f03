"""3D Gaussian splatting as a field: rendering and depth, without training."""

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.harmonics import MAX_DEGREE
from unrender.fields.project_gaussians import ProjectedGaussians, gaussian_colors, project_gaussians
from unrender.geometry.camera import Camera
from unrender.geometry.gaussians import Gaussians
from unrender.geometry.rays import pixel_centers
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.ray_depths import RayDepths, ray_depths
from unrender.kernels.splat_gaussians import splat_gaussians, splat_weights
from unrender.render.march import RenderOutput

NEAR = 1e-3
"""Default distance at which rendering starts, in half extents of the box."""
OUTLIERS = 0.01
"""Fraction of the Gaussians ignored at each end of each axis for the bounding box."""
VISIBLE_OPACITY = 0.1
"""Opacity below which Gaussians are ignored for the bounding box."""
PIXELS_PER_BAND, MIN_ROWS = 16_384, 8
"""Pixels whose contributions are in memory at once, in `depths`; at least the rows of a tile of the kernel."""


class GaussianField:
    """A scene of 3D Gaussians: renders images, opacity and depth, and converts to a mesh. It cannot be trained.

    Each pixel composites the Gaussians that cover it front to back, sorted by the depth of their centers (Kerbl et al.
    2023). Gaussians have no density, so that functions that sample rays do not take this field.

    Example: `unrender.load_field("garden.ply").render(camera).color`.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        *,
        near: float | None = None,
        background: Float[Tensor, "3"] | None = None,
    ) -> None:
        """Check the Gaussians; near: distance from cameras below which Gaussians are left out, in world units."""
        _check(gaussians)
        self.gaussians = gaussians
        low, high = _box(gaussians)
        self.scene_box = SceneBox.from_bounds(low, high)
        self.near = NEAR * float(self.scene_box.radius) if near is None else near
        self.background = gaussians.means.new_zeros(3) if background is None else background

    def to(self, device: torch.device | str) -> Self:
        """Return the field on a device."""
        return type(self)(self.gaussians.to(device), near=self.near, background=self.background.to(device))

    def bounds(self) -> Float[Tensor, "2 3"]:
        """Return the lowest and the highest corner of the region with visible Gaussians, without outliers."""
        return self.scene_box.bounds

    def describe(self) -> dict[str, int | float]:
        """Return figures for reports and `metrics.json`, by name."""
        degree = round(self.gaussians.harmonics.shape[1] ** 0.5) - 1
        return {"num_gaussians": len(self.gaussians.means), "harmonics_degree": degree}

    def crop(self, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> Self | None:
        """Return the Gaussians with centers between two corners; None if there are none."""
        means = self.gaussians.means
        inside = ((means >= low.to(means)) & (means <= high.to(means))).all(-1)
        if not bool(inside.any()):
            return None
        chosen = self.gaussians.map(lambda values: values[inside])
        return type(self)(chosen, near=self.near, background=self.background)

    @torch.no_grad()
    @checked
    def render(
        self, camera: Camera, background: Float[Tensor, "3"] | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render the view of a camera on `background` or the field's own; `quick` makes no difference.

        Distances are weighted means, Σ weight · distance / Σ weight.
        Differentiable in: nothing.
        """
        camera = self._on_device(camera)
        visible = project_gaussians(self.gaussians, camera, self.near)
        image = splat_gaussians(
            visible.means,
            visible.covariances,
            visible.opacities,
            visible.distances,
            visible.gradients,
            gaussian_colors(self.gaussians, visible.ids, camera),
            height=camera.height,
            width=camera.width,
        )
        behind = (self.background if background is None else background).to(image.color)
        color = (image.color + (1 - image.opacity)[..., None] * behind).clamp(0, 1)
        return RenderOutput(color, image.opacity, image.distance)

    @torch.no_grad()
    def depths(self, camera: Camera, *, threshold: float, bound: float) -> tuple[RayDepths, Tensor]:
        """Return depth statistics [height, width] of each pixel, and its opacity; see `ray_depths`."""
        camera = self._on_device(camera)
        visible = project_gaussians(self.gaussians, camera, self.near)
        rows = max(MIN_ROWS, PIXELS_PER_BAND // camera.width)
        parts = [
            _depths_of_rows(visible, camera, top, min(rows, camera.height - top), threshold, bound)
            for top in range(0, camera.height, rows)
        ]
        *depths, opacity = (torch.cat(each) for each in zip(*parts, strict=True))
        return RayDepths(*depths), opacity

    def _on_device(self, camera: Camera) -> Camera:
        return camera.detach().to(self.gaussians.means.device).to(self.gaussians.means.dtype)


def _depths_of_rows(
    visible: ProjectedGaussians, camera: Camera, top: int, height: int, threshold: float, bound: float
) -> tuple[Tensor, ...]:
    """Return the statistics, and the opacity, of the pixels of some rows."""
    width, shift = camera.width, visible.means.new_tensor([0.0, top])
    found = splat_weights(
        visible.means - shift, visible.covariances, visible.opacities, height=height, width=width
    )
    ids = found.gaussian_ids.long()
    counts = found.offsets.diff()
    pixels = pixel_centers(camera)[top : top + height].flatten(0, 1).repeat_interleave(counts, 0)
    offsets = pixels - visible.means[ids]
    distances = visible.distances[ids] + (visible.gradients[ids] * offsets).sum(-1)
    depths = ray_depths(
        found.weights,
        distances,
        visible.depth_extents[ids],
        found.offsets,
        threshold=threshold,
        bound=bound,
    )
    pixel = torch.arange(height * width, device=ids.device).repeat_interleave(counts)
    opacity = found.weights.new_zeros(height * width).index_add_(0, pixel, found.weights)
    return tuple(values.view(height, width) for values in (*depths, opacity))


def _check(gaussians: Gaussians) -> None:
    count, functions = gaussians.harmonics.shape[:2]
    if count == 0:
        raise InputError("GaussianField: `gaussians` should hold at least one Gaussian, got none")
    if functions not in [(degree + 1) ** 2 for degree in range(MAX_DEGREE + 1)]:
        raise InputError(
            f"GaussianField: `harmonics` should have 1, 4, 9 or 16 functions, of degree 0 to 3, got {functions}"
        )
    values = {
        "means": gaussians.means.isfinite().all(-1),
        "scales": (gaussians.scales.isfinite() & (gaussians.scales >= 0)).all(-1),
        "quaternions": gaussians.quaternions.isfinite().all(-1),
        "opacities": (gaussians.opacities >= 0) & (gaussians.opacities <= 1),
        "harmonics": gaussians.harmonics.isfinite().flatten(1).all(-1),
    }
    allowed = {"scales": "finite and not negative", "opacities": "in [0, 1]"}
    for name, valid in values.items():
        if not bool(valid.all()):
            wrong = (~valid).nonzero()[:, 0]
            raise InputError(
                f"GaussianField: `{name}` should be {allowed.get(name, 'finite')}, but those of {len(wrong):,} "
                f"Gaussians are not; the first is number {int(wrong[0]) + 1} of {count:,}"
            )


def _box(gaussians: Gaussians) -> tuple[Tensor, Tensor]:
    """Return the corners of a box around the visible Gaussians, without outliers."""
    visible = gaussians.opacities >= VISIBLE_OPACITY
    means, scales = gaussians.means, gaussians.scales
    if bool(visible.any()):
        means, scales = means[visible], scales[visible]
    ordered = means.sort(0).values
    cut = int(OUTLIERS * len(means))
    low, high = ordered[cut], ordered[-1 - cut]
    margin = scales.amax(-1).median().clamp(min=1e-6 * float((high - low).max()) or 1e-6)
    return low - margin, high + margin
