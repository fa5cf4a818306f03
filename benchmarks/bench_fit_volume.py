"""Measure PSNR and SSIM of `fit_volume` on the test views of real scenes after a number of minutes, and memory.

python benchmarks/bench_fit_volume.py ../shared/data/chair --minutes 5 --resolution 256
python benchmarks/bench_fit_volume.py ../shared/data/fox --minutes 15

The views are those of the scene's test split (every 8th frame if it has none), at full size; images with alpha are
composited on white. The minutes include loading the scene. Run nothing else on the machine.
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
    parser.add_argument("--output", type=Path, help="folder for the field and rendered views")
    options = parser.parse_args()
    print(machine())
    scene = load_scene(options.scene)
    config = FitVolume(
        minutes=options.minutes,
        resolution=options.resolution,
    )
    printed = -1.0
    for step in fit_volume(scene, config):
        if step.seconds > printed:
            print(
                f"{step.seconds:6.0f} s  step {step.index:5d}  {step.result.table.num_voxels:9,d} voxels  "
                f"{step.losses['psnr']:.2f} dB on training rays",
                flush=True,
            )
            printed = step.seconds + 3 * options.minutes
    psnrs, ssims, spent = [], [], 0.0
    for frame in scene.split("test"):
        view, background = frame.load(), None
        photo = view.image
        if view.alpha is not None:
            background = torch.ones(3)
            photo = torch.lerp(background.expand_as(photo), photo, view.alpha[..., None])
        begin = time.perf_counter()
        rendered = step.result.render(frame.camera, background)
        spent += time.perf_counter() - begin
        psnrs.append(psnr(rendered.color, photo))
        ssims.append(ssim(rendered.color, photo))
        if options.output is not None:
            options.output.mkdir(parents=True, exist_ok=True)
            save_image(rendered.color, options.output / f"{Path(frame.name).stem}.png")
    if options.output is not None:
        save_field(step.result, options.output / "volume.safetensors")
    print(f"per view: {' '.join(f'{value:.1f}' for value in psnrs)}")
    print(
        f"{len(psnrs)} test views: PSNR {sum(psnrs) / len(psnrs):.2f} dB, "
        f"SSIM {sum(ssims) / len(ssims):.4f}; {spent / len(psnrs):.2f} s per view; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB peak memory"
    )
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    record(
        f"fit_volume/{scene.name} {options.minutes:g}",
        f"{sum(psnrs) / len(psnrs):.2f} dB, SSIM {sum(ssims) / len(ssims):.3f}, {gibibytes:.1f} GiB",
    )


if __name__ == "__main__":
    main()
