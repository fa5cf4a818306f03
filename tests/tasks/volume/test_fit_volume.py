"""Volume from posed images: what comes out of small scenes of every kind."""

import dataclasses
import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import launched
import unrender
from check_kernel import num_threads
from unrender.data.scenes import Scene, load_scene
from unrender.errors import FileFormatError, InputError
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.scene_box import SceneBox
from unrender.geometry.topology import is_watertight
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.tasks.surface.extract_surface import cloud_from_mesh, extract_surface
from unrender.tasks.volume.config import FitVolume
from unrender.tasks.volume.fit_volume import fit_volume
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.saved_fields import FORMAT, load_field, save_field
from unrender.training.step import TrainingStep

SMALL = FitVolume(resolution=48, steps=120, rays=8192, degree=1)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("elephant")
    return unrender.save_demo_scene(folder, size=48, num_train=16, num_test=3)


def without_alpha(scene: Scene, folder: Path, value: int | None = None) -> Scene:
    """Copy a scene with opaque pictures before grey, or with an alpha that is the same everywhere."""
    content = json.loads((scene.folder / "transforms.json").read_text())
    for frame in content["frames"]:
        frame.pop("depth_file_path", None)
        with Image.open(scene.folder / frame["file_path"]) as picture:
            copy = Image.new("RGBA", picture.size, (90, 90, 90, 255))
            copy.alpha_composite(picture)
        if value is not None:
            copy.putalpha(value)
        path = folder / frame["file_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        (copy.convert("RGB") if value is None else copy).save(path)
    (folder / "transforms.json").write_text(json.dumps(content))
    return load_scene(folder)


def run(scene: Scene, **changes: object) -> TrainingStep[SparseVoxels]:
    *_, last = fit_volume(scene, dataclasses.replace(SMALL, **changes))
    return last


def held_out_psnr(field: SparseVoxels, scene: Scene, background: torch.Tensor | None) -> float:
    values = []
    for frame in scene.split("test"):
        view = frame.load()
        photo = view.image
        if view.alpha is not None and background is not None:
            photo = torch.lerp(background.expand_as(photo), photo, view.alpha[..., None])
        values.append(unrender.psnr(field.render(frame.camera, background).color, photo))
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def fit(scene: Scene) -> tuple[SparseVoxels, list[float], list[int]]:
    """The field in the end, and the errors and numbers of voxels on the way."""
    steps = [
        (step.losses["color"], step.result.table.num_voxels, step.result) for step in fit_volume(scene, SMALL)
    ]
    errors, voxels, fields = zip(*steps, strict=True)
    return fields[-1], list(errors), list(voxels)


def test_held_out_views_resemble_their_images(scene: Scene, fit) -> None:
    field, _, _ = fit
    assert held_out_psnr(field, scene, torch.ones(3)) > 23
    frame = scene.split("test")[0]
    view, seen = frame.load(), field.render(frame.camera)
    assert float((seen.opacity - view.alpha).abs().mean()) < 0.04
    sure = (view.alpha == 1) & (seen.opacity > 0.9)
    ahead = unrender.rays_of(frame.camera).directions @ frame.camera.camera_from_world[2, :3]
    assert float((seen.distance * ahead - view.depth)[sure].abs().median()) < 0.05


def test_the_loss_falls_and_voxels_go(fit) -> None:
    _, errors, voxels = fit
    assert len(errors) == SMALL.steps
    assert sum(errors[-20:]) < 0.3 * sum(errors[:20])
    assert voxels[-1] < 8**2 * voxels[0]
    assert len(set(voxels)) > 2


def test_the_same_seed_gives_the_same_numbers_for_any_number_of_threads(scene: Scene) -> None:
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(run(scene, steps=12).result.log_density.detach())
    assert torch.equal(*results)
    assert not torch.equal(results[0], run(scene, steps=12, seed=1).result.log_density)


def test_a_scene_without_transparency_is_fitted_in_all_space(scene: Scene, tmp_path: Path) -> None:
    photos = without_alpha(scene, tmp_path)
    last = run(photos, resolution=32, steps=60)
    assert last.result.scene_box.contracted
    assert held_out_psnr(last.result, photos, None) > 17


@pytest.mark.parametrize("space", ["aabb", "unbounded"])
def test_any_space_can_be_asked_for(scene: Scene, space: str) -> None:
    field = run(scene, space=space, steps=3, total_variation_loss_weight=0.1, sparsity_loss_weight=0.1).result
    assert field.scene_box.contracted == (space == "unbounded")
    assert bool(field.log_density.isfinite().all())


def test_roughness_has_a_price(scene: Scene) -> None:
    rough, smooth = (run(scene, steps=30, total_variation_loss_weight=weight).result for weight in (0.0, 1.0))
    differences = [
        unrender.kernels.total_variation.total_variation(field.opacities()[:, None], field.table.neighbors())
        for field in (rough, smooth)
    ]
    assert float(differences[1].detach()) < 0.8 * float(differences[0].detach())


def test_minutes_end_the_fit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 0.5)
    monkeypatch.setattr("unrender.training.loop.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    last = run(scene, minutes=0.1, steps=None)
    assert 6 <= last.seconds < 9
    assert last.index > 1


def test_one_picture_is_enough_to_begin(scene: Scene) -> None:
    one = dataclasses.replace(scene, frames=scene.split("train")[:1])
    assert run(one, steps=5).index == 5


def test_pictures_that_are_transparent_everywhere_are_refused(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="visual hull is empty"):
        fit_volume(without_alpha(scene, tmp_path, value=0))


def test_wide_bounds_do_not_hide_the_object(scene: Scene) -> None:
    wide = dataclasses.replace(scene, bounds=torch.tensor([[-30.0] * 3, [30.0] * 3]))
    field = run(wide, steps=1).result
    assert max(field.table.shape) * field.voxel_size < 6


def test_few_steps_reach_the_full_resolution(scene: Scene) -> None:
    field = run(scene, steps=20).result
    assert max(field.table.shape) == SMALL.resolution
    assert field.degree == SMALL.degree


def test_a_hull_needs_transparency(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no perspective image of the scene has an alpha"):
        fit_volume(without_alpha(scene, tmp_path), FitVolume(space="visual_hull"))


def test_a_scene_needs_training_frames(scene: Scene) -> None:
    with pytest.raises(InputError, match="no training frames"):
        fit_volume(dataclasses.replace(scene, frames=scene.split("test")))


def test_cameras_in_one_place_tell_nothing_of_distances(scene: Scene, tmp_path: Path) -> None:
    photos = without_alpha(scene, tmp_path)
    frame = photos.split("train")[0]
    same = [dataclasses.replace(frame, name=str(i)) for i in range(3)]
    with pytest.raises(InputError, match="all cameras share one position"):
        fit_volume(dataclasses.replace(photos, frames=tuple(same)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "`steps` should be above 0"),
        ({"steps": 2, "minutes": 1.0}, "`minutes` or `steps`, not both"),
        ({"minutes": float("nan")}, "`minutes` should be above 0"),
        ({"rays": -1}, "`rays` should be above 0"),
        ({"sparsity_loss_weight": -1.0}, "`sparsity_loss_weight` should be 0 or more"),
        ({"resolution": 8}, "`resolution` should be 16 to 1024, got 8"),
        ({"degree": 4}, "`degree` should be 0 to 3"),
        ({"space": "hole"}, "`space` should be one of auto, visual_hull, aabb, unbounded"),
        ({"background": "green"}, "`background` should be one of auto, white, black, random"),
    ],
)
def test_settings_out_of_range_are_refused(scene: Scene, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_volume(scene, FitVolume(**changes))


def ball(contracted: bool) -> SparseVoxels:
    """Make an orange ball of radius 1 around (1, 2, 3), hollow where no ray gets."""
    middle = torch.tensor([1.0, 2.0, 3.0])
    if contracted:
        field = SparseVoxels.from_mask(
            torch.ones(32, 32, 32, dtype=torch.bool), SceneBox.cube(middle, 2.0, contracted=True), degree=0
        )
        places = middle + 2.0 * (field.table.corner_positions / 8 - 2)
    else:
        low = middle - 1.5
        box = SceneBox.cube(middle, 1.5)
        field = SparseVoxels.from_mask(torch.ones(32, 32, 32, dtype=torch.bool), box, degree=0)
        places = low + field.table.corner_positions * (3 / 32)
    radius = (places - middle).norm(dim=-1)
    with torch.no_grad():
        field.log_density.copy_(3 + 20 * (1 - radius).clamp(-0.5, 0.5))
        field.harmonics.copy_(torch.tensor([1.5, 0.0, -1.5]).expand_as(field.harmonics))
    deep = radius[field.table.corners[:, 0].long()] < 0.5
    return field if contracted else field.keep(~deep)[0]


@pytest.mark.parametrize("contracted", [False, True])
def test_the_surface_of_a_ball_is_a_closed_sphere(contracted: bool) -> None:
    mesh = extract_surface(ball(contracted))
    radius = (mesh.vertices - torch.tensor([1.0, 2.0, 3.0])).norm(dim=-1)
    assert is_watertight(mesh)
    assert float((radius - radius.mean()).abs().max()) < 0.03
    assert float(radius.mean()) == pytest.approx(1, abs=0.1)
    assert float(unrender.enclosed_volume(mesh)) > 0
    assert mesh.vertex_colors[:, 0].mean() > 0.9 > 0.1 > mesh.vertex_colors[:, 2].mean()
    cloud = cloud_from_mesh(mesh)
    outward = cloud.points - torch.tensor([1.0, 2.0, 3.0])
    assert bool(((outward * cloud.normals).sum(-1) > 0.9).all())


def test_an_empty_field_has_no_surface() -> None:
    fog = SparseVoxels.from_mask(torch.ones(4, 4, 4, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 2.0))
    with pytest.raises(InputError, match="lower `opacity`"):
        extract_surface(fog)


def test_a_field_comes_back_from_its_file(tmp_path: Path) -> None:
    field = ball(contracted=False)
    save_field(field, tmp_path / "ball.safetensors")
    again = load_field(tmp_path / "ball.safetensors")
    points = torch.rand(100, 3) * 3
    for one, other in zip(field(points, points), again(points, points), strict=True):
        assert torch.equal(one, other)
    assert (again.voxel_size, again.near) == (field.voxel_size, field.near)


@pytest.mark.parametrize("keep", [0, 7, 100, 20_000])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "ball.safetensors"
    save_field(ball(contracted=False), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileFormatError, match=r"ball\.safetensors"):
        load_field(path)


def test_files_of_older_versions_are_refused(tmp_path: Path) -> None:
    tensors, description = ball(contracted=False).contents()
    save_tensors(tensors, {"kind": "voxels"} | description, tmp_path / "old.safetensors")
    with pytest.raises(FileFormatError, match=r"old\.safetensors.*older version.*train the field again"):
        load_field(tmp_path / "old.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_density", lambda tensor: tensor * torch.nan),
        ("log_density", lambda tensor: tensor.double()),
        ("harmonics", lambda tensor: tensor[:, :2]),
        ("background", lambda tensor: tensor[:2]),
        ("voxels", lambda tensor: tensor - 1),
    ],
)
def test_contents_that_no_field_has_are_refused(tmp_path: Path, name: str, value) -> None:
    tensors, description = ball(contracted=False).contents()
    tensors[name] = value(tensors[name])
    path = tmp_path / "odd.safetensors"
    save_tensors(tensors, {"kind": "voxels", "format": FORMAT} | description, path)
    with pytest.raises(FileFormatError, match=r"odd\.safetensors.*SparseVoxels"):
        load_field(path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weights": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(FileFormatError, match="the file was not written by unrender"):
        load_field(tmp_path / "other.safetensors")


def test_what_is_done_between_steps_takes_none_of_the_minutes(scene: Scene, monkeypatch) -> None:
    paused = 0.0
    now = time.perf_counter
    monkeypatch.setattr("unrender.training.loop.time.perf_counter", lambda: now() + paused)
    for step in fit_volume(scene, dataclasses.replace(SMALL, steps=3, resolution=16, rays=256)):
        assert step.seconds < 1e6
        paused += 1e6
    assert paused == 3e6


def same(one: SparseVoxels, other: SparseVoxels) -> bool:
    tensors = one.contents()[0], other.contents()[0]
    return all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


STREAMED = dataclasses.replace(SMALL, steps=40, rays=2048, memory_mib=0.1, total_variation_loss_weight=0.1)


@pytest.fixture(scope="module")
def whole(scene: Scene) -> TrainingStep[SparseVoxels]:
    """The last step of a training that never stopped."""
    *_, last = fit_volume(scene, STREAMED)
    return last


@pytest.mark.parametrize("stop_at", [1, 7, 33])
def test_a_resumed_fit_has_the_numbers_of_one_that_never_stopped(
    scene: Scene, whole: TrainingStep[SparseVoxels], tmp_path: Path, stop_at: int
) -> None:
    first = fit_volume(scene, STREAMED, checkpoints=tmp_path)
    for _ in range(stop_at):
        next(first)
    first.close()
    rest = list(fit_volume(scene, STREAMED, resume=tmp_path))
    assert rest[0].index == stop_at + 1
    assert same(whole.result, rest[-1].result)
    assert rest[-1].losses == whole.losses


KILLED = """
import sys, unrender
from pathlib import Path
from unrender.training.schedule import Schedule
loop = Schedule(first_checkpoint_seconds=0.0, checkpoint_seconds=0.0, checkpoint_fraction=float("inf"))
scene, small = unrender.load_scene(sys.argv[1]), unrender.FitVolume(resolution=48, steps=24, rays=2048, degree=1)
for step in unrender.fit_volume(scene, small, schedule=loop, checkpoints=Path(sys.argv[2])):
    print(step.index, flush=True)
"""


def test_a_killed_fit_loses_nothing_that_was_saved(scene: Scene, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, steps=24, rays=2048)
    *_, whole = fit_volume(scene, config)
    for moment in (0.0, 0.037):
        process = launched.Forked(["-c", KILLED, str(scene.folder), str(tmp_path)])
        while process.stdout.readline().strip() != "12":
            assert process.returncode is None
        time.sleep(moment)
        process.kill()
        process.communicate()
        rest = list(fit_volume(scene, config, resume=tmp_path))
        assert rest[0].index > 10  # that of step 11 may be half-written
        assert same(whole.result, rest[-1].result)
        assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_checkpoint_of_another_task_or_format_is_refused(scene: Scene, tmp_path: Path) -> None:
    fit = fit_volume(scene, SMALL, checkpoints=tmp_path)
    next(fit)
    fit.close()
    with pytest.raises(InputError, match="it is of fit_volume, not fit_nerf"):
        unrender.fit_nerf(scene, unrender.FitNerf(steps=10), resume=tmp_path)
    tensors, description = load_tensors(tmp_path / CHECKPOINT)
    for changes in ({"format": 0}, {"kind": "checkpoint of fit-nerf"}):
        save_tensors(tensors, description | changes, tmp_path / CHECKPOINT)
        with pytest.raises(FileFormatError, match=r"in a format that .* does not read; start a new run"):
            fit_volume(scene, SMALL, resume=tmp_path)
