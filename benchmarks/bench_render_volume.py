"""Time rendering a volume of 256³ values at 512², with and without empty-space skipping.

python benchmarks/bench_render_volume.py
"""

import torch
from timing import machine, record, timed

from unrender import Camera, TransferFunction, Volume, render_volume, visible_blocks

SIZE, PIXELS = 256, 512


def main() -> None:
    print(machine())
    volume, transfer = shell(), TransferFunction(0.3, 1.0, torch.linspace(0, 20, 256), torch.rand(256, 3))
    camera = Camera.look_at([2.0, 1.5, 3.0], fov_degrees=40.0, height=PIXELS, width=PIXELS)
    found = visible_blocks(volume, transfer)
    everything = found._replace(occupied=torch.ones_like(found.occupied))
    print(f"{float(found.occupied.float().mean()):.0%} of the blocks are visible")
    rows = {
        "finding visible blocks": lambda: visible_blocks(volume, transfer),
        "render": lambda: render_volume(volume, transfer, camera, blocks=found),
        "render without skipping": lambda: render_volume(volume, transfer, camera, blocks=everything),
    }
    taken = []
    for name, work in rows.items():
        milliseconds, products = timed(work, repeats=3)
        print(f"{name:32}{milliseconds:8.0f} ms{products:8.1f} mm")
        taken.append(f"{products:.0f} mm")
    record("render_volume", "; ".join(taken[1:]))


def shell() -> Volume:
    """Return a thin spherical shell with a ring inside."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    sphere = torch.exp(-(((x * x + y * y + z * z).sqrt() - 0.6) / 0.05).square())
    ring = 0.7 * torch.exp(-(((x * x + y * y).sqrt() - 0.3).square() + z * z) / 0.01)
    return Volume.in_box(sphere + ring, -torch.ones(3), torch.ones(3))


if __name__ == "__main__":
    main()
