"""Measure `fit_nerf` on real scenes: PSNR and SSIM of held-out views after so many minutes, and memory.

python benchmarks/bench_fit_nerf.py ../shared/data/chair --minutes 2 5 20 60
python benchmarks/bench_fit_nerf.py ../shared/data/fox --minutes 15

Each number of minutes is a fit of its own, from nothing, with what belongs to its length. Views are those of the
scene's test split (every 8th frame where it has none), at their full size; transparent pictures lie before white. The
minutes include reading the scene and compiling kernels. Nothing else should run on the machine.
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
    parser.add_argument("--output", type=Path, help="folder for the fields and the views")
    options = parser.parse_args()
    print(machine())
    scene = load_scene(options.scene)
    for minutes in options.minutes:
        folder = None if options.output is None else options.output / f"{minutes:g}"
        _measure(scene, minutes, folder)


def _measure(scene: Scene, minutes: float, folder: Path | None) -> None:
    said, samples = -1.0, 0
    for step in fit_nerf(scene, FitNerf(minutes=minutes)):
        samples += step.samples
        if step.held_out_psnr is not None and step.seconds > said:
            print(
                f"{step.seconds:6.0f} s  step {step.index:5d}  {samples / 1e6:6.0f} million samples  "
                f"{step.losses['psnr']:.2f} dB while learning, {step.held_out_psnr:.2f} dB in held-out patches",
                flush=True,
            )
            said = step.seconds + 3 * minutes
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
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save_image(seen.color, folder / f"{Path(frame.name).stem}.png")
    if folder is not None:
        save_field(step.result, folder / "field.safetensors")
    print(f"per view: {' '.join(f'{value:.1f}' for value in values)}")
    print(
        f"{minutes:g} minutes, {step.index} steps, {samples / 1e6:.0f} million samples; {len(values)} held-out views: "
        f"PSNR {sum(values) / len(values):.2f} dB, SSIM {sum(similar) / len(similar):.4f}; "
        f"{spent / len(values):.2f} s a view; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most",
        flush=True,
    )
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    record(
        f"fit_nerf/{scene.name} {minutes:g}",
        f"{sum(values) / len(values):.2f} dB, SSIM {sum(similar) / len(similar):.3f}, {gibibytes:.1f} GiB",
    )


if __name__ == "__main__":
    main()
