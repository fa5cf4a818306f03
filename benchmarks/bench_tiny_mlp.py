"""Time the two MLPs of a hash-grid radiance field against the same in PyTorch modules.

python benchmarks/bench_tiny_mlp.py
"""

import itertools

import torch
from timing import machine, record, timed
from torch import Tensor

from unrender.kernels.tiny_mlp import tiny_mlp

POINTS = 98_304
DENSITY, COLOR = (32, 64, 16), (32, 64, 64, 3)


def main() -> None:
    print(machine())
    print(f"{POINTS:,} points, ms (in matrix products 2048³)")
    print(f"{'widths':>16}{'':20}{'PyTorch':>18}{'kernel':>18}{'speed-up':>9}")
    both = 0.0
    for widths in (DENSITY, COLOR):
        layers = [torch.nn.Linear(i, o) for i, o in itertools.pairwise(widths)]
        leaves = [torch.randn(widths[0], POINTS).mT.requires_grad_()]
        leaves += [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        for name, back in (("forward", False), ("forward + backward", True)):
            times = [timed(step(layers, leaves, fused, back), 5) for fused in (False, True)]
            columns = "".join(f"{ms:10.1f} ({products:.3f})" for ms, products in times)
            print(f"{'-'.join(map(str, widths)):>16}{name:>20}{columns}{times[0][1] / times[1][1]:8.1f}×")
            both += times[1][1] if back else 0.0
    record("tiny_mlp", f"{both:.2f} mm")


def step(layers: list[torch.nn.Linear], leaves: list[Tensor], fused: bool, back: bool):
    upstream = torch.randn(layers[-1].out_features, POINTS).mT

    def evaluate() -> Tensor:
        if fused:
            return tiny_mlp(leaves[0], [layer.weight for layer in layers], [layer.bias for layer in layers])
        values = leaves[0]
        for layer in layers[:-1]:
            values = layer(values).relu()
        return layers[-1](values)

    def work() -> None:
        with torch.set_grad_enabled(back):
            found = evaluate()
        if back:
            torch.autograd.grad(found, leaves, upstream)

    return work


if __name__ == "__main__":
    main()
