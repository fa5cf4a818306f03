"""Model the speed of training on many workers: the cost of a step against the number of workers.

    python benchmarks/model_distributed.py

A step of S samples in K shards on W workers takes

    ⌈K / W⌉ · (S / K · sample + shard) + P · value + exchange,

with the seconds of a sample, of a shard, however few samples it has, and of each of the P parameters on all workers,
for sums and the optimizer. In the exchange, each worker sends the others their parts of its gradient, and then its part
of the sum: 2 (W − 1) / W times 4 bytes for each parameter in a block with a gradient, and 1 byte for each block of 16,
in 2 (W − 1) messages each. The table says how many times as many samples a second W workers compute as one process
without shards, and the efficiency: that divided by W. First, each worker has one shard, and steps grow with the
workers; then, steps have `--samples`, in as many shards as workers.
"""

import argparse
import math
from typing import NamedTuple

BLOCK = 16
"""Values of a gradient that have one exponent."""
BYTES_PER_VALUE, COLLECTIVES = 4, 6
"""Of a gradient, and how often workers wait for one another in a step."""


class Link(NamedTuple):
    """What connects workers."""

    name: str
    bytes_per_second: float
    latency: float
    """Seconds of one message."""


LINKS = (
    Link("loopback", 2.6e9, 5e-5),
    Link("10 Gbit/s Ethernet", 1.1e9, 3e-5),
    Link("100 Gbit/s", 1.1e10, 1e-5),
)


class Cost(NamedTuple):
    """Measured constants of a worker."""

    seconds_per_sample: float
    seconds_per_shard: float
    """What a shard costs, however few samples it has."""
    seconds_per_value: float
    """Of a step, for each parameter, on all workers: sums, optimizer."""
    seconds_per_value_alone: float
    """The same without shards: the optimizer."""


def exchange_seconds(link: Link, num_values: int, used: float, workers: int) -> float:
    """Return how long workers exchange gradients in a step."""
    if workers == 1:
        return 0.0
    size = num_values / BLOCK + used * num_values * BYTES_PER_VALUE
    hops = 2 * (workers - 1)
    return hops / workers * size / link.bytes_per_second + (
        hops * link.latency * 2 + COLLECTIVES * math.ceil(math.log2(workers)) * link.latency
    )


def speedup(cost: Cost, link: Link, num_values: int, used: float, samples: int, workers: int) -> float:
    """Return samples per second, with one shard for each worker, relative to one process without shards."""
    alone = samples * cost.seconds_per_sample + num_values * cost.seconds_per_value_alone
    compute = samples / workers * cost.seconds_per_sample + cost.seconds_per_shard
    step = compute + num_values * cost.seconds_per_value + exchange_seconds(link, num_values, used, workers)
    return alone / (step if workers > 1 else alone)


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", type=int, default=6_190_000)
    parser.add_argument("--used", type=float, default=1.0, help="fraction of blocks with a gradient")
    parser.add_argument("--samples-per-shard", type=int, default=32_768)
    parser.add_argument("--samples", type=int, default=262_144)
    parser.add_argument("--microseconds-per-sample", type=float, default=2.45)
    parser.add_argument("--milliseconds-per-shard", type=float, default=18.0)
    parser.add_argument("--nanoseconds-per-value", type=float, nargs=2, default=[6.5, 0.6])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64, 128, 256])
    options = parser.parse_args()
    cost = Cost(
        1e-6 * options.microseconds_per_sample,
        1e-3 * options.milliseconds_per_shard,
        *(1e-9 * value for value in options.nanoseconds_per_value),
    )
    for is_growing in (True, False):
        print("| workers | samples of a step | " + " | ".join(link.name for link in LINKS) + " |")
        print("|---" * (2 + len(LINKS)) + "|")
        for workers in options.workers:
            samples = options.samples_per_shard * workers if is_growing else options.samples
            gains = [
                speedup(cost, link, options.parameters, options.used, samples, workers) for link in LINKS
            ]
            cells = [f"{gain:.1f} × ({100 * gain / workers:.0f} %)" for gain in gains]
            print(f"| {workers} | {samples:,} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()
