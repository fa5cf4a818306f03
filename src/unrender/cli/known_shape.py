"""unrender fit-mesh with a known shape: a template, or a linear shape model."""

from collections.abc import Mapping
from pathlib import Path

from unrender.cli.fit_linear_model import LinearModelRun
from unrender.cli.fit_template import TemplateRun
from unrender.cli.shape_options import SHARED_OPTIONS, KnownShape, MeshResult, refuse_other_options
from unrender.io import load_mesh
from unrender.io.linear_models import load_linear_model
from unrender.runs.batch import refuse_workers
from unrender.runs.options import changed_options
from unrender.tasks.mesh.fit_linear_model import FitLinearModel
from unrender.tasks.mesh.fit_mesh import FitMesh
from unrender.tasks.mesh.fit_template import FitTemplate
from unrender.workers import current_workers


def fit_known_shape(
    cloud: Path,
    fit: FitMesh,
    shape: KnownShape,
    results: MeshResult,
    output: Path | None,
    others: Mapping[str, object],
) -> int:
    """Fit a known shape to a cloud, or track it through a folder of clouds; return the exit status.

    others: options that do not apply to a known shape.
    """
    refuse_other_options(fit, others)
    shared = {name: value for name, value in changed_options(fit).items() if name in SHARED_OPTIONS}
    if shape.template is not None:
        config = FitTemplate(scale=shape.scale, **shared)
        return TemplateRun(load_mesh(shape.template), config, shape, results).start(cloud, output)
    assert shape.linear_model is not None
    refuse_workers(cloud, current_workers())
    linear = FitLinearModel(free_vertices=shape.free_vertices, scale=shape.scale, **shared)
    model = load_linear_model(shape.linear_model)
    task = LinearModelRun(model, linear, shape, results)
    return task.track(cloud, output) if cloud.is_dir() else task.fit(cloud, output)
