"""Rows of bench_gpu.py for whole tasks: steps of tutorials, trainings, commands, and the first use of all kernels."""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from gpu_mesh_rows import cow
from gpu_rows import ROWS, Bench, Result, measurement, timing
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.save_transforms import save_transforms
from unrender.fields.nerf import NeRF
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.rays import rays_through
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.scene_box import SceneBox
from unrender.io.clouds import save_cloud
from unrender.io.images import save_image
from unrender.io.meshes import save_mesh
from unrender.render.lights import AmbientLight, DirectionalLight, Material
from unrender.render.march import march
from unrender.render.mesh import render_mesh
from unrender.render.sample import RaySamples

DISTANCE, FOV_DEGREES = 2.7, 60.0
COMMAND_SECONDS = 75.0
"""Time a command may take, compiling included."""


def images_of_cow(bench: Bench, count: int, size: int) -> tuple[Tensor, Camera, Mesh]:
    """Return RGBA views of the cow, of extent 1 around the origin, from a circle around it that rises and falls."""
    mesh = cow(bench)
    centered = mesh.vertices - mesh.vertices.mean(0)
    mesh = mesh.replace(vertices=centered / centered.abs().max())
    angles = torch.linspace(-math.pi, math.pi, count + 1, device=bench.device)[:-1]
    eyes = torch.stack([angles.sin(), 0.4 * (3 * angles).sin(), angles.cos()], -1)
    eyes = DISTANCE * torch.nn.functional.normalize(eyes, dim=-1)
    cameras = Camera.look_at(eyes, fov_degrees=FOV_DEGREES, height=size, width=size)
    light = DirectionalLight(torch.tensor([-0.6, 0.7, 0.5], device=bench.device), 0.65)
    shading: dict[str, Any] = {"lights": (AmbientLight(0.35), light), "material": Material(specular=0.25)}
    views = [render_mesh(mesh, cameras[i], background=None, supersampling=2, **shading) for i in range(count)]
    return torch.stack(views).clamp(0, 1), cameras, mesh


@timing("tutorial step: volume (128³, 10 views of 128²)", reach=4.0, pytorch3d=18.5, order=104)
def volume_step(bench: Bench) -> Callable[[], object]:
    from unrender.tasks.volume.tutorial import fit_tutorial_volume

    rgba, cameras, _ = images_of_cow(bench, bench.size(40, 10), bench.size(128, 12))
    fit = fit_tutorial_volume(
        rgba[..., :3] * rgba[..., 3:], rgba[..., 3], cameras, size=bench.size(128, 12), steps=100_000
    )
    return lambda: next(fit)


def nerf_row(precision: str, note: str) -> None:
    """Add the NeRF tutorial, with matrix products in a precision that torch's users choose."""

    @timing(f"tutorial step: NeRF (6 × 750 rays, 128 samples){note}", reach=12.0, pytorch3d=35.4, order=104)
    def row(bench: Bench) -> Callable[[], object]:
        step = nerf_step(bench)

        def work() -> None:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision(precision)
            step()
            torch.set_float32_matmul_precision(before)

        return work


nerf_row("highest", "")
nerf_row("high", ", TF32 products")


def nerf_step(bench: Bench) -> Callable[[], None]:
    from unrender.tasks.volume.tutorial import huber

    views, rays, points = 6, bench.size(750, 8), bench.size(128, 6)
    rgba, cameras, _ = images_of_cow(bench, bench.size(40, 6), bench.size(128, 12))
    images, silhouettes = rgba[..., :3] * rgba[..., 3:], rgba[..., 3]
    box = SceneBox.cube(torch.zeros(3), 1.5)
    field = NeRF.tutorial(box, generator=torch.Generator().manual_seed(1)).to(bench.device)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3, fused=True)
    depths = torch.linspace(0.1, 3.0, points, device=bench.device)
    length = 1.5 / field.fine_network.density_unit
    size = images.shape[1]

    def step() -> None:
        chosen = torch.randperm(len(images), device=bench.device)[:views].repeat_interleave(rays)
        pixels = torch.randint(size, (len(chosen), 2), device=bench.device)
        camera = cameras[chosen]
        drawn = rays_through(camera, pixels + 0.5)
        cosines = (drawn.directions * camera.camera_from_world[..., 2, :3]).sum(-1)
        distances = depths / cosines[..., None]
        rendered = march(field, drawn, RaySamples(distances, torch.full_like(distances, length)))
        column, row = pixels.unbind(-1)
        loss = huber(rendered.color, images[chosen, row, column])
        loss = loss + huber(rendered.opacity, silhouettes[chosen, row, column])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def save_scene(bench: Bench, folder: Path, rgba: Tensor, cameras: Camera, mesh: Mesh) -> None:
    """Write a scene, a scan of its mesh and the mesh itself."""
    frames, cameras = [], cameras.to("cpu")
    for i, image in enumerate(rgba.cpu()):
        path = folder / f"{i:03d}.png"
        save_image(image, path)
        frames.append(Frame(path.name, cameras[i], path, "train" if i % 8 else "test"))
    save_transforms(frames, folder / "transforms.json")
    save_mesh(mesh.to("cpu"), folder / "cow.ply")
    scan = sample_points_from_mesh(mesh, bench.size(5000, 300)).points.cpu()
    save_cloud(PointCloud(scan), folder / "scan.ply")


def run_process(arguments: Sequence[object], folder: Path, environment: dict[str, str]) -> Result:
    """Run a process; return its exit code, seconds, and what it said last where it failed."""
    start = time.perf_counter()
    try:
        ended = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=folder, env=os.environ | environment,
            capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.stderr or b""
        return {"code": None, "s": COMMAND_SECONDS, "said": said[-1500:].decode(errors="replace")}
    result: Result = {"code": ended.returncode, "s": time.perf_counter() - start}
    if ended.returncode:
        result["said"] = (ended.stdout[-500:] + ended.stderr)[-2000:]
    return result


def commands(bench: Bench) -> tuple[dict[str, list[object]], dict[str, list[object]]]:
    """Return the commands that make runs, and those that use them; the former in this order."""
    quick: dict[str, list[object]] = {
        "fit-mesh": ["scan.ply", "--steps", bench.size(40, 2)],
        "find-pose": ["cow.ply", "001.png", "--fov-degrees", FOV_DEGREES],
        "find-pose of a cloud": ["cow.ply", "scan.ply"],
        "fit-volume": [
            ".",
            "--steps",
            bench.size(200, 60),
            "--resolution",
            bench.size(128, 16),
            "--no-video",
        ],
        "fit-nerf": [".", "--steps", bench.size(400, 4), "--no-video"],
        "fit-nerf opaque": [".", "--steps", bench.size(100, 2), "--space", "unbounded", "--no-video"],
    }
    if bench.tiny:
        for name in ("find-pose", "find-pose of a cloud"):
            quick[name] += ["--num-views", 20, "--num-starts", 2, "--resolution", 32]
        for name in ("fit-nerf", "fit-nerf opaque"):
            quick[name] += ["--samples", 1024, "--table-log2", 10]
    then: dict[str, list[object]] = {
        "render": ["fit-nerf", "--views", bench.size(8, 1), "--video", "none"],
        "render volume": ["fit-volume", "--views", bench.size(8, 1), "--video", "none"],
        "depth": ["fit-nerf"],
        "export points": ["fit-nerf", "--to", "points"],
        "export mesh": ["fit-volume", "--to", "mesh"],
        "eval": ["fit-nerf"],
    }
    return quick, then


@measurement("fit_nerf of photos, unbounded, with exposure, for 10 s", order=250)
def photos(bench: Bench) -> Result:
    """Train on the photos of a fox or, without the shared data, on opaque images of the cow in unbounded space."""
    from unrender.data.scenes import load_scene
    from unrender.tasks.nerf.config import FitNerf
    from unrender.tasks.nerf.fit_nerf import fit_nerf

    folder = None if bench.tiny else bench.file("fox")
    if folder is None:
        folder = Path(tempfile.mkdtemp())
        rgba, cameras, mesh = images_of_cow(bench, bench.size(48, 9), bench.size(400, 24))
        save_scene(
            bench, folder, torch.cat([rgba[..., :3], torch.ones_like(rgba[..., 3:])], -1), cameras, mesh
        )
    scene = load_scene(folder)
    shared: dict[str, Any] = {"space": "unbounded", "exposure": "per_image"}
    config = FitNerf(minutes=10 / 60, device=str(bench.device), **shared)
    if bench.tiny:
        config = FitNerf(steps=2, samples=1024, table_log2=10, device="cpu", **shared)
    start, began = time.perf_counter(), 0.0
    for step in fit_nerf(scene, config):
        began = began or time.perf_counter() - start
        last = step
    seconds = time.perf_counter() - start
    values = []
    for frame in scene.split("test")[: bench.size(6, 1)]:
        rendered = last.result.render(frame.camera.to(bench.device)).color.cpu()
        error = float((rendered - frame.load_image().image).square().mean())
        values.append(-10 * math.log10(max(error, 1e-10)))
    return {
        "scene": str(folder),
        "steps": last.index,
        "first step after s": began,
        "ms a step": 1000 * (seconds - began) / max(last.index - 1, 1),
        "psnr of training rays": last.losses["psnr"],
        "psnr": sum(values) / max(len(values), 1),
    }


@measurement("commands on the device, each a process, several at once", order=260)
def all_commands(bench: Bench) -> Result:
    """Run all commands: first those that make runs, then those that use them. Times are of a busy machine."""
    rgba, cameras, mesh = images_of_cow(bench, bench.size(48, 9), bench.size(200, 24))
    folder = Path(tempfile.mkdtemp())
    save_scene(bench, folder, rgba, cameras, mesh)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}

    def run(name: str, arguments: list[object]) -> Result:
        said = name.split(" ")[0]
        given = ["-m", "unrender", said, *arguments]
        if said != "doctor":
            given += ["--device", bench.device, "--output", name.replace(" ", "-")]
        result = run_process(given, folder, environment)
        print(f"{name}: {json.dumps(result)[:600]}", flush=True)
        return result

    results: Result = {}
    start = time.perf_counter()
    with ThreadPoolExecutor(1 if bench.tiny else 6) as pool:
        for wave in ({"doctor": []}, *commands(bench)):
            started = {name: pool.submit(run, name, arguments) for name, arguments in wave.items()}
            results |= {name: future.result() for name, future in started.items()}
    results["seconds in all"] = time.perf_counter() - start
    wrong = [name for name, found in results.items() if isinstance(found, dict) and found["code"] != 0]
    assert not wrong, f"{', '.join(wrong)} failed: {json.dumps({name: results[name] for name in wrong})}"
    return results


@measurement("first use of all kernels, with an empty cache", order=20)
def first_use(bench: Bench) -> Result:
    """Use every kernel in a new process whose Warp cache is empty; Warp prints how long each module took."""
    folder = Path(tempfile.mkdtemp())
    environment = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "WARP_CACHE_PATH": str(folder / "cache"),
        "UNRENDER_KERNELS": "warp" if bench.tiny else "fast",
    }
    code = f"import gpu_task_rows; gpu_task_rows.use_all_kernels({str(bench.device)!r})"
    start = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code], env=os.environ | environment, stdout=log, stderr=log
        )
        try:
            exit_code: int | None = process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            exit_code = None
    said = (folder / "log.txt").read_text()
    found = re.findall(r"Module (\S+) \w+ load on device .* took ([\d.]+) ms\s+\((\w+)\)", said)
    compiled = {name: float(ms) for name, ms, how in found if how == "compiled"}
    if exit_code != 0:
        print(said[-1500:], flush=True)
    return {
        "compiled_s": sum(compiled.values()) / 1000,
        "reach_s": 20.0,
        "exit_code": exit_code,
        "modules": compiled,
        "failed_rows": re.findall(r"^row failed: (.*)$", said, re.MULTILINE),
        "process_s": time.perf_counter() - start,
    }


def use_all_kernels(device: str) -> None:
    """Run each check and, on a GPU, each timed work and one training step, at the sizes of a rehearsal."""
    import gpu_field_rows  # its rows are wanted
    import warp as wp

    import unrender.kernels._warp  # noqa: F401  it sets the level of messages

    bench = Bench(torch.device(device), None, tiny=True)
    wp.config.log_level = wp.LOG_INFO
    bench.kept["scene"] = Path(tempfile.mkdtemp())
    rgba, cameras, mesh = images_of_cow(bench, 9, 24)
    save_scene(bench, bench.kept["scene"], rgba, cameras, mesh)
    for row in ROWS:
        timed = row.order in (100, 101, 102, 103, 104) or row.run is gpu_field_rows.step_parts
        if row.order == 0 or (timed and bench.device.type == "cuda"):
            try:
                row.run(bench)
            except Exception as error:  # noqa: BLE001  the other kernels still count
                print(f"row failed: {row.name}: {type(error).__name__}: {error}"[:300])
