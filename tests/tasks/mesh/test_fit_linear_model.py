"""Linear shape models fitted to point clouds, and to images."""

import numpy as np
import pytest
import torch

import unrender
from known_shapes import EXPRESSION, IDENTITY, ROTATION, SCALE, lopsided_model, scan, true_mesh
from unrender import (
    FitLinearModel,
    InputError,
    Landmarks,
    LinearModelFit,
    PointCloud,
    fit_linear_model,
    linear_shape,
    track_linear_model,
    vertex_normals,
)
from unrender.tasks.mesh import align_similarity
from unrender.tasks.pose import cloud_alignment


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search fewer poses; the fixture of the module searches all."""
    monkeypatch.setattr(align_similarity, "SCALE_FACTORS", (0.9,))
    monkeypatch.setattr(cloud_alignment, "NUM_ROTATIONS", 512)


@pytest.fixture(scope="module")
def fitted() -> LinearModelFit:
    *_, last = fit_linear_model(scan(true_mesh()), lopsided_model())
    return last.result


def relative_error(result: LinearModelFit, truth: unrender.Mesh) -> float:
    size = float((truth.vertices.amax(0) - truth.vertices.amin(0)).norm())
    return float((result.mesh.vertices - truth.vertices).norm(dim=1).mean()) / size


def test_pose_scale_and_coefficients_are_found_without_a_guess(fitted: LinearModelFit):
    assert fitted.status == "aligned"
    assert relative_error(fitted, true_mesh()) < 0.004
    assert fitted.scale == pytest.approx(SCALE, rel=0.02)
    assert torch.allclose(fitted.world_from_model[:3, :3] / fitted.scale, ROTATION, atol=0.03)
    assert (fitted.expression - EXPRESSION).abs().max() < 0.1
    assert torch.equal(fitted.mesh.faces, lopsided_model().faces)


def test_errors_are_within_a_few_standard_deviations(fitted: LinearModelFit):
    for value, std, truth in (
        (fitted.identity, fitted.identity_std, IDENTITY),
        (fitted.expression, fitted.expression_std, EXPRESSION),
    ):
        assert bool(((value - truth).abs() < 4 * std + 0.02).all())
        assert bool((std < 0.5).all())
    assert 0.3 < float(fitted.observed.double().mean()) < 0.8


def test_the_world_transform_places_the_model(fitted: LinearModelFit):
    local = linear_shape(lopsided_model(), fitted.identity, fitted.expression).vertices
    moved = local @ fitted.world_from_model[:3, :3].T + fitted.world_from_model[:3, 3]
    assert torch.allclose(moved, fitted.mesh.vertices, atol=1e-6 * SCALE)


def test_free_vertices_follow_details_that_the_model_does_not_have():
    truth = true_mesh()
    local = (truth.vertices - truth.vertices.mean(0)) / SCALE
    dent = torch.exp(-((local @ ROTATION) - torch.tensor([0.1, -0.5, 0.6])).square().sum(1) / 0.05)
    dented = truth.replace(vertices=truth.vertices - 0.06 * SCALE * dent[:, None] * vertex_normals(truth))
    marks = Landmarks(torch.arange(0, 600, 60), truth.vertices[::60][:10].clone())
    errors = {}
    for step in fit_linear_model(
        scan(dented), lopsided_model(), FitLinearModel(free_vertices=True), landmarks=marks
    ):
        errors[step.stage] = float(relative_error(step.result, dented)) if step.index else 0.0
    assert step.stage == "free"
    assert step.index <= step.last_index
    assert errors["free"] < 0.9 * errors["final"]


def test_a_flat_cloud_is_unaligned():
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(1000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.0])
    *_, last = fit_linear_model(PointCloud(flat), lopsided_model())
    assert last.result.status == "unaligned"


def test_landmarks_replace_the_search():
    ids = torch.tensor([0, 5, 40, 300])
    truth = true_mesh()
    steps = list(
        fit_linear_model(scan(truth), lopsided_model(), landmarks=Landmarks(ids, truth.vertices[ids].clone()))
    )
    assert relative_error(steps[0].result, truth) < 0.05
    assert relative_error(steps[-1].result, truth) < 0.005


def test_a_given_scale_is_certain(fitted: LinearModelFit):
    *_, last = fit_linear_model(scan(true_mesh()), lopsided_model(), FitLinearModel(scale=SCALE))
    assert last.result.scale == pytest.approx(SCALE, rel=1e-9)
    assert last.result.scale_std < 1e-5
    assert bool((last.result.identity_std < fitted.identity_std).all())
    assert relative_error(last.result, true_mesh()) < 0.004


def test_a_sequence_has_one_identity():
    expressions = [EXPRESSION * weight for weight in (0.2, 0.6, 1.0)]
    clouds = [scan(true_mesh(e), 1500, seed=n) for n, e in enumerate(expressions)]
    other = torch.rand(500, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    clouds = [PointCloud(1e3 * SCALE * other), *clouds[:2], PointCloud(other), clouds[2]]
    steps = [step for step in track_linear_model(clouds, lopsided_model()) if step.is_final]
    statuses = [step.result.status for step in steps]
    assert statuses == ["unaligned", "aligned", "aligned", "unaligned", "aligned"]
    found = [step.result for step in steps if step.frame not in (0, 3)]
    for result, expression in zip(found, expressions, strict=True):
        assert torch.equal(result.identity, found[0].identity)
        assert result.scale == pytest.approx(found[0].scale, rel=1e-9)
        assert (result.expression - expression).abs().max() < 0.12
    assert (found[0].identity - IDENTITY).abs().max() < 0.4


def test_bad_input():
    model = lopsided_model()
    with pytest.raises(InputError, match="at least 30"):
        fit_linear_model(PointCloud(torch.rand(5, 3)), model)
    line = torch.linspace(0, 1, 100)[:, None] * torch.ones(3)
    with pytest.raises(InputError, match="collinear"):
        fit_linear_model(PointCloud(line), model)
    with pytest.raises(InputError, match="`scale`"):
        fit_linear_model(scan(true_mesh(), 100), model, FitLinearModel(scale=0.0))
    wrong = Landmarks(torch.tensor([10_000]), torch.zeros(1, 3))
    with pytest.raises(InputError, match="index vertices"):
        fit_linear_model(scan(true_mesh(), 100), model, landmarks=wrong)
    with pytest.raises(InputError, match="`free_vertices`"):
        track_linear_model([], model, FitLinearModel(free_vertices=True))
    with pytest.raises(InputError, match="got none"):
        list(track_linear_model([], model))
    with pytest.raises(InputError, match="at most 2"):
        linear_shape(model, torch.zeros(3))


def test_coefficients_follow_from_silhouettes_and_landmark_depth():
    model = lopsided_model().to(torch.float32)
    cameras = [
        unrender.Camera.look_at(eye, fov_degrees=40.0, height=64, width=64)
        for eye in ((4.0, 0.5, 0.0), (0.0, 0.5, 4.0))
    ]
    marks = torch.tensor([0, 20, 50])
    truth = linear_shape(model, IDENTITY.float(), EXPRESSION.float())
    silhouettes = [unrender.render_silhouette(truth, camera) for camera in cameras]
    depths = [camera.project(truth.vertices[marks])[:, 2] for camera in cameras]
    identity, expression = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([identity, expression], lr=0.1)
    for _ in range(40):
        mesh = linear_shape(model, identity, expression)
        loss = torch.zeros(())
        for camera, silhouette, depth in zip(cameras, silhouettes, depths, strict=True):
            loss = loss + (unrender.render_silhouette(mesh, camera) - silhouette).square().mean()
            loss = loss + (camera.project(mesh.vertices[marks])[:, 2] - depth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (expression.detach() - EXPRESSION).abs().max() < 0.15
    assert np.abs(identity.detach().numpy() - IDENTITY.numpy()).max() < 0.3
