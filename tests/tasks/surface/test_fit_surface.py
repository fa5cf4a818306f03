import dataclasses
import itertools

import pytest
import torch

import unrender
from unrender import FitSurface, InputError
from unrender.reports.surface_report import _figures
from unrender.tasks.surface.fit_surface import ONE_SIDED
from unrender.tasks.surface.measure_surface import compare_views, measure_shape
from unrender.tasks.surface.photo_views import load_photo_views
from unrender.tasks.surface.refine import Refinement, reduced_targets

SMALL = FitSurface(faces=1500, steps=40, views=8, resolution=48)


@pytest.fixture(scope="module")
def fitted(trained):
    return list(unrender.fit_surface(trained.scene, trained.field, SMALL))


def test_steps_lead_from_depth_to_a_refined_surface(fitted):
    assert [step.index for step in fitted] == list(range(8 + 1 + 40))
    assert {step.last_index for step in fitted} == {48}
    stages = [stage for stage, _ in itertools.groupby(step.stage for step in fitted)]
    assert stages == ["depth", "initial", "coarse", "fine", "colors"]
    assert fitted[-1].num_steps == 40
    with pytest.raises(InputError, match="there is no surface yet"):
        _ = fitted[0].result


def test_the_result_is_one_closed_body_of_few_faces(fitted):
    shape = measure_shape(fitted[-1].result)
    assert 1000 < shape["num_faces"] <= 1500
    assert shape["num_parts"] == 1
    assert shape["watertight"]
    assert shape["manifold"]


def test_refinement_improves_new_views(trained, fitted):
    test = trained.scene.split("test")
    before, after = (
        [view.metrics["psnr"] for view in compare_views(fitted[i].result, test)] for i in (8, -1)
    )
    assert all(new > old for old, new in zip(before, after, strict=True))
    assert sum(after) / len(after) > sum(before) / len(before) + 0.8


def test_vertices_descend_to_the_surface(trained, fitted):
    """Vertices that were moved along their normals return."""
    mesh = fitted[-1].result
    normals = unrender.vertex_normals(mesh)
    wrong = mesh.replace(vertices=mesh.vertices + 0.03 * normals)
    photos = load_photo_views(trained.scene.split("train"))
    refinement = Refinement(wrong, len(photos), SMALL, per_image_exposure=False)
    targets = reduced_targets(photos, [None] * len(photos), 1)
    for step in range(60):
        refinement.step(targets[step % len(targets)], step / 60)
    moved = ((refinement.mesh.vertices - mesh.vertices) * normals).sum(1)
    assert float(moved.mean()) < 0.02


def test_same_seed_same_surface(trained, fitted):
    few = dataclasses.replace(SMALL, steps=2, views=2)
    one, two = (list(unrender.fit_surface(trained.scene, trained.field, few))[-1].result for _ in range(2))
    assert torch.equal(one.vertices, two.vertices)
    assert torch.equal(one.vertex_colors, two.vertex_colors)


def test_zero_steps_keep_the_extracted_surface(trained):
    config = dataclasses.replace(SMALL, steps=0, method="density")
    *_, last = unrender.fit_surface(trained.scene, trained.field, config)
    assert last.stage == "initial"
    assert len(last.result.faces) <= 1500


@pytest.mark.parametrize("count", [1, 3])
def test_photos_from_one_side(trained, count):
    first = trained.scene.split("train")[0]
    position = first.camera.position
    near = sorted(
        trained.scene.split("train"), key=lambda frame: float((frame.camera.position - position).norm())
    )
    scene = dataclasses.replace(trained.scene, frames=tuple(near[:count]))
    config = dataclasses.replace(SMALL, steps=1)
    *_, last = unrender.fit_surface(scene, trained.field, config)
    assert ONE_SIDED in last.notes
    assert any(note.startswith("not watertight") for note in last.notes)
    assert not unrender.is_watertight(last.result)


def test_a_field_without_a_surface(trained):
    def haze(points, directions):
        return torch.full_like(points[:, 0], 0.01), torch.full_like(points, 0.5)

    box = unrender.SceneBox.cube(torch.zeros(3), 1.0)
    field = unrender.CallableField(haze, near=0.5, far=4.0, scene_box=box)
    with pytest.raises(InputError, match="the field has no surface: only 0 % of the pixels"):
        list(unrender.fit_surface(trained.scene, field, SMALL))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faces": 10}, "`faces` should be at least 100, got 10"),
        ({"minutes": 0.0}, "`minutes` should be above 0"),
        ({"minutes": 1.0, "steps": 5}, "give `minutes` or `steps`, not both"),
        ({"views": 1}, "`views` should be at least 2"),
        ({"smoothness": -1.0}, "`smoothness` should be 0 or more"),
        ({"min_part": 2.0}, "`min_part` should be between 0 and 1"),
        ({"unobserved": "no"}, "`unobserved` should be one of auto, close, open"),
        ({"method": "magic"}, "`method` should be one of depth, density"),
    ],
)
def test_settings_out_of_range(trained, options, message):
    with pytest.raises(InputError, match=message):
        unrender.fit_surface(trained.scene, trained.field, FitSurface(**options))


def test_scenes_without_training_photos(trained):
    empty = dataclasses.replace(trained.scene, frames=trained.scene.split("test"))
    with pytest.raises(InputError, match="has no training photos"):
        unrender.fit_surface(empty, trained.field)


def test_opaque_photos_without_surface_are_not_rated(trained, fitted, tmp_path):
    """Their cameras look past the mesh; the mean is that of the other views."""
    frame = trained.scene.split("test")[0]
    image = tmp_path / "opaque.png"
    unrender.save_image(frame.load_image().image, image)
    opaque = dataclasses.replace(frame, image_path=image)
    mesh = fitted[-1].result
    away = mesh.replace(vertices=mesh.vertices + 100)
    [seen], [empty] = list(compare_views(mesh, [opaque])), list(compare_views(away, [opaque]))
    assert seen.metrics["psnr"] > 15
    assert empty.metrics == {"coverage": 0.0}
    assert "no surface in this view" in _figures(mesh, empty)[1].caption
