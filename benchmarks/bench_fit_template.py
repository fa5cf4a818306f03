"""Fit known shapes to scans of random faces and bodies from the front: templates, linear models, and a sequence.

python benchmarks/bench_fit_template.py [--face FACES.npz] [--shapes NUMBER] [--active FRACTION]

Identities are standard normal; a fraction of the expressions is active, uniformly in [0, 1]. The scans have 20,000
points with noise of 0.2 % of the height, in random poses and at random scales. Errors are distances of vertices from
their true positions, in % of the height: correspondences count. Bodies are those of a generated model.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timing import machine
from torch import Tensor

from known_shapes import body_model, random_coefficients, random_shape, random_similarity, scan_from_front
from unrender import (
    LinearShapeModel,
    Mesh,
    PointCloud,
    fit_linear_model,
    fit_template,
    linear_shape,
    load_linear_model,
    so3_exp_map,
    track_linear_model,
)

POINTS, NOISE = 20_000, 0.002


class Sample(NamedTuple):
    """A scan with its truth."""

    cloud: PointCloud
    vertices: Tensor
    """True positions, in the frame of the scan."""
    visible: Tensor
    height: float
    expression: Tensor


class Row(NamedTuple):
    """The errors of a fit, in % of the height, and its CPU time."""

    visible_error: float
    error: float
    seconds: float
    status: str
    expression: Tensor


def main() -> None:
    """Print a row for each kind of fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--face", type=Path)
    parser.add_argument("--shapes", type=int, default=20)
    parser.add_argument("--active", type=float, default=0.3)
    options = parser.parse_args()
    print(machine())
    print("shape     fit       visible   all       worst     correlation  CPU s   aligned")
    models = {"body": body_model()}
    if options.face is not None:
        models = {"face": load_linear_model(options.face), **models}
    for name, model in models.items():
        active = options.active if name == "face" else 1.0
        samples = [sample(model, seed, active) for seed in range(options.shapes)]
        template = Mesh(model.mean, model.faces)
        report(name, "template", samples, lambda cloud, t=template: fit_template(cloud, t))
        report(name, "linear", samples, lambda cloud, m=model: fit_linear_model(cloud, m))
        track(name, model, active)


def sample(model: LinearShapeModel, seed: int, active: float) -> Sample:
    """Draw a shape, a pose and a scale, and scan it."""
    generator = torch.Generator().manual_seed(seed)
    mesh, _, expression = random_shape(model, generator, active)
    return placed(mesh, expression, random_similarity(generator, 30.0), generator)


def placed(
    mesh: Mesh, expression: Tensor, pose: tuple[Tensor, Tensor, float], generator: torch.Generator
) -> Sample:
    """Scan a mesh from the front, and move scan and mesh to a pose."""
    cloud, visible = scan_from_front(mesh, POINTS, NOISE, generator)
    rotation, shift, scale = pose
    height = scale * float((mesh.vertices.amax(0) - mesh.vertices.amin(0))[1])
    moved = PointCloud(scale * cloud.points @ rotation.T + shift)
    return Sample(moved, scale * mesh.vertices @ rotation.T + shift, visible, height, expression)


def report(name: str, kind: str, samples: list[Sample], fit: Callable[[PointCloud], Iterator[Any]]) -> None:
    """Fit all samples and print the mean errors."""
    rows = []
    for each in samples:
        start = time.process_time()
        *_, last = fit(each.cloud)
        rows.append(measured(each, last.result, time.process_time() - start))
    print_row(name, kind, samples, rows)


def measured(truth: Sample, result: Any, seconds: float) -> Row:
    """Compare a result with the truth."""
    error = 100 * (result.mesh.vertices - truth.vertices).norm(dim=1) / truth.height
    expression = getattr(result, "expression", torch.zeros_like(truth.expression))
    return Row(float(error[truth.visible].mean()), float(error.mean()), seconds, result.status, expression)


def print_row(name: str, kind: str, samples: list[Sample], rows: list[Row]) -> None:
    """Print means, the largest error, and the correlation of all expression coefficients with the truth."""
    found = torch.cat([row.expression for row in rows])
    truth = torch.cat([each.expression for each in samples])
    correlation = float(np.corrcoef(found, truth)[0, 1]) if bool(found.any()) else float("nan")
    aligned = sum(row.status == "aligned" for row in rows)
    visible, error = (float(np.mean(values)) for values in zip(*(row[:2] for row in rows), strict=True))
    print(
        f"{name:9s} {kind:9s} {visible:6.3f} % {error:7.3f} %"
        f" {max(r.error for r in rows):8.3f} % {correlation:9.3f} {np.mean([r.seconds for r in rows]):10.2f}"
        f"   {aligned} of {len(rows)}",
        flush=True,
    )


def track(name: str, model: LinearShapeModel, active: float, count: int = 12) -> None:
    """Track a subject whose expression changes and whose head turns by 2 degrees per frame."""
    generator = torch.Generator().manual_seed(100)
    identity, first = random_coefficients(model, generator, active)
    _, last = random_coefficients(model, generator, active)
    rotation, shift, scale = random_similarity(generator, 30.0)
    samples = []
    for frame in range(count):
        expression = first + (last - first) * frame / (count - 1)
        turn = so3_exp_map(torch.tensor([0.01, 0.03, 0.0], dtype=torch.float64) * frame)
        pose = (rotation @ turn, shift, scale)
        samples.append(placed(linear_shape(model, identity, expression), expression, pose, generator))
    rows, spent = {}, [0.0] * count
    start = time.process_time()
    for step in track_linear_model([each.cloud for each in samples], model):
        spent[step.frame] += time.process_time() - start
        rows[step.frame] = measured(samples[step.frame], step.result, spent[step.frame])
        start = time.process_time()
    print_row(name, "sequence", samples[1:], [rows[frame] for frame in range(1, count)])


if __name__ == "__main__":
    main()
