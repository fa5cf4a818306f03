"""Measure the viewer: frame rate while the camera moves, time to the final image, and overhead for a training step.

unrender fit-volume ../shared/data/chair --steps 500 --rays 24576 --resolution 160 --output runs/chair
python benchmarks/bench_viewer.py runs/chair

The page has 400 × 400 pixels; the camera orbits the chair for some seconds and then rests. Image encoding is included,
the browser is not. The time of one matrix product (see timing.py) shows how busy the machine is. --cpu-time
measures CPU time divided by the number of threads: the time that an idle machine would need.
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


class OrbitingClient:
    """A client whose camera orbits for some seconds and then rests."""

    def __init__(self, path, clock) -> None:
        self.path, self.clock, self.begin, self.sizes = path, clock, clock(), []
        self.final_after = None

    def camera(self):
        fraction = min((self.clock() - self.begin) / SECONDS, 1.0)
        return self.path[int(fraction * (self.path.batch_shape[0] - 1))]

    def put(self, image, *, is_final) -> None:
        import imageio.v3 as imageio

        pixels = (image * 255).round().to(torch.uint8).numpy()
        imageio.imwrite("<bytes>", pixels, extension=".jpeg", quality=MOVING_QUALITY)
        seconds = self.clock() - self.begin
        if seconds < SECONDS:
            self.sizes.append(image.shape[0])
        if is_final:
            self.final_after = seconds - SECONDS


def cpu_seconds() -> float:
    return time.process_time() / torch.get_num_threads()


def orbit(run: Path, clock) -> None:
    field = load_field(run / "volume.safetensors")
    cameras = [frame.camera for frame in load_cameras(run / "cameras.json")]
    path = orbit_path(cameras, int(20 * SECONDS)).resize(SIDE, SIDE)
    view = View(field, background=(1.0, 1.0, 1.0))
    for quick in (True, False):
        milliseconds, products = timed(lambda quick=quick: field.render(path[0], quick=quick), repeats=5)
        print(f"one image of {SIDE} × {SIDE}, {quick=}: {milliseconds:.0f} ms, {products:.1f} mm")
    client = OrbitingClient(path, clock)
    renderer = ProgressiveRenderer(client, clock)
    while client.final_after is None:
        if not renderer.render_next(view):
            time.sleep(0 if clock is cpu_seconds else 0.02)  # sleeping takes no CPU time
    median = sorted(client.sizes)[len(client.sizes) // 2]
    print(f"moving: {len(client.sizes) / SECONDS:.1f} frames per second, median width {median} pixels")
    print(f"at rest: final image after {client.final_after:.2f} s")
    record("viewer/moving", f"{len(client.sizes) / SECONDS:.1f} frames per second")
    record("viewer/rest", f"after {client.final_after:.2f} s")


def train_with_page(clock) -> None:
    """Alternate training steps with and without an unattended page."""
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
        medians = {name: sorted(times[WARM_UP:])[(ROUNDS - WARM_UP) // 2] for name, times in spent.items()}
    slower = 100 * (medians["with a page"] / medians["alone"] - 1)
    print(f"training step: {1000 * medians['alone']:.1f} ms alone, {slower:+.1f} % with an unattended page")
    record("viewer/training", f"{slower:+.1f} %")
    begin = time.perf_counter()
    with Window(port=0) as window:
        for _ in range(1000):
            window.update(SimpleNamespace(render=None))
        print(f"overhead per step: {1000 * (time.perf_counter() - begin):.0f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="run folder of fit-volume")
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time instead of wall-clock time")
    options = parser.parse_args()
    print(machine())
    clock = cpu_seconds if options.cpu_time else time.perf_counter
    if options.run is not None:
        orbit(options.run, clock)
    train_with_page(clock)


if __name__ == "__main__":
    main()
