"""unrender fit-mesh --linear-model: fit a linear shape model to a cloud, or to a sequence of clouds."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unrender.cli.shape_options import TASK, KnownShape, MeshResult
from unrender.cli.shape_results import (
    exit_status,
    print_summary,
    save_shape,
    shape_metrics,
    summary,
    support,
)
from unrender.errors import InputError
from unrender.geometry.linear_shape_model import LinearShapeModel
from unrender.geometry.points import PointCloud
from unrender.io.clouds import CLOUD_KINDS, load_cloud
from unrender.io.file_names import without_suffix
from unrender.io.landmarks import load_landmarks
from unrender.reports import shape_fit_report
from unrender.reports.html import Figure
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.runs.batch import input_files
from unrender.runs.folder import METRICS, start_run, write_curves, write_json
from unrender.runs.options import changed_options
from unrender.runs.progress import run_steps
from unrender.tasks.mesh.fit_linear_model import FitLinearModel, FitLinearModelStep, fit_linear_model
from unrender.tasks.mesh.linear_model_fit import LinearModelFit
from unrender.tasks.mesh.track_linear_model import TrackLinearModelStep, track_linear_model


@dataclasses.dataclass(frozen=True)
class LinearModelRun:
    """The fit of a linear shape model."""

    model: LinearShapeModel
    config: FitLinearModel
    shape: KnownShape
    results: MeshResult

    def settings(self, cloud: Path) -> dict[str, Any]:
        """Return the settings of a run, for its config.json."""
        return {"cloud": cloud.resolve(), "config": self.config, "shape": self.shape, "results": self.results}

    def fit(self, cloud: Path, output: Path | None) -> int:
        """Fit the model to one cloud, and write the results."""
        points, start = load_cloud(cloud), time.perf_counter()
        landmarks = None if self.shape.landmarks is None else load_landmarks(self.shape.landmarks)
        fitting = fit_linear_model(points, self.model, self.config, landmarks=landmarks)
        folder = start_run(TASK, cloud.stem, output, self.settings(cloud))
        steps = run_steps(fitting, _describe)
        result = steps[-1].result
        file = folder / f"mesh.{self.results.mesh_format}"
        save_shape(result.mesh, result.observed, file)
        write_json(folder / "support.json", support(result.observed))
        coefficients = {"model": self.shape.linear_model, **coefficients_json(result, self.model)}
        write_json(folder / "coefficients.json", coefficients)
        metrics = shape_metrics(result, points, self.results.reference)
        metrics |= {"steps": steps[-1].index, "seconds": time.perf_counter() - start}
        write_json(folder / METRICS, metrics)
        write_curves(folder, {"rms": [step.rms for step in steps[1:]]})
        images = shape_fit_report.fit_figures(
            *(points, steps[0].result.mesh, result.mesh, result.observed),
            *(result.world_from_model, self.results.up),
        )
        self._write_report(folder, cloud, summary(result), images, result, metrics)
        print_summary(result)
        print(file, folder / "coefficients.json", folder / "report.html", sep="\n")
        return exit_status([result.status])

    def track(self, clouds: Path, output: Path | None) -> int:
        """Track the model through the clouds of a folder, in the order of their names, and write the results."""
        if self.shape.landmarks is not None:
            raise InputError("--landmarks does not apply to a folder of clouds")
        if self.results.reference is not None:
            raise InputError("--reference does not apply to a folder of clouds")
        files = input_files(clouds, *CLOUD_KINDS)
        if not files:
            raise InputError(f"{clouds}: no point clouds")
        start = time.perf_counter()
        folder = start_run(TASK, clouds.resolve().name, output, self.settings(clouds))
        tracking = track_linear_model(_Clouds(files), self.model, self.config)
        steps = [step for step in run_steps(tracking, _describe_frame) if step.is_final]
        if not steps:
            raise InputError(f"{clouds}: stopped before the last frame; nothing was written")
        seconds = time.perf_counter() - start
        for step in steps:
            file = folder / "meshes" / f"{without_suffix(files[step.frame].name)}.{self.results.mesh_format}"
            file.parent.mkdir(exist_ok=True)
            save_shape(step.result.mesh, step.result.observed, file)
        write_json(folder / "coefficients.json", self._sequence_json(steps, files))
        metrics = sequence_metrics([step.result for step in steps]) | {"seconds": seconds}
        write_json(folder / METRICS, metrics)
        write_curves(folder, {"noise": [step.result.noise for step in steps]})
        period = -(-len(steps) // shape_fit_report.MAX_FRAMES)
        drawn = [(load_cloud(files[step.frame]), step.result.mesh) for step in steps[::period]]
        first = first_found([step.result for step in steps])
        images = [shape_fit_report.sequence_figure(drawn, first.world_from_model, self.results.up)]
        text = f"{metrics['aligned']} of {len(steps)} frames aligned."
        self._write_report(folder, clouds, text, images, first, metrics)
        print(text)
        print(folder / "meshes", folder / "coefficients.json", folder / "report.html", sep="\n")
        return exit_status([step.result.status for step in steps])

    def _sequence_json(self, steps: Sequence[TrackLinearModelStep], files: Sequence[Path]) -> dict[str, Any]:
        frames = [
            {"cloud": files[step.frame].name} | coefficients_json(step.result, self.model) for step in steps
        ]
        found = coefficients_json(first_found([step.result for step in steps]), self.model)
        shared = {name: found[name] for name in ("scale", "scale_std", "identity", "identity_std")}
        own = [{name: value for name, value in frame.items() if name not in shared} for frame in frames]
        return {"model": self.shape.linear_model, **shared, "frames": own}

    def _write_report(
        self,
        folder: Path,
        source: Path,
        text: str,
        images: Sequence[Figure],
        result: LinearModelFit,
        metrics: Mapping[str, Any],
    ) -> None:
        names = _names(self.model)
        expression = zip(
            names, zip(result.expression.tolist(), result.expression_std.tolist(), strict=True), strict=True
        )
        identity = zip(result.identity.tolist(), result.identity_std.tolist(), strict=True)
        first = "Expression of the first aligned frame" if source.is_dir() else "Expression"
        charts = {
            first: dict(expression),
            "Identity": {str(index): pair for index, pair in enumerate(identity)},
        }
        options = changed_options(self.config, self.shape) | changed_options(self.results)
        how = reproduce(command_line(TASK, [source], options), _code(source, self.shape, self.config))
        path, title = folder / "report.html", f"{source.name}: {_file_name(self.shape)}"
        shape_fit_report.write_shape_fit_report(path, title, text, images, charts, metrics, how)


class _Clouds(Sequence[PointCloud]):
    """Point clouds that are loaded when they are needed."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        return load_cloud(self._files[index])


def coefficients_json(result: LinearModelFit, model: LinearShapeModel) -> dict[str, Any]:
    """Return pose, scale and coefficients with their standard deviations, as JSON can hold them."""
    names = _names(model)
    return {
        "status": result.status,
        "world_from_model": result.world_from_model.tolist(),
        "scale": result.scale,
        "scale_std": result.scale_std * result.scale,
        "noise": result.noise,
        "inlier_fraction": result.inlier_fraction,
        "identity": result.identity.tolist(),
        "identity_std": result.identity_std.tolist(),
        "expression": dict(zip(names, result.expression.tolist(), strict=True)),
        "expression_std": dict(zip(names, result.expression_std.tolist(), strict=True)),
    }


def first_found(results: Sequence[LinearModelFit]) -> LinearModelFit:
    """Return the first frame that shows the shape, or the first one if none does."""
    return next((result for result in results if result.status != "unaligned"), results[0])


def sequence_metrics(results: Sequence[LinearModelFit]) -> dict[str, Any]:
    """Count the frames of a sequence by their status."""
    statuses = [result.status for result in results]
    noise = sum(result.noise for result in results) / len(results)
    return {
        "frames": len(results),
        "aligned": statuses.count("aligned"),
        "ambiguous": statuses.count("ambiguous"),
        "unaligned": statuses.count("unaligned"),
        "scale": first_found(results).scale,
        "mean_noise": noise,
    }


def _names(model: LinearShapeModel) -> Sequence[str]:
    return model.expression_names or [str(index) for index in range(len(model.expression))]


def _describe(step: FitLinearModelStep) -> str:
    return f"{step.stage:6s} step {step.index:3d}  rms distance {step.rms:.4g}"


def _describe_frame(step: TrackLinearModelStep) -> str:
    kind = "final" if step.is_final else "track"
    return f"{kind} frame {step.frame:4d}  {step.result.status}"


def _file_name(shape: KnownShape) -> str:
    return "" if shape.linear_model is None else shape.linear_model.name


def _code(source: Path, shape: KnownShape, config: FitLinearModel) -> str:
    load = f"model = {call('unrender.load_linear_model', shape.linear_model)}"
    arguments = (Name("cloud"), Name("model"), construct(config))
    if source.is_dir():
        return python_code(
            load,
            f"clouds = [unrender.load_cloud(path) for path in sorted(pathlib.Path({str(source)!r}).iterdir())]",
            f"for step in {call('unrender.track_linear_model', Name('clouds'), *arguments[1:])}:",
            "    if step.is_final:",
            "        print(step.frame, step.result.status, step.result.expression)",
        )
    marks = {} if shape.landmarks is None else {"landmarks": call("unrender.load_landmarks", shape.landmarks)}
    return python_code(
        load,
        f"cloud = {call('unrender.load_cloud', source)}",
        f"*_, last = {call('unrender.fit_linear_model', *arguments, keywords=marks)}",
        "print(last.result.status, last.result.expression)",
        'unrender.save_mesh(last.result.mesh, "mesh.ply")',
    )
