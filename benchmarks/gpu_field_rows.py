"""Rows of bench_gpu.py for volumes and radiance fields. Reaches are of one H200, in ms."""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from gpu_rows import Bench, Result, check, measurement, timing
from torch import Tensor

from unrender.kernels.composite import composite
from unrender.kernels.hash_grid import HashLevels, hash_grid
from unrender.kernels.march_grid import march_grid
from unrender.kernels.march_voxels import march_voxels
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.sample_grid import sample_grid

if TYPE_CHECKING:
    from unrender.data.frames import Frame
    from unrender.training.graph_training import GraphOptions


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
    """A hash field in training by graph steps, from the scene's files on."""

    def __init__(
        self,
        bench: Bench,
        options: "GraphOptions",
        *,
        table_log2: int = 20,
        white: float = 0.5,
        seed: int = 0,
    ) -> None:
        from unrender.data.pixels import PixelSource
        from unrender.data.scenes import load_scene
        from unrender.fields.hash_nerf import HashNeRF
        from unrender.fields.trainable import FieldOptions
        from unrender.training.field_training import Objective
        from unrender.training.graph_training import GraphTraining
        from unrender.training.initial_occupancy import find_space

        bench.synchronize()
        self.bench, start = bench, time.perf_counter()
        self.scene = load_scene(scene_folder(bench))
        frames = self.scene.split("train")
        pixels = PixelSource(frames, memory_mib=8000).on_device(bench.device)
        assert pixels is not None
        bench.synchronize()
        self.seconds = {"loading": time.perf_counter() - start}
        cells = bench.size(128, 16)
        region = find_space(self.scene, frames, "auto", cells, pixels)
        self.seconds["carved after"] = time.perf_counter() - start
        sizes = FieldOptions(table_log2=bench.size(table_log2, 10), schedule=options.schedule)
        field = HashNeRF.create(region, sizes, torch.Generator().manual_seed(seed)).to(bench.device)
        self.seconds["field after"] = time.perf_counter() - start
        self.training = GraphTraining(field, pixels, options, Objective(0.0, white_fraction=white), seed)
        bench.synchronize()
        self.seconds["starting"] = time.perf_counter() - start
        self.taken, self.spent = 0, 0.0

    def train(self, until: float, total: float, steps: int | None = None) -> None:
        """Train until so many seconds of the total are spent."""
        while self.spent < until:
            start = time.perf_counter()
            for _ in range(16 if steps is None else steps):
                self.training.step(min(self.spent / total, 1.0))
            status = self.training.graph_step.status()
            self.taken = status.updates
            self.spent += time.perf_counter() - start
            assert status.skipped_in_a_row < 16, "training diverged"

    def psnr(self, split: str, background: float, every: int) -> tuple[float, float]:
        """Return the mean PSNR of views on gray, and the median of the seconds that rendering one takes."""
        values, seconds = [], []
        color = torch.full((3,), background, device=self.bench.device)
        for frame in self.scene.split(split)[::every]:
            camera, truth = frame.camera.to(self.bench.device), self.truth(frame)
            self.bench.synchronize()
            start = time.perf_counter()
            rendered = self.training.field.render(camera, color)
            self.bench.synchronize()
            seconds.append(time.perf_counter() - start)
            expected = truth[..., :3] * truth[..., 3:] + background * (1 - truth[..., 3:])
            values.append(-10 * math.log10(max(float((rendered.color - expected).square().mean()), 1e-10)))
        return sum(values) / len(values), sorted(seconds)[len(seconds) // 2]

    def truth(self, frame: "Frame") -> Tensor:
        """Return an image; it is read once for all runs."""
        from PIL import Image

        known = self.bench.kept.setdefault("truth", {})
        if frame.name not in known:
            with Image.open(frame.image_path) as image:
                values = torch.frombuffer(bytearray(image.convert("RGBA").tobytes()), dtype=torch.uint8)
                known[frame.name] = values.view(image.height, image.width, 4).to(self.bench.device)
        return known[frame.name].float() / 255

    def figures(self) -> Result:
        """Return the quality and the state of the training."""
        count = len(self.scene.split("test"))
        psnr, view = self.psnr("test", 1.0, -(-count // 25) if count > 25 and not self.bench.tiny else 1)
        others = {
            "on black": self.psnr("test", 0.0, 20)[0],
            "training views on white": self.psnr("train", 1.0, 20)[0],
            "training views on black": self.psnr("train", 0.0, 20)[0],
        }
        status = self.training.graph_step.status()
        ms = 1000 * self.spent / max(self.taken, 1)
        occupied = self.training.field.occupancy.num_occupied
        return {
            "psnr": psnr,
            **others,
            "view_ms": 1000 * view,
            "ms a step": ms,
            "occupied": occupied,
            "status": status._asdict(),
        }


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


def graph_options(bench: Bench, **changes: object) -> "GraphOptions":
    from unrender.fields.schedules import HashSchedule
    from unrender.training.graph_training import GraphOptions

    finest = bench.size(int(str(changes.pop("finest_level", 2048))), 64)
    schedule = HashSchedule(occupancy_resolution=bench.size(128, 16), finest_level=finest)
    return GraphOptions(**({"samples": bench.size(1 << 18, 1 << 11), "schedule": schedule} | changes))


@measurement("hash field step of 2^18 samples and its parts", order=150)
def step_parts(bench: Bench) -> Result:
    run = GraphRun(bench, graph_options(bench))
    for _ in range(bench.size(300, 1)):
        run.training.step(0.0)
    step, field = run.training.graph_step, run.training.field
    result: Result = {"seconds to start": run.seconds, "reach": 2.0}
    for name, progress in (("", 0.0), (" of the end", 0.5)):
        for _ in range(bench.size(300, 1)):
            run.training.step(progress)
        works = {
            "graph": lambda: step.run(1, 1e-3, field.step),
            "sample rays": step._sample_rays,
            "select visible": step._select_visible,
            "encode": lambda: step._encode(),
            "density of candidates": lambda: step.density.forward(step.candidate_values),
            "render": step._render,
            "backward": step._backward,
            "color backward": lambda: step.color.backward(step.color_values, 16),
            "density backward": lambda: step.density.backward(step.density_values, 32),
            "update": step._update,
        }
        for part, work in works.items():
            result[part + name] = bench.time(work, 0.1).get("stream_ms", 0.0)
        result["status" + name] = step.status()._asdict()
    return result


def variant(
    name: str, seconds: float, order: int, *, table_log2: int = 20, white: float = 0.5, **changes: object
) -> None:
    """Add a training for some seconds with a changed schedule."""

    @measurement(f"hash field trained for {seconds:g} s, {name}: test views on white", order=order)
    def trained(bench: Bench) -> Result:
        given = {"samples": bench.size(int(changes["samples"]), 1 << 11)} if "samples" in changes else {}
        run = GraphRun(bench, graph_options(bench, **(changes | given)), table_log2=table_log2, white=white)
        total = seconds if not bench.tiny else 1e-9
        run.train(total, total, None if not bench.tiny else 2)
        return {"scene": str(scene_folder(bench)), "seconds to start": run.seconds, **run.figures()}


variant("as it is", 5.0, 210)
variant("as it is", 15.0, 220)
variant("196,608 samples", 15.0, 221, samples=196_608, candidates_per_sample=4.0)
variant("finest level 1024", 15.0, 222, finest_level=1024)
variant("rate 1e-2", 15.0, 223, learning_rate=1e-2)
variant("2^19 entries, random backgrounds", 15.0, 224, table_log2=19, white=0.0)
variant("as it is", 60.0, 230)
variant("finest level 1024", 60.0, 231, finest_level=1024)
variant("rate 1e-2", 60.0, 232, learning_rate=1e-2)


@measurement("hash field: bits of two trainings", order=205)
def same_bits(bench: Bench) -> Result:
    states = []
    for _ in range(2):
        run = GraphRun(bench, graph_options(bench))
        for i in range(bench.size(300, 3)):
            run.training.step(i / bench.size(600, 6))
        states.append([t.clone() for t in run.training.graph_step.state()])
    same = [torch.equal(a, b) for a, b in zip(*states, strict=True)]
    assert all(same), f"two trainings differ: {same}"
    return {"same_bits": True}


def volume(resolution: int) -> None:
    """Add a fit of voxels for a minute."""

    @measurement(f"fit_volume for 60 s, {resolution}³ voxels: test views on white", order=300)
    def fitted(bench: Bench) -> Result:
        return fit_voxels(bench, resolution)


for _resolution in (256, 384):
    volume(_resolution)


def fit_voxels(bench: Bench, resolution: int) -> Result:
    from unrender.data.scenes import load_scene
    from unrender.tasks.volume.config import FitVolume
    from unrender.tasks.volume.fit_volume import fit_volume

    if bench.tiny:
        config = FitVolume(steps=2, resolution=16, device="cpu")
    else:
        config = FitVolume(minutes=1.0, resolution=resolution, device=str(bench.device))
    scene, white = load_scene(scene_folder(bench)), torch.ones(3, device=bench.device)
    *_, last = fit_volume(scene, config)
    values = []
    for frame in scene.split("test")[: bench.size(25, 1)]:
        truth = frame.load_image()
        rendered = last.result.render(frame.camera, white).color.cpu()
        assert truth.alpha is not None
        error = (rendered - torch.lerp(torch.ones(3), truth.image, truth.alpha[..., None])).square().mean()
        values.append(-10 * math.log10(max(float(error), 1e-10)))
    return {
        "psnr": sum(values) / len(values),
        "steps": last.index,
        "ms a step": 1000 * last.seconds / last.index,
        "reach": 33.5,
    }
