"""Rows of bench_gpu.py for volumes and radiance fields. Reaches are of one H200, in ms."""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_rows import Bench, Result, check, measurement, timing
from torch import Tensor

from unrender.geometry.rays import rays_of
from unrender.kernels.composite import composite
from unrender.kernels.hash_grid import HashLevels, hash_grid
from unrender.kernels.march_grid import march_grid
from unrender.kernels.march_voxels import march_voxels
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.sample_grid import sample_grid

SAMPLES = 1 << 18
MARKS = (2.0, 5.0, 10.0, 20.0)
"""Seconds of training after which a scene's test views are rendered."""


def levels(bench: Bench) -> HashLevels:
    return HashLevels.geometric(16, bench.size(2048, 64), 16, bench.size(19, 12))


def points_and_table(bench: Bench, count: int) -> tuple[Tensor, Tensor, HashLevels]:
    known = levels(bench)
    return bench.rand(bench.size(count, 500), 3), bench.randn(known.num_entries, 2), known


@check("hash_grid")
def hash_grid_agrees(bench: Bench) -> Result:
    points, table, known = points_and_table(bench, 20_000)
    return bench.agree(lambda p, t: hash_grid(p, t, known), [points, table], tolerance=1e-3)


@check("composite")
def composite_agrees(bench: Bench) -> Result:
    counts = torch.randint(0, 60, (500,), generator=bench.generator)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(bench.device)
    total = int(offsets[-1])
    inputs = [3 * bench.rand(total), 0.1 * bench.rand(total), bench.rand(total, 3), bench.rand(total)]
    return bench.agree(lambda *t: tuple(composite(*t, offsets=offsets, stop_below=1e-3)), inputs)


@check("sample_grid")
def sample_grid_agrees(bench: Bench) -> Result:
    return bench.agree(
        sample_grid, [bench.randn(20, 24, 28, 4), 30 * bench.rand(5000, 3) - 1], tolerance=1e-3
    )


@check("march_grid")
def march_grid_agrees(bench: Bench) -> Result:
    origins, directions = 20 * bench.rand(300, 3), bench.randn(300, 3)
    distances = torch.linspace(0, 12, 50, device=bench.device)[None]
    return bench.agree(
        lambda grid: tuple(march_grid(grid, origins, directions, distances)), [bench.rand(20, 20, 20, 4) / 2]
    )


@timing("hash grid 2^20 points, 16 × 2, 2^19: forward", reach=0.9)
def hash_grid_forward(bench: Bench) -> Callable[[], object]:
    points, table, known = points_and_table(bench, 1 << 20)
    return lambda: hash_grid(points, table, known)


@timing("hash grid 2^20 points, 16 × 2, 2^19: backward", reach=2.5)
def hash_grid_backward(bench: Bench) -> Callable[[], object]:
    points, table, known = points_and_table(bench, 1 << 20)
    table.requires_grad_()
    found = hash_grid(points, table, known)
    cotangent = torch.randn_like(found)
    return lambda: torch.autograd.grad(found, table, cotangent, retain_graph=True)


@timing("composite 2^20 samples, 2^15 rays: forward + backward")
def composite_both(bench: Bench) -> Callable[[], object]:
    rays = bench.size(1 << 15, 20)
    inputs = [t.requires_grad_() for t in (bench.rand(rays, 32), bench.rand(rays, 32, 3))]
    lengths = torch.full_like(inputs[0], 0.1)

    def work() -> object:
        found = composite(inputs[0], lengths, inputs[1])
        assert found.color is not None
        return torch.autograd.grad(found.color.sum(), inputs)

    return work


@timing("march_grid 128³ × 4, 98,304 rays of 150: forward + backward", reach=4.0)
def march_grid_both(bench: Bench) -> Callable[[], object]:
    side, rays = bench.size(128, 12), bench.size(98_304, 30)
    grid = (bench.rand(side, side, side, 4) / 10).requires_grad_()
    origins, directions = (
        side * bench.rand(rays, 3),
        torch.nn.functional.normalize(bench.randn(rays, 3), dim=-1),
    )
    distances = torch.linspace(-side, side, bench.size(150, 20), device=bench.device)[None]

    def work() -> object:
        found = march_grid(grid, origins, directions, distances)
        return torch.autograd.grad(found.color.sum() + found.opacity.sum(), grid)

    return work


def voxels_and_rays(bench: Bench, side: int, count: int) -> tuple[GridRays, Tensor, Tensor, VoxelTable]:
    """Return a thick shell of voxels, and rays towards it from all around."""
    axis = torch.arange(side) + 0.5 - side / 2
    far = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    table = VoxelTable.from_mask((far > 0.3 * side) & (far < 0.36 * side)).to(bench.device)
    forward = torch.nn.functional.normalize(bench.randn(count, 3), dim=-1)
    origins = side / 2 - 1.5 * side * forward + 0.2 * side * bench.randn(count, 3)
    near, far_end = torch.full_like(origins[:, 0], float(side)), torch.full_like(origins[:, 0], 2.0 * side)
    rays = GridRays(origins, forward, near, far_end, bench.rand(count), bench.randn(count, 9))
    return rays, bench.randn(table.num_corners) - 1, bench.randn(table.num_corners, 27) / 3, table


@check("march_voxels")
def march_voxels_agrees(bench: Bench) -> Result:
    rays, *values, table = voxels_and_rays(bench, 24, 200)
    return bench.agree(lambda d, h: tuple(march_voxels(rays, d, h, table, Strides(0.7))), values)


@timing("march_voxels 256³ shell, 16,384 rays: forward + backward", reach=4.0)
def march_voxels_both(bench: Bench) -> Callable[[], object]:
    rays, *values, table = voxels_and_rays(bench, bench.size(256, 16), bench.size(16_384, 50))
    leaves = [value.requires_grad_() for value in values]

    def work() -> object:
        found = march_voxels(rays, *leaves, table, Strides(0.7, skip=1e-3, stop=1e-3))
        return torch.autograd.grad(found.color.sum() + found.opacity.sum(), leaves)

    return work


class GraphRun:
    """A hash field in training by graph steps, standing alone: schedule, pruning, test views."""

    def __init__(self, bench: Bench, scene_folder: Path, seed: int = 0) -> None:
        from unrender.data.pixels import PixelSource
        from unrender.data.scenes import load_scene
        from unrender.fields.hash_nerf import HashNeRF
        from unrender.fields.schedules import HashSchedule
        from unrender.fields.trainable import FieldOptions
        from unrender.training.graph_step import GraphStep, HashParameters, StepSettings
        from unrender.training.initial_occupancy import find_space

        self.bench, start = bench, time.perf_counter()
        self.scene = load_scene(scene_folder)
        log2, cells = bench.size(19, 10), bench.size(128, 16)
        schedule = HashSchedule(occupancy_resolution=cells, finest_level=bench.size(2048, 64))
        source = PixelSource(self.scene.split("train"), memory_mib=8000)
        pixels = source.on_device(bench.device)
        assert pixels is not None
        self.loading = time.perf_counter() - start
        options = FieldOptions(table_log2=log2, schedule=schedule)
        region = find_space(self.scene, self.scene.split("train"), "auto", cells)
        field = HashNeRF.create(region, options, torch.Generator().manual_seed(seed))
        box = field.scene_box
        self.half_side = float(box.half_extent.max())
        layers = [
            [(layer.weight.detach().to(bench.device), layer.bias.detach().to(bench.device)) for layer in each]
            for each in (field.density_layers, field.color_layers)
        ]
        parameters = HashParameters(
            field.table.detach().to(bench.device),
            field.levels,
            *layers,
            field.background.detach().to(bench.device),
        )
        settings = StepSettings(
            tuple(box.center.tolist()), self.half_side, box.contracted, field.near,
            1000 * self.half_side if box.contracted else 1e9, field.density_unit,
            samples=bench.size(SAMPLES, 1 << 12), most_rays=bench.size(1 << 17, 512), seed=seed,
        )  # fmt: skip
        self.occupied, self.cells = field.occupancy.occupied.to(bench.device), cells
        self.step = GraphStep(parameters, pixels, self.occupied, settings)
        self.taken = 0
        bench.synchronize()
        self.starting = time.perf_counter() - start

    def advance(self, progress: float, count: int = 16) -> None:
        """Take some steps, then prune where that is due."""
        side = 512 if progress >= 0.4 else 256 if progress >= 0.1 else 128
        self.step.run(count, 2e-2 * 0.03**progress, 2 * self.half_side / side)
        before, self.taken = self.taken, self.taken + count
        if self.taken // 112 != before // 112:
            self.prune()
        if progress >= 0.25 and len(self.occupied) == self.cells:
            for axis in range(3):
                self.occupied = self.occupied.repeat_interleave(2, axis)
            self.step.set_occupied(self.occupied)

    def prune(self) -> None:
        stays = (self.step.weights_of_cells > 0.05).float()[None, None]
        left = self.occupied & (torch.nn.functional.max_pool3d(stays, 3, 1, 1)[0, 0] > 0)
        if 0 < int(left.sum()) <= 0.95 * self.step.num_occupied:
            self.occupied = left
            self.step.set_occupied(left)
        else:
            self.step.largest.zero_()

    def psnr(self, most: int = 25) -> tuple[float, float]:
        """Return the mean PSNR of test views on white, and the seconds that rendering one takes."""
        from PIL import Image

        frames, values, seconds = self.scene.split("test")[:most], [], []
        for frame in frames:
            rays = rays_of(frame.camera.to(self.bench.device))
            self.bench.synchronize()
            start = time.perf_counter()
            color, opacity = self.step.render(
                rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3), 2 * self.half_side / 512
            )
            self.bench.synchronize()
            seconds.append(time.perf_counter() - start)
            with Image.open(frame.image_path) as image:
                packed = bytearray(image.convert("RGBA").tobytes())
            truth = (
                torch.frombuffer(packed, dtype=torch.uint8).view(-1, 4).to(self.bench.device).float() / 255
            )
            white = truth[:, :3] * truth[:, 3:] + 1 - truth[:, 3:]
            error = ((color + 1 - opacity[:, None]).clamp(0, 1) - white).square().mean()
            values.append(-10 * math.log10(max(float(error), 1e-10)))
        return sum(values) / len(values), sorted(seconds)[len(seconds) // 2]


def scene_folder(bench: Bench) -> Path:
    """Return the chair, or else a scene generated on the CPU."""
    if "scene" not in bench.kept:
        folder = bench.file("chair") if not bench.tiny else None
        if folder is None:
            import os

            from unrender.data.demo_scene import save_demo_scene

            folder = Path(tempfile.mkdtemp()) / "scene"
            before = os.environ.pop("UNRENDER_KERNELS", None)
            save_demo_scene(
                folder, size=bench.size(400, 24), num_train=bench.size(60, 6), num_test=bench.size(10, 2)
            )
            if before is not None:
                os.environ["UNRENDER_KERNELS"] = before
        bench.kept["scene"] = folder
    return bench.kept["scene"]


@measurement("hash field step of 2^18 samples and its parts", order=150)
def step_parts(bench: Bench) -> Result:
    run = GraphRun(bench, scene_folder(bench))
    for _ in range(bench.size(20, 1)):
        run.advance(0.0)
    step = run.step

    def once(work: Callable[[], object]) -> float:
        return bench.time(work, 0.2).get("stream_ms", 0.0)

    parts: Result = {
        name: once(work)
        for name, work in {
            "graph": lambda: step.run(1, 1e-3, run.half_side / 64),
            "place": step._place_samples,
            "encode + networks": step._evaluate_networks,
            "networks forward": lambda: (step.density.forward(), step.color.forward()),
            "evaluate": step._evaluate,
            "color backward": lambda: step.color.backward(16),
            "density backward": lambda: step.density.backward(32),
            "back": step._go_back,
            "levenberg_marquardt": step._descend,
        }.items()
    }
    return parts | {"status": step.status()._asdict(), "reach": 2.0, "starting": run.starting}


@measurement("hash field trained for 20 s: PSNR of test views on white", order=210)
def trained(bench: Bench) -> Result:
    run, spent, found = GraphRun(bench, scene_folder(bench)), 0.0, {}
    total = MARKS[-1]
    marks = list(MARKS) if not bench.tiny else [1e-9]
    while marks:
        start = time.perf_counter()
        run.advance(min(spent / total, 1.0), bench.size(16, 4))
        status = run.step.status()
        spent += time.perf_counter() - start
        if status.skipped_in_a_row >= 16:
            run.step.return_to_good()
        elif run.taken % 512 == 0:
            run.step.remember()
        if spent >= marks[0]:
            psnr, view = run.psnr(25 if not bench.tiny else 1)
            found[f"{marks.pop(0):g} s"] = {
                "psnr": psnr,
                "view_ms": 1000 * view,
                **status._asdict(),
                "ms a step": 1000 * spent / run.taken,
                "occupied": run.step.num_occupied,
            }
    return {"scene": str(scene_folder(bench)), "loading": run.loading, "starting": run.starting, **found}


@measurement("hash field: bits of two trainings", order=205)
def same_bits(bench: Bench) -> Result:
    states = []
    for _ in range(2):
        run = GraphRun(bench, scene_folder(bench))
        for i in range(bench.size(20, 1)):
            run.advance(i / 40, bench.size(16, 2))
        states.append([t.clone() for t in run.step._state()])
    same = [torch.equal(a, b) for a, b in zip(*states, strict=True)]
    assert all(same), f"two trainings differ: {same}"
    return {"same_bits": True}
