"""Measure PSNR and SSIM of `fit_nerf` on the test views of real scenes after a number of minutes, and memory.

python benchmarks/bench_fit_nerf.py ../shared/data/chair --minutes 2 5 20 60
python benchmarks/bench_fit_nerf.py ../shared/data/fox --minutes 15

Each number of minutes is a separate fit from scratch, with the schedule of that length. The views are those of the
scene's test split (every 8th frame if it has none), at full size, with images composited on white. The minutes
include loading the scene and compiling kernels. Run nothing else on the machine.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from timing import machine, record

from unrender import FitNerf, Scene, fit_nerf, load_scene, psnr, save_field, save_image, ssim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0])
    parser.add_argument("--output", type=Path, help="folder for fields and rendered views")
    options = parser.parse_args()
    print(machine())
    scene = load_scene(options.scene)
    for minutes in options.minutes:
        folder = None if options.output is None else options.output / f"{minutes:g}"
        _measure(scene, minutes, folder)


def _measure(scene: Scene, minutes: float, folder: Path | None) -> None:
    printed, samples = -1.0, 0
    for step in fit_nerf(scene, FitNerf(minutes=minutes)):
        samples += step.num_samples
        if step.held_out_psnr is not None and step.seconds > printed:
            print(
                f"{step.seconds:6.0f} s  step {step.index:5d}  {samples / 1e6:6.0f} million samples  "
                f"{step.losses['psnr']:.2f} dB on training rays, {step.held_out_psnr:.2f} dB on test patches",
                flush=True,
            )
            printed = step.seconds + 3 * minutes
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
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save_image(rendered.color, folder / f"{Path(frame.name).stem}.png")
    if folder is not None:
        save_field(step.result, folder / "field.safetensors")
    print(f"per view: {' '.join(f'{value:.1f}' for value in psnrs)}")
    print(
        f"{minutes:g} minutes, {step.index} steps, {samples / 1e6:.0f} million samples; {len(psnrs)} test views: "
        f"PSNR {sum(psnrs) / len(psnrs):.2f} dB, SSIM {sum(ssims) / len(ssims):.4f}; "
        f"{spent / len(psnrs):.2f} s per view; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB peak memory",
        flush=True,
    )
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    record(
        f"fit_nerf/{scene.name} {minutes:g}",
        f"{sum(psnrs) / len(psnrs):.2f} dB, SSIM {sum(ssims) / len(ssims):.3f}, {gibibytes:.1f} GiB",
    )


if __name__ == "__main__":
    main()
