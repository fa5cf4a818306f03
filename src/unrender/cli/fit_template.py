"""unrender fit-mesh --template: deform a template onto a cloud, or onto each cloud of a folder."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from unrender.cli.shape_options import TASK, KnownShape, MeshResult
from unrender.cli.shape_results import (
    UNALIGNED,
    exit_status,
    print_summary,
    save_shape,
    shape_metrics,
    summary,
    support,
)
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.clouds import CLOUD_KINDS, load_cloud
from unrender.io.landmarks import load_landmarks
from unrender.reports import shape_fit_report
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.runs.batch import ERROR, input_files, print_batch, refuse_workers, run_batch
from unrender.runs.folder import METRICS, start_run, write_curves, write_json
from unrender.runs.options import changed_options
from unrender.runs.progress import run_inner_steps, run_steps
from unrender.tasks.mesh.fit_template import FitTemplate, FitTemplateStep, TemplateFit, fit_template
from unrender.workers import current_workers


@dataclasses.dataclass(frozen=True)
class TemplateRun:
    """The deformation of a template: a task for any number of clouds."""

    template: Mesh
    config: FitTemplate
    shape: KnownShape
    results: MeshResult
    name: ClassVar[str] = TASK
    columns: ClassVar[tuple[str, ...]] = (
        *("status", "cloud_to_mesh_mean", "inlier_fraction", "observed_vertices", "scale", "strain"),
        *("mesh_to_reference_mean", "reference_to_mesh_mean"),
    )

    def settings(self, file: Path) -> dict[str, Any]:
        """Return the settings of a run, for its config.json."""
        return {
            "cloud": file.resolve(),
            "config": self.config,
            "shape": self.shape,
            "results": self.results,
        }

    def start(self, cloud: Path, output: Path | None) -> int:
        """Fit one cloud, or each cloud of a folder; return the exit status."""
        if cloud.is_dir():
            return self._fit_all(cloud, output)
        refuse_workers(cloud, current_workers())
        points, start = load_cloud(cloud), time.perf_counter()
        fitting = self._fitting(points)
        folder = start_run(TASK, cloud.stem, output, self.settings(cloud))
        steps = run_steps(fitting, _describe)
        result = self._write(steps, points, cloud, folder, start)
        print_summary(result)
        print(folder / self._file, folder / "support.json", folder / "report.html", sep="\n")
        return exit_status([result.status])

    def run(self, file: Path, folder: Path) -> None:
        """Fit a cloud of a folder, and write the results."""
        points, start = load_cloud(file), time.perf_counter()
        self._write(run_inner_steps(self._fitting(points)), points, file, folder, start)

    def _fit_all(self, clouds: Path, output: Path | None) -> int:
        files, workers = input_files(clouds, *CLOUD_KINDS), current_workers()
        if not files:
            raise InputError(f"{clouds}: no point clouds")
        if self.shape.landmarks is not None:
            raise InputError("--landmarks does not apply to a folder of clouds")
        folder = start_run(TASK, clouds.resolve().name, output, self.settings(clouds), workers)
        results = run_batch(self, files, folder, workers)
        if not workers.is_first:
            return 0
        print_batch(results, files, ("unaligned", ERROR), folder)
        statuses = {result.status for result in results}
        return 1 if ERROR in statuses else UNALIGNED if "unaligned" in statuses else 0

    @property
    def _file(self) -> str:
        return f"mesh.{self.results.mesh_format}"

    def _fitting(self, points: PointCloud) -> Any:
        landmarks = None if self.shape.landmarks is None else load_landmarks(self.shape.landmarks)
        return fit_template(points, self.template, self.config, landmarks=landmarks)

    def _write(
        self, steps: Sequence[FitTemplateStep], points: PointCloud, cloud: Path, folder: Path, start: float
    ) -> TemplateFit:
        """Write the mesh, its support, metrics and the report; return the result."""
        result = steps[-1].result
        save_shape(result.mesh, result.observed, folder / self._file)
        placed = {"status": result.status, "world_from_template": result.world_from_template.tolist()}
        write_json(folder / "support.json", placed | support(result.observed))
        metrics = shape_metrics(result, points, self.results.reference) | {"strain": result.strain}
        metrics |= {"steps": steps[-1].index, "seconds": time.perf_counter() - start}
        write_json(folder / METRICS, metrics)
        write_curves(folder, {"rms": [step.rms for step in steps[1:]]})
        images = shape_fit_report.fit_figures(
            *(points, steps[0].result.mesh, result.mesh, result.observed),
            *(result.world_from_template, self.results.up),
        )
        options = changed_options(self.config, self.shape, self.results)
        how = reproduce(command_line(TASK, [cloud], options), _code(cloud, self.shape, self.config))
        assert self.shape.template is not None
        title = f"{cloud.name}: {self.shape.template.name}"
        shape_fit_report.write_shape_fit_report(
            folder / "report.html", title, summary(result), images, {}, metrics, how
        )
        return result


def _describe(step: FitTemplateStep) -> str:
    return f"{step.stage:7s} step {step.index:3d}  rms distance {step.rms:.4g}"


def _code(cloud: Path, shape: KnownShape, config: FitTemplate) -> str:
    arguments = (Name("cloud"), Name("template"), construct(config))
    marks = {} if shape.landmarks is None else {"landmarks": call("unrender.load_landmarks", shape.landmarks)}
    return python_code(
        f"template = {call('unrender.load_mesh', shape.template)}",
        f"cloud = {call('unrender.load_cloud', cloud)}",
        f"*_, last = {call('unrender.fit_template', *arguments, keywords=marks)}",
        "print(last.result.status)",
        'unrender.save_mesh(last.result.mesh, "mesh.ply")',
    )
