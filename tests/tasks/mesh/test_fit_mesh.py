"""Mesh from points: what comes out, on clouds of every kind."""

import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from check_kernel import num_threads
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh, surface_area
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import ico_sphere, torus
from unrender.geometry.topology import genus, is_manifold, is_watertight
from unrender.tasks.mesh import measure_mesh as measuring
from unrender.tasks.mesh.fit_mesh import FitMesh, FitMeshStep, fit_mesh
from unrender.tasks.mesh.measure_mesh import distances_to_mesh, measure_mesh
from unrender.tasks.mesh.prepare_cloud import Reduction, prepare_cloud

COARSE = FitMesh(edge_length=0.2, steps=40)


def scan(mesh: Mesh, count: int, noise: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    samples = sample_points_from_mesh(mesh.to(torch.float64), count, generator=generator)
    return samples.points + noise * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def run(points: torch.Tensor, config: FitMesh = COARSE, **attributes: torch.Tensor) -> FitMeshStep:
    *_, last = fit_mesh(PointCloud(points, **attributes), config)
    return last


def test_a_torus_comes_back_closed_with_its_hole() -> None:
    truth = torus()
    mesh = run(scan(truth, 3000)).result
    assert is_watertight(mesh)
    assert is_manifold(mesh)
    assert genus(mesh) == 1
    metrics = measure_mesh(mesh, scan(truth, 1000, seed=1), reference=truth)
    assert metrics["cloud_to_mesh_mean"] < 0.001 * metrics["diagonal"]
    assert metrics["mesh_to_reference_mean"] < 0.0015 * metrics["diagonal"]
    assert metrics["reference_to_mesh_mean"] < 0.0015 * metrics["diagonal"]


def test_losses_fall_and_the_start_comes_first() -> None:
    points = scan(ico_sphere(3), 1500) * torch.tensor([1.0, 0.7, 0.5])
    config = FitMesh(start="sphere", edge_length=0.15, steps=9, smoothness=1e-8)
    steps = list(fit_mesh(PointCloud(points), config))
    assert [step.index for step in steps] == list(range(10))
    assert steps[0].stage == "start"
    assert steps[0].losses == {}
    totals = [step.losses["total"] for step in steps[1:] if step.stage == "coarse"]
    assert totals[-1] < 0.2 * totals[0]
    assert all(step.index <= step.last_index for step in steps)


@pytest.mark.parametrize("start", ["solid", "shell", "hull", "sphere"])
def test_every_start_ends_near_the_points_and_closed(start: str) -> None:
    points = scan(ico_sphere(3), 800) * torch.tensor([1.0, 0.7, 0.5])
    last = run(points, FitMesh(start=start, edge_length=0.15, steps=60))
    assert is_watertight(last.result)
    assert float(distances_to_mesh(points, last.result).mean()) < 0.01


def test_noise_is_averaged_and_outliers_are_ignored() -> None:
    truth, noise = ico_sphere(4), 0.02
    clean = scan(truth, 4000, noise)
    strays = 2.4 * torch.rand(200, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1.2
    last = run(torch.cat([clean, strays]))
    radii = scan(last.result, 4000).norm(dim=1)
    assert float((radii - 1).abs().mean()) < 0.4 * noise
    assert int(last.cloud.is_outlier.sum()) > 80
    assert genus(last.result) == 0


def test_half_a_sphere_is_closed_about_as_a_sphere() -> None:
    points = scan(ico_sphere(4), 3000)
    front = points[points[:, 2] > 0]
    last = run(front)
    assert is_watertight(last.result)
    assert float(distances_to_mesh(front, last.result).mean()) < 0.01
    assert -1.4 < float(last.result.vertices[:, 2].min()) < -0.2
    metrics = measure_mesh(last.result, front)
    assert metrics["observed_fraction"] < 0.9


def test_a_thin_one_sided_cloud_becomes_a_thin_shell() -> None:
    generator = torch.Generator().manual_seed(0)
    sheet = torch.rand(800, 3, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.01])
    sheet[:, 2] += 0.3 * (sheet[:, 0] - 1) ** 2
    last = run(sheet, FitMesh(edge_length=0.08, steps=30))
    assert is_watertight(last.result)
    assert float(distances_to_mesh(sheet, last.result).mean()) < 0.02


def test_units_and_position_do_not_matter() -> None:
    points, errors = scan(ico_sphere(3), 600), []
    for scale, offset in ((1.0, 0.0), (1e-6, 3e-6), (1e6, 4e6)):
        mesh = run(points * scale + offset, FitMesh(edge_length=0.25 * scale, steps=12)).result
        errors.append(float((((mesh.vertices - offset) / scale).norm(dim=1) - 1).abs().mean()))
    assert max(errors) < 1.5 * errors[0] + 1e-4


def test_given_normals_may_point_inwards_or_be_missing() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(torus().to(torch.float64), 1500, generator=generator)
    for normals in (samples.normals, -samples.normals, torch.zeros_like(samples.normals)):
        mesh = run(samples.points, FitMesh(edge_length=0.25, steps=10), normals=normals).result
        assert genus(mesh) == 1
        assert float(distances_to_mesh(samples.points, mesh).mean()) < 0.03


def test_points_held_out_are_not_used() -> None:
    points = scan(ico_sphere(3), 1000)
    last = run(points, FitMesh(edge_length=0.3, steps=4, holdout=0.2))
    assert len(last.cloud.held_out) == 200
    assert set(last.cloud.held_out.tolist()).isdisjoint(last.cloud.used.tolist())


def test_more_points_than_allowed_are_averaged(caplog: pytest.LogCaptureFixture) -> None:
    points, errors = scan(ico_sphere(4), 20_000, noise=0.06), []
    for reduction in get_args(Reduction):
        last = run(points, FitMesh(edge_length=0.2, max_points=1000, reduction=reduction))
        assert 500 < len(last.cloud.points) <= 1000
        errors.append(float((scan(last.result, 4000).norm(dim=1) - 1).abs().mean()))
    assert errors[0] < 0.7 * errors[1]  # averaged, and a random sample
    assert " of 20000 points to " in caplog.text
    assert "fitting a random 1000 of 20000 points (max_points)" in caplog.text


def test_points_that_were_repeated_many_times_are_not_averaged() -> None:
    points = scan(ico_sphere(3), 400)
    cloud = prepare_cloud(PointCloud(points.repeat(50, 1)), 0.0, 1000, 0)
    assert cloud.num_averaged == 0
    assert len(cloud.points) == 400


def test_averages_count_as_many_times_as_they_have_points() -> None:
    last = run(scan(ico_sphere(3), 3000), FitMesh(edge_length=0.3, steps=2, max_points=500, holdout=0.1))
    assert last.cloud.num_averaged == float(last.cloud.weights.sum()) > 2500
    assert set(last.cloud.weights[last.cloud.validation].tolist()) == {1.0}
    assert int(last.cloud.validation.sum()) == 50
    assert run(scan(ico_sphere(3), 300), FitMesh(edge_length=0.3, steps=2)).cloud.num_averaged == 0


def test_normals_are_averaged_with_their_points() -> None:
    samples = sample_points_from_mesh(
        torus().to(torch.float64), 9000, generator=torch.Generator().manual_seed(0)
    )
    last = run(samples.points, FitMesh(edge_length=0.25, steps=3, max_points=1500), normals=samples.normals)
    assert last.cloud.normals is not None
    assert torch.allclose(last.cloud.normals.norm(dim=1), torch.ones(len(last.cloud.normals)).double())
    assert genus(last.result) == 1


def test_outliers_and_random_normals_of_large_clouds_are_ignored() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(torus().to(torch.float64), 20_000, generator=generator)
    strays = 3 * torch.rand(4000, 3, generator=generator, dtype=torch.float64) - 1.5
    points, normals = torch.cat([samples.points, strays]), torch.cat([samples.normals, strays])
    signs = torch.where(torch.rand(len(points), 1, generator=generator) < 0.5, -1.0, 1.0)
    last = run(points, FitMesh(edge_length=0.2, steps=12, max_points=2500), normals=normals * signs)
    assert last.cloud.normals is None
    assert 20_000 <= last.cloud.num_averaged < 21_500
    assert genus(last.result) == 1
    metrics = measure_mesh(last.result, samples.points, reference=torus())
    assert metrics["mesh_to_reference_mean"] < 0.01


def test_a_sample_of_a_large_cloud_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    points = scan(torus(), 3000, noise=0.01)
    whole = measure_mesh(torus(), points, held_out=points)
    monkeypatch.setattr(measuring, "MAX_MEASURED", 1000)
    sample = measure_mesh(torus(), points, held_out=points)
    assert (whole["num_points_measured"], sample["num_points_measured"]) == (3000, 1000)
    assert whole["num_points"] == sample["num_points"] == 3000
    for name in ("cloud_to_mesh_mean", "holdout_to_mesh_mean"):
        assert sample[name] == pytest.approx(whole[name], rel=0.1)


def test_the_f_score_follows_the_point_spacing() -> None:
    truth, points = torus().to(torch.float64), scan(torus(), 3000)
    moved = truth.replace(vertices=truth.vertices + torch.tensor([0.0, 0.0, 0.1]))
    good, bad = (measure_mesh(mesh, points) for mesh in (truth, moved))
    assert good["f_score_distance"] == pytest.approx(2 * math.sqrt(float(surface_area(truth)) / 3000))
    assert good["f_score"] > 0.999
    assert measure_mesh(moved, points.repeat(4, 1))["f_score_distance"] == pytest.approx(
        bad["f_score_distance"] / 2
    )
    assert measure_mesh(moved, points.repeat(9, 1))["f_score"] < bad["f_score"]


def test_repeated_points_count_once() -> None:
    points = scan(ico_sphere(3), 300)
    last = run(points.repeat(5, 1), FitMesh(edge_length=0.3, steps=2))
    assert len(last.cloud.used) == 300


def test_a_dozen_points_make_a_closed_mesh() -> None:
    assert is_watertight(run(scan(ico_sphere(2), 12), FitMesh(edge_length=0.2, steps=9)).result)


CUBE = torch.rand(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BAD_CLOUDS = {
    "at least 10 points, got 1": CUBE[:1],
    "at least 10 points, got 0": CUBE[:0],
    "all 100 points are equal": CUBE[:1].expand(100, 3),
    "are collinear": CUBE[:, :1] * torch.tensor([1.0, 2.0, -3.0]) + 5,
    "are coplanar": CUBE * torch.tensor([1.0, 1.0, 0.0]) + 5,
    "2 of 100 points are NaN or infinite": torch.where(torch.arange(300).view(100, 3) < 4, torch.nan, CUBE),
}


@pytest.mark.parametrize("message", BAD_CLOUDS)
def test_clouds_without_a_surface_are_refused_at_once(message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_mesh(PointCloud(BAD_CLOUDS[message]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FitMesh(holdout=1.0), "`holdout` should be a fraction"),
        (FitMesh(edge_length=1e-6), "increase `max_vertices`"),
        (FitMesh(edge_length=-1.0), "`edge_length`"),
        (FitMesh(edge_length=1e9), "too long for a cloud"),
        (FitMesh(smoothness=-1.0), "`smoothness`"),
        (FitMesh(max_points=0), "`max_points`"),
        (FitMesh(max_points=1), "should have at least 10 points, got 1"),
        (FitMesh(max_vertices=1), "too long for a cloud"),
        (FitMesh(steps=-1), "`steps`"),
        (FitMesh(seed=-1), "`seed`"),
        (FitMesh(reduction="median"), "`reduction` should be one of average, random"),  # type: ignore[arg-type]
        (FitMesh(start="bunny"), "`start` should be one of auto, solid"),  # type: ignore[arg-type]
    ],
)
def test_impossible_settings_are_refused_at_once(config: FitMesh, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_mesh(PointCloud(scan(ico_sphere(2), 200)), config)


def test_clusters_far_apart_are_refused() -> None:
    points = scan(ico_sphere(3), 600)
    with pytest.raises(InputError, match="clusters that are far apart"):
        fit_mesh(PointCloud(torch.cat([points, points + 1e4])))


def test_one_wild_point_changes_nothing() -> None:
    points = scan(ico_sphere(3), 800)
    wild = torch.tensor([[300.0, 0.0, 0.0]], dtype=torch.float64)
    last = run(torch.cat([points, wild]), FitMesh(edge_length=0.3, steps=9))
    assert last.cloud.diagonal == pytest.approx(float((points.amax(0) - points.amin(0)).norm()))
    assert int(last.cloud.is_outlier.sum()) == 1


def test_a_sparse_part_of_a_surface_is_no_outlier() -> None:
    points = scan(ico_sphere(4), 12_000)
    points = points[(points[:, 0] > 0) | (torch.arange(len(points)) % 12 == 0)]
    flagged = run(points, FitMesh(edge_length=0.4, steps=0)).cloud.is_outlier
    sparse = points[:, 0] < -0.3
    assert int(sparse.sum()) > 200
    assert float(flagged[sparse].double().mean()) < 0.1


def test_a_batch_is_refused() -> None:
    with pytest.raises(InputError, match="should be a single point cloud"):
        fit_mesh(PointCloud(CUBE.view(2, 50, 3)))


@pytest.mark.parametrize("start", ["solid", "sphere"])
def test_the_mesh_is_the_same_for_any_number_of_threads(start: str) -> None:
    points, found = scan(torus(), 2000), []
    for threads in (1, 2):
        with num_threads(threads):
            *_, last = fit_mesh(PointCloud(points), FitMesh(start=start, edge_length=0.25, steps=6))
        found.append(last.result)
    assert torch.equal(found[0].faces, found[1].faces)
    assert torch.equal(found[0].vertices, found[1].vertices)


RESUMED = FitMesh(start="hull", edge_length=0.25)


@pytest.fixture(scope="module")
def whole() -> FitMeshStep:
    """The last step of a fit that never stopped."""
    *_, last = fit_mesh(PointCloud(scan(torus(), 1500)), RESUMED)
    return last


@pytest.mark.parametrize("stop_at", [2, 11, 29])
def test_a_resumed_fit_ends_with_the_same_mesh(stop_at: int, whole: FitMeshStep, tmp_path: Path) -> None:
    cloud = PointCloud(scan(torus(), 1500))
    fit = fit_mesh(cloud, RESUMED, checkpoints=tmp_path)
    for _ in range(stop_at):
        next(fit)
    fit.close()
    first, *_, last = fit_mesh(cloud, RESUMED, resume=tmp_path)
    assert first.index <= stop_at
    assert (last.index, last.stage) == (whole.index, "final")
    assert torch.equal(last.mesh.vertices, whole.mesh.vertices)
    assert torch.equal(last.mesh.faces, whole.mesh.faces)


def test_a_finished_fit_has_nothing_to_resume(tmp_path: Path) -> None:
    cloud = PointCloud(scan(torus(), 1500))
    *_, whole = fit_mesh(cloud, COARSE, checkpoints=tmp_path)
    (only,) = fit_mesh(cloud, COARSE, resume=tmp_path)
    assert (only.index, only.stage) == (whole.index, "final")
    assert torch.equal(only.result.vertices, whole.result.vertices)
    with pytest.raises(InputError, match=r"edge_length was 0\.2, is 0\.3; the cloud has other points"):
        fit_mesh(PointCloud(scan(torus(), 1400)), FitMesh(edge_length=0.3), resume=tmp_path)
