"""Words of our own that the field has other words for: not in public names, help texts or reports."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import unrender
from ball_field import Ball
from scene_files import cameras, write_nerfstudio
from unrender import Camera, FitMesh, FitNerf, FitVolume, Frame, Mesh, PointCloud, load_scene
from unrender.cli.main import COMMANDS, main
from unrender.data.depth_maps import DepthFiles
from unrender.io import save_image
from unrender.reports import evaluation, figures
from unrender.reports.depth_report import depth_metrics, measure_views, write_depth_report
from unrender.reports.evaluation_report import write_evaluation_report
from unrender.reports.field_report import finish
from unrender.reports.html import Section
from unrender.reports.mesh_report import write_mesh_report
from unrender.reports.pose_report import cloud_results, photo_results, write_pose_report
from unrender.reports.render_report import reproduce_run, write_render_report
from unrender.reports.shape_report import write_shape_report
from unrender.runs.field_run import EvaluationOptions, FieldRun
from unrender.runs.saved_run import Run
from unrender.tasks.render.field_views import QuickRender
from unrender.tour import tasks, text
from unrender.tour.generate import TourSizes
from unrender.tour.report import TaskResult, Tour, write_tour

# fmt: off
NAME_WORDS = {  # as words of a name; each with the word to write
    "ahead": "t_near, t_far", "agreeing": "consistent", "ask": "query", "asked": "queried", "begin": "start",
    "behind": "background", "bent": "contracted", "clay": "shading", "cotangents": "upstream gradients",
    "dark": "early termination", "drawable": "renderable", "film": "video", "forget": "prune",
    "learn": "fit", "learned": "trained", "learner": "trainer", "learning": "training",
    "least": "min", "looks": "evaluation views", "matter": "density", "middle": "center",
    "note": "record", "notice": "record", "observe": "record", "onlooker": "client",
    "painter": "renderer",
    "perceptron": "mlp", "picture": "image", "pictures": "images", "pieces": "chunks", "place": "position",
    "places": "positions", "room": "margin, capacity", "roughness": "total_variation", "route": "camera path",
    "see": "render", "seen": "visible, rendered", "share": "fraction", "shares": "fractions", "slope": "gradient",
    "slopes": "gradients", "stage": "scene", "straighten": "inverse contraction", "stretch": "interval",
    "sure": "confidence", "thin": "downsample", "unseen": "unobserved", "walk": "traverse", "words": "text",
}
TERMS = ["learning_rate", "begin_step"]
"""Terms of the field that contain such a word."""
NAMES_ALLOWED = {
    # the stage of an optimization, as in multi-stage
    "FindPoseStep.stage", "FitLinearModelStep.stage", "FitMeshStep.stage", "FitSurfaceStep.stage",
    "FitTemplateStep.stage",
    "RegisterPhotosStep.stage",
}
PROSE = {  # in help texts and reports
    r"\blearn(s|ed|er|ers|t|ing)?\b": "train, fit, trained on",
    r"\bpictures?\b": "image",
    r"\bfilms?\b": "video",
    r"\bshares?\b": "fraction",
    r"\bplaces?\b": "position, point, path",
    r"\bmatter\b": "density",
    r"\bthe light\b|\bhow much light\b": "transmittance, opacity",
    r"\bmiddles?\b": "center",
    r"\bhalf[ _-]sides?\b": "half extent",
    r"\brooms?\b": "scene box, capacity",
    r"\bstretch(es)?\b": "ray interval",
    r"\bway (out|there)\b|\bahead\b": "t_near, t_far",
    r"\bbent\b|\bstraighten\w*": "contracted, inverse contraction",
    r"\buntil (it is )?dark\b": "early ray termination",
    r"\bgives? up\b|\bunseen\b|\bnever sees?\b": "prune, unobserved, held out",
    r"\b(seen|looked at|asked)\b": "visible, rendered, queried",
    r"\bwalk(s|ed|ing)?\b": "traverse",
    r"\broughness\b": "total variation",
    r"\bnotices?\b": "record",
    r"\bbeg[iau]ns?( again)?\b|\bgo(es)? on\b": "start, initialize, restart, resume",
    r"\bslopes?\b": "gradient",
    r"\btakes? turns\b|\bpieces\b": "stream, chunk, tile",
    r"\bcotangents?\b": "upstream gradients",
    r"\bhow sure\b|\bsure\b": "confidence, uncertainty",
    r"\bthin(s|ned)? points\b": "voxel_downsample",
    r"\b(held|kept) back\b": "validation points",
    r"\b(before|behind) (it|white|black|them)\b|\bwhat is behind\b": "background, composited on",
    r"\bsteps of adam\b": "training steps",
    r"\bperceptrons?\b": "MLP",
    r"\brepetitions?\b": "duplicates",
    r"\b(on the )?way around\b|\bonce around\b": "turntable",
    r"\bhow it (went|goes)\b|\bwhat came out\b|\bdo it again\b": "Training curves, Results, Reproduce",
    r"\bmeans? nothing\b|\bleave it out\b": "does not apply to",
    r"\bso (many|long|much)\b|\bso few\b": "a number, a duration",
    r"(?<!visual )\bhull\b": "visual_hull",
    r"\beverything\b|,box\b": "unbounded, aabb",
    r"--(distortion|depth) ": "--distortion-loss-weight, --depth-loss-weight",
    r"--(least-opacity|agreeing) ": "--min-opacity, --min-consistent-views",
    r"\bneighbouring\b|\bcentres?\b|\bmet(re|res)\b|\bcolours?\b|\bgrey levels?\b": "American spelling",
}
PROSE_ALLOWED = [
    r"machine learning", r"learning rate",
    r"--depth PATH",  # of find-pose: a depth image
    r"convex hull", r"visual hull", r"\{auto,solid,shell,hull,sphere\}",  # initial shapes of fit-mesh
]
# fmt: on


def offences(prose: str) -> list[str]:
    """Return the words of a text that the field would not use, each with what it would."""
    prose = " ".join(prose.replace("_", " ").split())
    for allowed in PROSE_ALLOWED:
        prose = re.sub(allowed, " ", prose, flags=re.IGNORECASE)
    return [
        f"{prose[max(0, found.start() - 40) : found.end() + 40]!r}: {better}"
        for pattern, better in PROSE.items()
        for found in re.finditer(pattern, prose, re.IGNORECASE)
    ]


def words_of(name: str) -> list[str]:
    """Split snake_case and CamelCase, without the terms that the field itself uses."""
    name = re.sub("|".join(TERMS), "", name)
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def parameters_of(function: object) -> list[str]:
    try:
        return [name for name in inspect.signature(function).parameters if not name.startswith("_")]
    except (TypeError, ValueError):
        return []


def public_names() -> Iterator[str]:
    """Yield the public names, their members, and the parameters of all."""
    for name in unrender.__all__:
        yield name
        value = getattr(unrender, name)
        if not inspect.isclass(value):
            yield from (f"{name}.{parameter}" for parameter in parameters_of(value))
            continue
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        yield from (f"{name}.{field.name}" for field in fields if not field.name.startswith("_"))
        for member, function in vars(value).items():
            if not member.startswith("_"):
                yield f"{name}.{member}"
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function):
                    yield from (f"{name}.{member}.{each}" for each in parameters_of(function))


def test_public_names() -> None:
    found = {
        f"{name}: {NAME_WORDS[word]}"
        for name in public_names()
        if name not in NAMES_ALLOWED
        for word in words_of(name.rsplit(".", 1)[-1])
        if word in NAME_WORDS
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert not offences(text), "\n".join(offences(text))
    assert "default: False" not in text
    assert "STR" not in text


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert not offences(capsys.readouterr().out)


def visible_text(report: Path) -> str:
    """Return the text of a page with captions and alternative texts, without code, styles and drawings."""
    html = report.read_text("utf-8")
    html = re.sub(r"<(style|script|svg|pre).*?</\1>", " ", html, flags=re.DOTALL)
    html = re.sub(r"data:image/[^\"'&]*", " ", html)
    alternatives = " ".join(re.findall(r'(?:alt|aria-label)="([^"]*)"', html))
    return re.sub(r"<[^>]*>", " ", html) + alternatives


def curve_titles(report: Path) -> str:
    """Return the titles of plots: matplotlib writes them in comments of its SVG."""
    return " ".join(re.findall(r"<!-- (.*?) -->", report.read_text("utf-8")))


def check(report: Path) -> None:
    found = offences(visible_text(report) + " " + curve_titles(report))
    assert not found, "\n".join(found)


HOW = Section("Reproduce", code=["unrender"])
pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "cup"
    folder.mkdir()
    write_nerfstudio(folder, cameras(12), channels=4)
    return folder


@pytest.mark.parametrize(("task", "config"), [("fit-nerf", FitNerf()), ("fit-volume", FitVolume())])
def test_reports_of_fields(scene: Path, tmp_path: Path, monkeypatch, capsys, task, config) -> None:
    monkeypatch.setattr("unrender.reports.field_report.NUM_FRAMES", 2)
    folder = tmp_path / "run"
    folder.mkdir()
    run = FieldRun(task, scene, load_scene(scene), config, EvaluationOptions(), folder, torch.ones(3))
    curves = figures.curves({"training MSE": [0.2, 0.1], "held-out MSE": [0.3, 0.2]}, {})
    finish(run, Ball(), {"training_psnr": 12.0, "seconds": 3.0, "steps": 2}, curves)
    check(folder / "report.html")
    assert not offences(capsys.readouterr().out)


def test_report_of_an_evaluation(scene: Path, tmp_path: Path) -> None:
    frames = load_scene(scene).frames[:2]
    views = list(evaluation.evaluate_views(Ball(), frames, torch.ones(3), tmp_path / "views"))
    protocol = {"views_in_split": 2, "split": "test", "lpips": "not computed"}
    protocol |= evaluation.protocol(frames, views, torch.ones(3))
    mean = evaluation.mean_metrics(views)
    title, summary = "Evaluation of cup", evaluation.summary("cup", mean)
    write_evaluation_report(tmp_path / "report.html", title, summary, views, protocol, mean, "unrender eval")
    check(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert '<th>view</th><th class="number">psnr</th>' in html
    assert f'<td>{views[0].name}</td><td class="number">{views[0].metrics["psnr"]:.4g}</td>' in html


def test_report_of_depth(tmp_path: Path) -> None:
    frames = [Frame(f"{i}.png", view, tmp_path / f"{i}.png") for i, view in enumerate(cameras(2))]
    views = list(measure_views(Ball(), frames, tmp_path / "depth", DepthFiles(), (0.25, 0.5)))
    run = Run(tmp_path / "cup", Ball(), tmp_path / "cup/field.safetensors", None, None, None)
    write_depth_report(tmp_path / "report.html", run, views, depth_metrics(views, 0.1), "unrender depth")
    check(tmp_path / "report.html")


def test_report_of_a_mesh(tmp_path: Path) -> None:
    cloud = PointCloud(unrender.ico_sphere(1).vertices)
    steps = list(unrender.fit_mesh(cloud, FitMesh(steps=1, edge_length=0.6)))
    metrics = unrender.measure_mesh(steps[-1].result, cloud.points)
    write_mesh_report(tmp_path / "report.html", "Mesh of cup", cloud, steps, metrics, "y", HOW)
    check(tmp_path / "report.html")


def estimate(verdict: str, count: int, std: float) -> SimpleNamespace:
    pose = Camera.look_at([0.0, 1.0, 4.0], height=1, width=1).camera_from_world.double()
    return SimpleNamespace(
        camera_from_object=pose,
        candidates=pose.expand(count, 4, 4),
        scores=torch.ones(count),
        agreements=torch.full((count,), 0.9),
        agreement=0.9,
        status=verdict,
        message="the mask seems to be too large" if std == 1.0 else "",
        rotation_std_degrees=std,
        translation_std=0.1,
    )


@pytest.mark.parametrize(
    ("verdict", "count", "std"),
    [
        ("converged", 1, 1.0),
        ("ambiguous", 2, 1.0),
        ("ambiguous", 2, 2.0),
        ("ambiguous", 1, 90.0),
        ("ambiguous", 1, 1.0),
        ("ambiguous", 1, 2.0),
        ("failed", 1, 1.0),
    ],
)
def test_reports_of_poses(tmp_path: Path, verdict: str, count: int, std: float) -> None:
    mesh: Mesh = unrender.cube()
    step = SimpleNamespace(index=0, stage="search", cost=1.0, result=estimate(verdict, count, std))
    camera = Camera.look_at([0.0, 0.0, 4.0], height=24, width=24)
    photo = unrender.Photo(
        torch.rand(24, 24, 3), torch.ones(24, 24), camera.replace(camera_from_world=torch.eye(4))
    )
    sections = photo_results(mesh, None, photo, [step, step], tmp_path)
    sections += cloud_results(mesh, PointCloud(torch.rand(20, 3)), [step, step])
    path = tmp_path / "report.html"
    write_pose_report(path, "Pose of cup", [step, step], {"cost": 1.0}, [*sections, HOW])
    check(path)


def test_report_of_a_scene(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(scene), "--output", str(tmp_path / "out")]) == 0
    check(tmp_path / "out/report.html")
    assert not offences(capsys.readouterr().out)


def test_reports_of_renderings_and_exports(tmp_path: Path) -> None:
    save_image(torch.rand(8, 8, 3), tmp_path / "view.png")
    run = SimpleNamespace(folder=tmp_path, field_file=tmp_path / "field.safetensors", origin=(0.0, 0.0, 0.0))
    how = reproduce_run(run, QuickRender(quick=True), (1.0, 1.0, 1.0), tmp_path, {})
    path = tmp_path / "report.html"
    write_render_report(path, "Views of cup", "new views", [tmp_path / "view.png"], {"views": 1}, how)
    check(path)
    write_shape_report(path, "Mesh of cup", "mesh", unrender.cube(), {"faces": 12}, "unrender export")
    check(path)


def test_report_of_the_tour(tmp_path: Path) -> None:
    sizes = TourSizes()
    descriptions = [
        text.mesh(),
        text.pose(45.0, sizes.pose),
        text.volume(sizes.volume),
        text.field(sizes.nerf),
        text.depth(tasks.FIELD, sizes.spacing, sizes.voxel_size),
    ]
    results = [TaskResult(each, "input", "outcome", [], None, [], [], []) for each in descriptions]
    image = SimpleNamespace(source="", alt="object", size=(8, 8), num_frames=1)
    write_tour(Tour(results, image, 1.0, "2 threads"), tmp_path / "report.html")
    check(tmp_path / "report.html")


@pytest.mark.parametrize("phrase", ["the field that was learned", "Share of the light", "pictures", "a film"])
def test_such_words_are_found(phrase: str) -> None:
    assert offences(phrase)


def test_words_of_the_field_are_not(tmp_path: Path) -> None:
    assert not offences("Machine learning: held-out views, the visual_hull, a convex hull, shared memory.")
