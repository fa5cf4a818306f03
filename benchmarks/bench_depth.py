"""Time depth beside color: all kinds of an 800 × 800 view, and the picture of it.

python benchmarks/bench_depth.py

A volume of a shell, as in bench_march_voxels.py, seen whole from outside. Ratios are medians of runs in turn.
"""

import statistics

import torch
from bench_march_voxels import SHELL, SIZE, shell
from timing import machine, record, seconds

from unrender import Camera, measure_depth

SIDE, REPEATS = 800, 5


def main() -> None:
    print(machine())
    field = shell()
    middle = torch.full((3,), SIZE / 2)
    eye = middle + torch.tensor([1.1, 0.7, -2.2]) * SHELL * SIZE
    camera = Camera.look_at(eye, middle, fov_degrees=55.0, height=SIDE, width=SIDE)
    measure_depth(field, camera), field.render(camera)
    colors, depths = [], []
    for _ in range(REPEATS):
        colors.append(seconds(lambda: field.render(camera)))
        depths.append(seconds(lambda: measure_depth(field, camera)))
    ratio = statistics.median(d / c for c, d in zip(colors, depths, strict=True))
    color, depth = statistics.median(colors), statistics.median(depths)
    print(f"color {color:.2f} s, depth {depth:.2f} s, ratio {ratio:.2f}")
    record("depth/time", f"{ratio:.2f} times ({depth:.1f} s, {color:.1f} s)")


if __name__ == "__main__":
    main()
