"""Time depth maps against color for an 800 × 800 view, and previews (quick_look) of 400 × 400.

python benchmarks/bench_depth.py
python benchmarks/bench_depth.py --field field.safetensors --scene ../shared/data/chair

By default a shell volume, as in bench_march_voxels.py, viewed from outside; or a trained field, rendered from the first
test view of a scene. Ratios are medians of alternating runs. CPU time is the sum over all threads: on a busy machine it
is more reliable than wall-clock time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_march_voxels import SHELL, SIZE, shell
from timing import machine, record

from unrender import Camera, load_field, load_scene, measure_depth, quick_look

SIDE, QUICK_SIDE = 800, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--field", type=Path, help="file written by save_field or by a run")
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    field, camera = (
        _shell() if options.field is None else (load_field(options.field), _first_test_camera(options.scene))
    )
    large, small = camera.resize(SIDE, SIDE), camera.resize(QUICK_SIDE, QUICK_SIDE)
    works = {
        "color": lambda: field.render(large),
        "depth": lambda: measure_depth(field, large),
        "quick preview": lambda: quick_look(field, small),
    }
    for work in works.values():
        work()
    times = {name: [] for name in works}
    for _ in range(options.repeats):
        for name, work in works.items():
            times[name].append(_spent(work))
    for name, spent in times.items():
        clock, processor = (statistics.median(each) for each in zip(*spent, strict=True))
        print(f"{name}: {clock:.2f} s, {processor:.2f} s of CPU time")
    for i, what in enumerate(("wall-clock", "CPU")):
        ratios = [d[i] / c[i] for c, d in zip(times["color"], times["depth"], strict=True)]
        print(f"depth / color, {what} time: {statistics.median(ratios):.2f}")
        if options.field is None and what == "wall-clock":
            color, depth = (
                statistics.median(spent[0] for spent in times[name]) for name in ("color", "depth")
            )
            record("depth/time", f"{statistics.median(ratios):.2f} times ({depth:.1f} s, {color:.1f} s)")


def _spent(work: Callable[[], object]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def _shell() -> tuple[object, Camera]:
    center = torch.full((3,), SIZE / 2)
    eye = center + torch.tensor([1.1, 0.7, -2.2]) * SHELL * SIZE
    return shell(), Camera.look_at(eye, center, fov_degrees=55.0, height=SIDE, width=SIDE)


def _first_test_camera(scene: Path) -> Camera:
    return load_scene(scene).split("test")[0].camera


if __name__ == "__main__":
    main()
