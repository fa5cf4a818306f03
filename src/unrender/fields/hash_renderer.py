"""Rendering of hash fields on a GPU, with MLPs in half precision."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrender.fields.half_mlp import Activations, HalfMlp, Linear
from unrender.fields.render_field import empty_output
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, rays_of
from unrender.geometry.scene_box import FAR
from unrender.kernels._hash_training import (
    NUM_CANDIDATES,
    NUM_COUNTERS,
    NUM_RAYS,
    NUM_SAMPLES,
    NUM_SCALARS,
    STEP,
)
from unrender.kernels._hash_training.rendering import rendering_kernels
from unrender.kernels._hash_training.traversal import traversal_kernels
from unrender.kernels._warp import launch
from unrender.kernels.composite import composite
from unrender.kernels.hash_grid import HashLevels
from unrender.kernels.hash_grid.gpu import level_rows
from unrender.kernels.traverse import CellGrid
from unrender.render.march import RenderOutput

SAMPLES_PER_CHUNK = 1 << 20
"""Samples that are evaluated at once: about 0.6 GB."""
MAX_LOG_DENSITY, MIN_TRANSMITTANCE = 15.0, 1e-3
FAR_BOUNDED = 1e9
COLOR_ROWS = 8


class HashRenderer:
    """Renders rays through the tensors of a hash field with two features per level in a cube; made for one view.

    precision: dtype of the activations.
    """

    def __init__(
        self,
        table: Tensor,
        levels: HashLevels,
        layers: tuple[nn.ModuleList, nn.ModuleList],
        grid: CellGrid,
        density_unit: float,
        near: float,
        precision: torch.dtype = torch.float16,
    ) -> None:
        self.device, self.grid, self.density_unit, self.near = table.device, grid, density_unit, near
        self._levels = level_rows(levels, self.device)
        self._rendering = rendering_kernels(precision)
        self._traverse = traversal_kernels(torch.float32).traverse
        values = table.detach().contiguous().view(-1).to(precision)
        self._table = values.view(torch.int32 if precision.itemsize == 2 else torch.int64)
        self.density, self.color = (
            _half_mlp(each, rows, precision) for each, rows in zip(layers, (16, COLOR_ROWS), strict=True)
        )
        self._half_extent = float(grid.half_extent[0])
        self._counters = torch.zeros(NUM_COUNTERS, dtype=torch.int32, device=self.device)
        self._scalars = torch.zeros(NUM_SCALARS, device=self.device)
        self._blocks = [t.contiguous().view(torch.uint8) for t in (grid.cells, grid.blocks)]

    @torch.no_grad()
    def render(self, rays: Rays, step: float, box: Float[Tensor, "2 3"]) -> RenderOutput:
        """Render a row of rays on black, with samples at this distance; those without a direction are empty.

        box: around the occupied cells, where the grid is [−1, 1]³.
        The host waits for the device twice: for the number of samples, and for the chunks they are divided into.
        """
        origins, directions = rays.origins.contiguous(), rays.directions.nan_to_num().contiguous()
        self._scalars[STEP] = step
        offsets = self._count(origins, directions, box)
        total = int(offsets[-1])
        marks = SAMPLES_PER_CHUNK * torch.arange(
            1, max(1, -(-total // SAMPLES_PER_CHUNK)), device=self.device
        )
        ends = [*torch.searchsorted(offsets, marks.int()).tolist(), len(directions)]
        sizes, start = [0, *offsets[ends].tolist()], 0
        outputs = []
        for end, first, last in zip(ends, sizes, sizes[1:], strict=False):
            chunk = Rays(origins[start:end], directions[start:end])
            outputs.append(self._render_chunk(chunk, offsets[start : end + 1] - first, last - first, box))
            start = end
        color, opacity, distance = (torch.cat(values) for values in zip(*outputs, strict=True))
        return RenderOutput(color, opacity, distance)

    def _sample(
        self,
        origins: Tensor,
        directions: Tensor,
        box: Tensor,
        offsets: Tensor,
        per_ray: Tensor,
        to: list[Tensor],
    ) -> None:
        """Count samples or, if `to` holds buffers for them, write them."""
        far = FAR * self._half_extent if self.grid.contracted else FAR_BOUNDED
        self._counters[NUM_RAYS] = len(origins)
        jitter = torch.full_like(origins[:, 0], 0.5)
        launch(
            self._traverse, len(origins), self._counters, self._scalars, *self._blocks, box,
            self.grid.center[None].contiguous(), self._half_extent, self.near, far, self.grid.contracted, origins,
            directions, jitter, len(to[0]) > 0, offsets, per_ray, *to,
        )  # fmt: skip

    def _buffers(self, count: int) -> list[Tensor]:
        """Return buffers for the positions, distances, lengths and rays of samples."""
        floats = [torch.empty(count, *shape, device=self.device) for shape in ((3,), (), ())]
        return [*floats, torch.empty(count, dtype=torch.int32, device=self.device)]

    def _count(self, origins: Tensor, directions: Tensor, box: Tensor) -> Tensor:
        """Return the offset of the first sample of each ray, followed by the number of samples."""
        offsets = torch.zeros(len(origins) + 1, dtype=torch.int32, device=self.device)
        per_ray = torch.zeros_like(offsets[1:])
        self._sample(origins, directions, box, offsets, per_ray, self._buffers(0))
        torch.cumsum(per_ray, 0, dtype=torch.int32, out=offsets[1:])
        return offsets

    def _render_chunk(
        self, rays: Rays, offsets: Tensor, count: int, box: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if count == 0:
            nothing = rays.origins.new_zeros(len(rays.origins))
            return torch.zeros_like(rays.origins), nothing, nothing
        samples = self._buffers(count)
        self._sample(rays.origins, rays.directions, box, offsets, torch.empty_like(offsets[1:]), samples)
        positions, distances, lengths, owners = samples
        self._counters[NUM_CANDIDATES] = count
        self._counters[NUM_SAMPLES] = count
        capacity = -(-count // 8) * 8
        values = Activations(self.density, capacity, trains=False)
        launch(
            self._rendering.encode, (len(self._levels), count), self._counters, positions, self._table, self._levels,
            values.inputs[0],
        )  # fmt: skip
        self.density.forward(values)
        geometry = values.outputs
        values = Activations(self.color, capacity, trains=False)
        launch(
            self._rendering.color_inputs,
            count,
            self._counters,
            geometry,
            rays.directions,
            owners,
            values.inputs[0],
        )
        self.color.forward(values)
        density = geometry[0, :count].clamp(max=MAX_LOG_DENSITY).exp() / self.density_unit
        color = values.outputs[:3, :count].sigmoid().mT.contiguous()
        found = composite(
            density, lengths, color, distances, offsets=offsets.long(), stop_below=MIN_TRANSMITTANCE
        )
        assert found.color is not None
        assert found.distance is not None
        return found.color, found.opacity, found.distance


def render_view(
    renderer: HashRenderer, camera: Camera, background: Tensor, step: float, box: Tensor
) -> RenderOutput:
    """Render the view of a camera on a background, on the device of the renderer."""
    camera = camera.to(renderer.device)
    rays = rays_of(camera)
    found = renderer.render(Rays(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)), step, box)
    output = empty_output(camera, background)
    color = (found.color + (1 - found.opacity)[:, None] * background).clamp(0, 1)
    opacity, distance = found.opacity.view_as(output.opacity), found.distance.view_as(output.distance)
    return RenderOutput(color.view_as(output.color), opacity, distance)


def _half_mlp(layers: nn.ModuleList, output_rows: int, precision: torch.dtype) -> HalfMlp:
    """Copy the weights of an MLP."""
    given: list[Linear] = [
        (layer.weight.detach(), layer.bias.detach()) for layer in layers if isinstance(layer, nn.Linear)
    ]
    mlp = HalfMlp([given[0][0].shape[1], *(len(bias) for _, bias in given)], output_rows)
    flat = given[0][0].new_zeros(mlp.num_weights)
    values = [t.flatten() for layer in given for t in layer]
    indices = torch.cat([t.flatten() for t in mlp.indices(0)]).to(flat.device)
    flat[indices] = torch.cat(values)
    mlp.place(flat, flat.to(precision), flat)
    return mlp
