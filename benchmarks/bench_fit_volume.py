"""Measure `fit_volume` on real scenes: PSNR and SSIM of held-out views after so many minutes, and memory.

python benchmarks/bench_fit_volume.py ../shared/data/chair --minutes 5 --resolution 256
python benchmarks/bench_fit_volume.py ../shared/data/fox --minutes 15

Views are those of the scene's test split (every 8th frame where it has none), at their full size; transparent
pictures lie before white. The minutes include reading the scene. Nothing else should run on the machine.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from timing import machine, record

from unrender import FitVolume, fit_volume, load_scene, psnr, save_field, save_image, ssim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--resolution", type=int, default=FitVolume.resolution)
    parser.add_argument("--output", type=Path, help="folder for the field and the views")
    options = parser.parse_args()
    print(machine())
    scene = load_scene(options.scene)
    config = FitVolume(
        minutes=options.minutes,
        resolution=options.resolution,
    )
    said = -1.0
    for step in fit_volume(scene, config):
        if step.seconds > said:
            print(
                f"{step.seconds:6.0f} s  step {step.index:5d}  {step.num_voxels:9,d} voxels  "
                f"{step.losses['psnr']:.2f} dB while learning",
                flush=True,
            )
            said = step.seconds + 3 * options.minutes
    values, similar, spent = [], [], 0.0
    for frame in scene.split("test"):
        view, behind = frame.load(), None
        photo = view.image
        if view.alpha is not None:
            behind = torch.ones(3)
            photo = torch.lerp(behind.expand_as(photo), photo, view.alpha[..., None])
        begin = time.perf_counter()
        seen = step.result.render(frame.camera, behind)
        spent += time.perf_counter() - begin
        values.append(psnr(seen.color, photo))
        similar.append(ssim(seen.color, photo))
        if options.output is not None:
            options.output.mkdir(parents=True, exist_ok=True)
            save_image(seen.color, options.output / f"{Path(frame.name).stem}.png")
    if options.output is not None:
        save_field(step.result, options.output / "volume.safetensors")
    print(f"per view: {' '.join(f'{value:.1f}' for value in values)}")
    print(
        f"{len(values)} held-out views: PSNR {sum(values) / len(values):.2f} dB, "
        f"SSIM {sum(similar) / len(similar):.4f}; {spent / len(values):.2f} s a view; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most"
    )
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    record(
        f"fit_volume/{scene.name} {options.minutes:g}",
        f"{sum(values) / len(values):.2f} dB, SSIM {sum(similar) / len(similar):.3f}, {gibibytes:.1f} GiB",
    )


if __name__ == "__main__":
    main()
