"""A radiance field in a few lines: an opaque ball, exact from everywhere."""

import torch
from torch import Tensor

from unrender import Camera, RaySamples, RenderOutput, SceneBox, rays_of, sample_uniform
from unrender.fields.uniform_samples import uniform_samples


class Ball:
    """A ball about the origin, of one color."""

    near = 0.0
    scene_box = SceneBox.cube(torch.zeros(3), 1.0)

    def __init__(self, radius: float = 0.5, color: tuple[float, float, float] = (1.0, 0.0, 0.0)) -> None:
        self.radius, self.color = radius, torch.tensor(color)
        self.background = torch.full((3,), 0.5)
        self.pixels = 0
        """That were rendered."""

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return 1e4 * (points.norm(dim=-1) < self.radius), self.color.expand(len(points), 3)

    def sample(self, rays, *, quick: bool = False) -> RaySamples:
        count = 64 if quick else 256
        evenly = sample_uniform(0.0, 4.0, count)
        distances, lengths = (
            t.expand(len(rays.origins), count).flatten() for t in (evenly.distances, evenly.lengths)
        )
        return RaySamples(distances, lengths, torch.arange(len(rays.origins) + 1) * count)

    def sample_uniform(self, rays, count, *, near=None, far=None) -> RaySamples:
        return uniform_samples(rays, near or 0.0, far or 4.0, count)

    def density(self, points: Tensor) -> Tensor:
        return self(points, points)[0]

    def bounds(self) -> Tensor:
        return self.scene_box.bounds

    def describe(self) -> dict[str, float]:
        return {}

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        self.pixels += camera.height * camera.width
        rays = rays_of(camera)
        middle = -(rays.origins * rays.directions).sum(-1)
        inside = self.radius**2 - (rays.origins + middle[..., None] * rays.directions).square().sum(-1)
        opacity = ((inside > 0) & (middle > 0)).float()
        behind = self.background if background is None else background
        color = torch.where(opacity[..., None] > 0, self.color, behind)
        return RenderOutput(color, opacity, opacity * (middle - inside.clamp(min=0).sqrt()))
