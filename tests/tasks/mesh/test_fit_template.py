"""Templates deformed onto point clouds."""

import pytest
import torch

from known_shapes import SCALE, lopsided_model, scan, true_mesh
from unrender import (
    FitTemplate,
    InputError,
    Landmarks,
    Mesh,
    PointCloud,
    TemplateFit,
    fit_template,
    ico_sphere,
)
from unrender.tasks.mesh import align_similarity
from unrender.tasks.mesh.shape_target import prepare_target
from unrender.tasks.mesh.surface_matches import Surface, match_surface, select_points
from unrender.tasks.pose import cloud_alignment


def template() -> Mesh:
    model = lopsided_model()
    return Mesh(model.mean, model.faces)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search fewer poses; the fixture of the module searches all."""
    monkeypatch.setattr(align_similarity, "SCALE_FACTORS", (0.9,))
    monkeypatch.setattr(cloud_alignment, "NUM_ROTATIONS", 512)


@pytest.fixture(scope="module")
def fitted() -> TemplateFit:
    *_, last = fit_template(scan(true_mesh()), template())
    return last.result


def relative_error(vertices: torch.Tensor, truth: Mesh) -> torch.Tensor:
    size = float((truth.vertices.amax(0) - truth.vertices.amin(0)).norm())
    return (vertices - truth.vertices).norm(dim=1) / size


def test_vertices_meet_their_counterparts(fitted: TemplateFit):
    truth = true_mesh()
    error = relative_error(fitted.mesh.vertices, truth)
    matrix = fitted.world_from_template
    before = relative_error(template().vertices @ matrix[:3, :3].T + matrix[:3, 3], truth)
    assert fitted.status == "aligned"
    assert torch.equal(fitted.mesh.faces, template().faces)
    assert fitted.scale == pytest.approx(SCALE, rel=0.1)
    assert error.mean() < 0.012
    assert error.mean() < 0.8 * before.mean()
    assert 0.3 < float(fitted.observed.double().mean()) < 0.8
    assert fitted.inlier_fraction > 0.95


def test_outliers_do_not_matter(fitted: TemplateFit):
    generator = torch.Generator().manual_seed(0)
    points = scan(true_mesh()).points
    low, high = points.aminmax(dim=0)
    stray = torch.rand(len(points) // 20, 3, generator=generator, dtype=torch.float64) * (high - low) + low
    *_, last = fit_template(PointCloud(torch.cat([points, stray])), template(), FitTemplate(scale=SCALE))
    assert relative_error(last.result.mesh.vertices, true_mesh()).mean() < 0.013


def test_landmarks_replace_the_search():
    truth, ids = true_mesh(), torch.tensor([0, 5, 40, 300])
    marks = Landmarks(ids, truth.vertices[ids].clone())
    *_, last = fit_template(scan(truth), template(), landmarks=marks)
    error = relative_error(last.result.mesh.vertices, truth)
    assert error.mean() < 0.012
    assert error[ids].max() < 0.02
    collinear = Landmarks(torch.tensor([0, 0, 0]), torch.zeros(3, 3))
    with pytest.raises(InputError, match="collinear"):
        list(fit_template(scan(truth), template(), landmarks=collinear))


def test_a_symmetric_template_is_ambiguous():
    ball = ico_sphere(2).to(torch.float64)
    rod = ball.replace(vertices=ball.vertices * torch.tensor([2.0, 1.0, 0.7], dtype=torch.float64))
    *_, last = fit_template(scan(rod, 1500, 0.001), rod, FitTemplate(scale=1.0))
    assert last.result.status == "ambiguous"
    assert last.result.inlier_fraction > 0.95


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_sign_of_normals_does_not_matter(sign: float):
    mesh = ico_sphere(2).to(torch.float64)
    points = 1.01 * mesh.vertices
    cloud = PointCloud(points, normals=sign * mesh.vertices)
    some = select_points(prepare_target(cloud, len(points), 0, "test"), 100)
    vertices = mesh.vertices / 3.0**0.5 / 2
    for weight in (0.0, 0.1):
        assert bool((match_surface(Surface(mesh), vertices, some, 0.1, 0.1, weight).weights > 0.1).all())


def test_points_are_matched_with_vertices_of_faces():
    mesh = ico_sphere(1).to(torch.float64)
    loose = Mesh(torch.cat([mesh.vertices, 1.1 * mesh.vertices]), mesh.faces)
    points = 1.1 * mesh.vertices
    face_ids, barycentrics = Surface(loose).similar(points, mesh.vertices, loose.vertices, 0.1)
    found = mesh.faces[face_ids].gather(1, barycentrics.argmax(1, keepdim=True))[:, 0]
    assert torch.equal(found, torch.arange(len(points)))


def test_a_cloud_of_something_else_is_unaligned():
    spread = torch.rand(1500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    *_, last = fit_template(PointCloud(spread), template(), FitTemplate(scale=0.4))
    assert last.result.status == "unaligned"


def test_bad_input():
    cloud = scan(true_mesh(), 100)
    with pytest.raises(InputError, match="faces"):
        fit_template(cloud, Mesh(torch.rand(5, 3), torch.zeros(0, 3, dtype=torch.int64)))
    with pytest.raises(InputError, match="no area"):
        fit_template(cloud, Mesh(torch.rand(5, 3), torch.tensor([[0, 0, 1]])))
    with pytest.raises(InputError, match="`stiffness`"):
        fit_template(cloud, template(), FitTemplate(stiffness=-1.0))
    with pytest.raises(InputError, match="NaN or infinite"):
        fit_template(PointCloud(torch.full((100, 3), torch.nan)), template())
