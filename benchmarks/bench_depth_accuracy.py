"""Measure the depth accuracy of a trained field, on the test views of a scene with ground-truth depth.

python benchmarks/bench_depth_accuracy.py ../shared/data/chair field.safetensors --inverted-depth-range 8

Compares ray distances at pixels that are fully covered and not at a depth edge: the true depth varies by less than
`--edge` within a window of 3 × 3. 8-bit depth images are quantized: NeRF-synthetic to 0.031 units.
"""

import argparse
from pathlib import Path

import torch
from timing import machine, record
from torch.nn.functional import max_pool2d

from unrender import load_field, load_scene, measure_depth, rays_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("field", type=Path, help="file written by save_field or by a run")
    parser.add_argument("--inverted-depth-range", type=float)
    parser.add_argument("--edge", type=float, default=0.1, help="in world units")
    parser.add_argument("--within", type=float, default=0.05, help="in world units")
    options = parser.parse_args()
    print(machine())
    field = load_field(options.field)
    scene = load_scene(options.scene, inverted_depth_range=options.inverted_depth_range)
    errors, num_valid = {"median": [], "expected": [], "first_surface": []}, 0
    for frame in scene.split("test"):
        view, found = frame.load(), measure_depth(field, frame.camera)
        cosines = rays_of(frame.camera).directions @ frame.camera.camera_from_world[2, :3]
        truth = view.depth / cosines
        valid = _far_from_edges(truth, options.edge) & (view.depth > 0)
        if view.alpha is not None:
            valid &= view.alpha == 1
        num_valid += int(valid.sum())
        for kind, values in errors.items():
            values.append((getattr(found, f"{kind}_distance") - truth).abs()[valid & found.valid])
    for kind, values in errors.items():
        error = torch.cat(values)
        print(
            f"{kind}: mean error {error.mean():.4f}, median {error.median():.4f}; "
            f"{100 * float((error <= options.within).sum()) / num_valid:.2f} % of {num_valid:,} pixels "
            f"within {options.within}"
        )
        if kind == "median" and scene.name == "chair":
            percent = 100 * float((error <= options.within).sum()) / num_valid
            record("depth/chair", f"{error.mean():.4f} units; {percent:.2f} %")


def _far_from_edges(truth: torch.Tensor, edge: float) -> torch.Tensor:
    highest = max_pool2d(truth[None], 3, 1, 1)[0]
    lowest = -max_pool2d(-truth[None], 3, 1, 1)[0]
    return highest - lowest < edge


if __name__ == "__main__":
    main()
