"""Measure the viewer: frame rate while the camera moves, time to the final image, and overhead for a training step.

unrender fit-volume ../shared/data/chair --steps 500 --rays 24576 --resolution 160 --output runs/chair
python benchmarks/bench_viewer.py runs/chair

The page has 400 × 400 pixels; one goes around the chair for some seconds, and then rests. Encoding the pictures is
included, the browser is not. The time of one matrix product (see timing.py) tells how busy the machine is. With --cpu,
seconds are those of the processor, divided by the threads: what a machine that others use too needs when it is idle.
"""

import argparse
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from timing import machine, record, timed

from unrender import FitVolume, fit_volume, load_cameras, load_field, orbit_path, save_demo_scene
from unrender.viewer.page import MOVING_QUALITY
from unrender.viewer.renderer import ProgressiveRenderer, View
from unrender.viewer.watch import watch
from unrender.viewer.window import Window

SECONDS, SIDE = 6.0, 400
ROUNDS, WARM_UP = 40, 8


class Walker:
    """Goes around, and then rests."""

    def __init__(self, path, clock) -> None:
        self.path, self.clock, self.begin, self.sizes = path, clock, clock(), []
        self.final_after = None

    def camera(self):
        share = min((self.clock() - self.begin) / SECONDS, 1.0)
        return self.path[int(share * (self.path.batch_shape[0] - 1))]

    def put(self, image, *, is_final) -> None:
        import imageio.v3 as imageio

        pixels = (image * 255).round().to(torch.uint8).numpy()
        imageio.imwrite("<bytes>", pixels, extension=".jpeg", quality=MOVING_QUALITY)
        seconds = self.clock() - self.begin
        if seconds < SECONDS:
            self.sizes.append(image.shape[0])
        if is_final:
            self.final_after = seconds - SECONDS


def processor() -> float:
    return time.process_time() / torch.get_num_threads()


def look_around(run: Path, clock) -> None:
    field = load_field(run / "volume.safetensors")
    cameras = [frame.camera for frame in load_cameras(run / "cameras.json")]
    path = orbit_path(cameras, int(20 * SECONDS)).resize(SIDE, SIDE)
    view = View(field, background=(1.0, 1.0, 1.0))
    for quick in (True, False):
        milliseconds, products = timed(lambda quick=quick: field.render(path[0], quick=quick), repeats=5)
        print(f"one picture of {SIDE} × {SIDE}, {quick=}: {milliseconds:.0f} ms, {products:.1f} mm")
    walker = Walker(path, clock)
    renderer = ProgressiveRenderer(walker, clock)
    while walker.final_after is None:
        if not renderer.render_next(view):
            time.sleep(0 if clock is processor else 0.02)  # a nap takes no processor
    middle = sorted(walker.sizes)[len(walker.sizes) // 2]
    print(
        f"moving: {len(walker.sizes) / SECONDS:.1f} frames per second, half of them {middle} pixels wide or more"
    )
    print(f"at rest: final after {walker.final_after:.2f} s")
    record("viewer/moving", f"{len(walker.sizes) / SECONDS:.1f} frames per second")
    record("viewer/rest", f"after {walker.final_after:.2f} s")


def train_beside(clock) -> None:
    """Take turns of steps with and without a page that nobody looks at."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, Window(port=0) as window:
        scene = save_demo_scene(Path(folder) / "scene", size=128, num_train=12, num_test=2)
        config = FitVolume(resolution=96, steps=10_000, rays=16384)
        alone, shown = fit_volume(scene, config), watch(fit_volume(scene, config), window)
        spent = {"alone": [], "with a page": []}
        for _ in range(ROUNDS):
            for name, steps in (("alone", alone), ("with a page", shown)):
                begin = clock()
                next(steps)
                spent[name].append(clock() - begin)
        middle = {name: sorted(times[WARM_UP:])[(ROUNDS - WARM_UP) // 2] for name, times in spent.items()}
    slower = 100 * (middle["with a page"] / middle["alone"] - 1)
    print(f"a step alone {1000 * middle['alone']:.1f} ms, with a page that nobody looks at {slower:+.1f} %")
    record("viewer/training", f"{slower:+.1f} %")
    begin = time.perf_counter()
    with Window(port=0) as window:
        for _ in range(1000):
            window.update(SimpleNamespace(render=None))
        print(f"between two steps: {1000 * (time.perf_counter() - begin):.0f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="of fit-volume")
    parser.add_argument("--cpu", action="store_true", help="count seconds of the processor")
    options = parser.parse_args()
    print(machine())
    clock = processor if options.cpu else time.perf_counter
    if options.run is not None:
        look_around(options.run, clock)
    train_beside(clock)


if __name__ == "__main__":
    main()
