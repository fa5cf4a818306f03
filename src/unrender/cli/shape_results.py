"""The results of `unrender fit-mesh` for a known shape: files, metrics and messages."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_mesh, save_mesh
from unrender.tasks.mesh.fit_template import TemplateFit
from unrender.tasks.mesh.linear_model_fit import LinearModelFit
from unrender.tasks.mesh.measure_mesh import measure_mesh

UNALIGNED = 3
"""Exit status of a result that is written, though the cloud does not show the shape."""
ShapeFit = LinearModelFit | TemplateFit
log = logging.getLogger("unrender")


def save_shape(mesh: Mesh, observed: Tensor, path: Path) -> None:
    """Save a fitted mesh, in PLY with the property `observed` of its vertices."""
    save_mesh(mesh, path, {"observed": observed} if path.suffix == ".ply" else {})


def support(observed: Tensor) -> dict[str, Any]:
    """Return which vertices have points nearby, as JSON can hold it."""
    return {"num_observed": int(observed.sum()), "observed": observed.long().tolist()}


def shape_metrics(result: ShapeFit, cloud: PointCloud, reference: Path | None) -> dict[str, Any]:
    """Measure a fitted shape against the points, and a reference where there is one."""
    truth = None if reference is None else load_mesh(reference)
    measured = measure_mesh(result.mesh, cloud.points.to(result.mesh.vertices.device), reference=truth)
    own = {name: getattr(result, name) for name in ("status", "scale", "noise", "inlier_fraction")}
    return own | {"observed_vertices": int(result.observed.sum())} | measured


def exit_status(statuses: Sequence[str]) -> int:
    """Warn of clouds that do not show the shape; return the exit status."""
    unaligned = statuses.count("unaligned")
    if not unaligned:
        return 0
    of = f" in {unaligned} of {len(statuses)} clouds" if len(statuses) > 1 else ""
    log.warning(
        "the known shape is unaligned%s: the cloud does not show it; crop the cloud to the object, or give --landmarks",
        of,
    )
    return UNALIGNED


def summary(result: ShapeFit) -> str:
    """Say how a shape fits, in a sentence."""
    observed = 100 * float(result.observed.double().mean())
    return (
        f"Status: {result.status}; {100 * result.inlier_fraction:.0f} % of the points are inliers; "
        f"{observed:.0f} % of the vertices are observed, the others are inferred."
    )


def print_summary(result: ShapeFit) -> None:
    """Print how a shape fits."""
    print(f"{'status':24s} {result.status}")
    print(f"{'inliers':24s} {100 * result.inlier_fraction:.0f} %")
    print(f"{'scale':24s} {result.scale:.6g}")
    print(f"{'noise':24s} {result.noise:.4g}")
    print(f"{'observed vertices':24s} {100 * float(result.observed.double().mean()):.0f} %")
