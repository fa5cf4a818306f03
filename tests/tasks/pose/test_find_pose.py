"""Poses from pictures of the demo object, which is colored, and of solids that have symmetries."""

import dataclasses
import functools
import itertools
import math
import re

import pytest
import torch

import unrender
from check_kernel import num_threads
from unrender import Camera, FindPose, InputError, Mesh, Photo
from unrender.geometry.camera import rigid, transform
from unrender.geometry.simplify import cluster_vertices
from unrender.tasks.pose.find_pose import PoseEstimate

LIGHT = (unrender.AmbientLight(0.3), unrender.DirectionalLight(torch.tensor([0.3, -0.8, -0.5]), 0.7))
SIZE = 160
FOCAL = 240.0
QUICK = FindPose(num_views=300, num_starts=20, resolution=128)


@functools.cache
def elephant() -> Mesh:
    return cluster_vertices(unrender.demo_object(), 20).to(torch.float32)


def pose(seed: int, x: float = 0.3, y: float = -0.2, z: float = 4.0) -> torch.Tensor:
    rotation = unrender.random_rotations(1, generator=torch.Generator().manual_seed(seed))[0]
    return rigid(rotation.float(), torch.tensor([x, y, z]))


def camera_at(camera_from_object: torch.Tensor, size: int = SIZE, shift: float = 0.0) -> Camera:
    center = torch.tensor([size / 2 + shift, size / 2])
    return Camera(torch.tensor([FOCAL, FOCAL]), center, camera_from_object, size, size)


def take_photo(mesh: Mesh, camera: Camera, *, depth: bool = False) -> Photo:
    image = unrender.render_mesh(mesh, camera, lights=LIGHT, supersampling=2).clamp(0, 1)
    z = unrender.render_depth(mesh, camera)
    return Photo(image, (z > 0).float(), camera.replace(camera_from_world=torch.eye(4)), z if depth else None)


def solve(mesh: Mesh, photo: Photo, config: FindPose = QUICK, **arguments) -> PoseEstimate:
    *_, last = unrender.find_pose(mesh, photo, config, **arguments)
    return last.result


def errors(found: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Return degrees, and the shift of the origin, which is in the middle of our objects."""
    found = found.to(truth)
    angle = unrender.rotation_angle(found[:3, :3].contiguous(), truth[:3, :3].contiguous())
    return math.degrees(float(angle)), float((found[:3, 3] - truth[:3, 3]).norm())


@pytest.mark.parametrize(("seed", "use_color"), [(0, True), (1, True), (2, True), (0, False)])
def test_finds_an_object_without_a_guess(seed, use_color):
    truth = pose(seed)
    photo = take_photo(elephant(), camera_at(truth))
    estimate = solve(elephant(), photo, dataclasses.replace(QUICK, use_color=use_color))
    angle, shift = errors(estimate.camera_from_object, truth)
    assert angle < 2
    assert shift < 0.04
    assert estimate.status == "converged"
    assert estimate.agreement > 0.95
    assert angle < 4 * estimate.rotation_std_degrees + 0.5
    assert 0 < estimate.translation_std < 0.1


@functools.cache
def solve_with_focal_error(factor: float) -> PoseEstimate:
    photo = take_photo(elephant(), camera_at(pose(0)))
    camera = photo.camera.replace(focal=photo.camera.focal * factor)
    return solve(elephant(), photo.replace(camera=camera), QUICK, guess=pose(0))


@pytest.mark.parametrize(("factor", "size"), [(1 / 1.15, "small"), (1.15, "large")])
def test_reports_a_wrong_focal_length(factor, size):
    estimate = solve_with_focal_error(factor)
    assert estimate.status == "ambiguous"
    assert re.fullmatch(f"the focal length seems to be about [0-9]+ % too {size}", estimate.message)
    assert estimate.translation_std > errors(estimate.camera_from_object, pose(0))[1] > 0.3


def test_trusts_the_focal_length_of_a_calibrated_camera():
    photo = take_photo(elephant(), camera_at(pose(0)))
    wrong = photo.replace(camera=photo.camera.replace(focal=photo.camera.focal * 1.15))
    calibrated = dataclasses.replace(QUICK, focal_length_std=0.0)
    estimate = solve(elephant(), wrong, calibrated, guess=pose(0))
    assert not estimate.message
    assert estimate.translation_std < solve_with_focal_error(1.15).translation_std / 5
    assert not solve_with_focal_error(1.0).message


def test_reports_a_mask_that_is_too_large():
    photo = take_photo(elephant(), camera_at(pose(0)))
    larger = torch.nn.functional.max_pool2d(photo.mask[None], 5, 1, 2)[0]
    estimate = solve(
        elephant(), photo.replace(mask=larger), dataclasses.replace(QUICK, use_color=False), guess=pose(0)
    )
    assert estimate.status == "ambiguous"
    assert "the mask seems to be too large" in estimate.message
    assert estimate.translation_std > errors(estimate.camera_from_object, pose(0))[1]


def test_steps_lower_the_cost_within_a_stage():
    photo = take_photo(elephant(), camera_at(pose(3)))
    steps = list(unrender.find_pose(elephant(), photo, QUICK))
    for before, after in itertools.pairwise(steps):
        assert after.index == before.index + 1 <= after.last_index
        assert after.stage != before.stage or after.cost <= before.cost
    assert [s for s, t in itertools.pairwise(steps) if s.stage != t.stage]
    assert steps[-1].stage == "128 pixels"


def test_same_photo_same_numbers_for_any_number_of_threads():
    photo = take_photo(elephant(), camera_at(pose(1)))
    few = FindPose(num_views=100, num_starts=6, resolution=64)
    found = []
    for threads in (1, 2):
        with num_threads(threads):
            found.append(solve(elephant(), photo, few).candidates)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)


def test_a_guess_replaces_the_search():
    truth = pose(4)
    photo = take_photo(elephant(), camera_at(truth))
    guess = truth.clone()
    guess[:3, :3] = unrender.so3_exp_map(torch.tensor([0.2, -0.15, 0.1])) @ guess[:3, :3]
    guess[:3, 3] += torch.tensor([0.05, 0.05, 0.3])
    estimate = solve(elephant(), photo, guess=guess)
    assert errors(estimate.camera_from_object, truth)[0] < 2


@pytest.mark.parametrize("scale", [1e-3, 1000.0])
def test_poses_are_in_the_units_of_the_mesh(scale):
    truth = pose(0)
    photo = take_photo(elephant(), camera_at(truth))
    offset = torch.tensor([3.0, -2.0, 5.0])
    moved = elephant().replace(vertices=(elephant().vertices + offset) * scale)
    estimate = solve(moved, photo)
    points = (
        moved.vertices.double() @ estimate.camera_from_object[:3, :3].mT + estimate.camera_from_object[:3, 3]
    )
    there = transform(truth, elephant().vertices).double() * scale
    assert float((points - there).norm(dim=1).mean()) < 0.05 * scale
    assert estimate.translation_std < 0.1 * scale


def test_depth_fixes_the_distance():
    truth = pose(5)
    photo = take_photo(elephant(), camera_at(truth), depth=True)
    estimate = solve(elephant(), photo, dataclasses.replace(QUICK, use_color=False))
    assert errors(estimate.camera_from_object, truth)[1] < 0.01


def test_an_object_cut_by_the_frame():
    truth = pose(6, x=0.0, y=0.0)
    photo = take_photo(elephant(), camera_at(truth, shift=0.36 * SIZE))
    assert photo.mask[:, -1].sum() > 20
    estimate = solve(elephant(), photo)
    assert errors(estimate.camera_from_object, truth)[0] < 3


def test_a_small_object_in_a_large_photo():
    truth = pose(7, x=4.0, y=-5.0, z=30.0)
    camera = Camera(torch.tensor([2000.0, 2000.0]), torch.tensor([750.0, 1000.0]), truth, 2000, 1500)
    estimate = solve(elephant(), take_photo(elephant(), camera))
    angle, shift = errors(estimate.camera_from_object, truth)
    assert angle < 3
    assert shift < 0.03 * 30


@pytest.mark.parametrize("what", ["inside-out", "degenerate", "unused"])
def test_odd_meshes(what):
    truth = pose(2)
    photo = take_photo(elephant(), camera_at(truth))
    mesh = elephant()
    if what == "inside-out":
        mesh = mesh.replace(faces=mesh.faces.flip(1))
    elif what == "degenerate":
        flat = torch.tensor([[0, 0, 1], [2, 2, 2]])
        mesh = mesh.replace(faces=torch.cat([mesh.faces, flat]))
    else:
        colors = torch.cat([mesh.vertex_colors, torch.zeros(1, mesh.vertex_colors.shape[1])])
        far = torch.tensor([[1e4, 0.0, 0.0]])
        mesh = Mesh(torch.cat([mesh.vertices, far]), mesh.faces, colors)
    assert errors(solve(mesh, photo).camera_from_object, truth)[0] < 2


@pytest.mark.parametrize(("name", "axis"), [("cube", None), ("torus", 2)])
def test_symmetric_objects_are_ambiguous(name, axis):
    mesh = (unrender.cube() if name == "cube" else unrender.torus()).to(torch.float32)
    photo = take_photo(mesh, camera_at(pose(8, z=6.0)))
    estimate = solve(mesh, photo, dataclasses.replace(QUICK, use_color=False))
    assert estimate.status == "ambiguous"
    assert len(estimate.candidates) > 3 or estimate.rotation_std_degrees > 10
    for candidate in estimate.candidates:
        again = take_photo(mesh, camera_at(candidate.float())).mask
        both, either = (again * photo.mask).sum(), torch.maximum(again, photo.mask).sum()
        assert both / either > 0.95


def test_a_sphere_has_no_direction():
    mesh = unrender.ico_sphere(3).to(torch.float32)
    truth = pose(9)
    estimate = solve(mesh, take_photo(mesh, camera_at(truth)))
    assert estimate.status == "ambiguous"
    assert len(estimate.candidates) > 3
    assert errors(estimate.camera_from_object, truth)[1] < 0.05


def test_another_object_fails():
    mask = torch.zeros(SIZE, SIZE)
    mask[20:140, 70:84] = 1
    camera = camera_at(torch.eye(4))
    estimate = solve(elephant(), Photo(torch.rand(SIZE, SIZE, 3), mask, camera))
    assert estimate.status == "failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mesh": Mesh(torch.rand(5, 3), torch.zeros(0, 3, dtype=torch.long))},
            "should be a single mesh with faces",
        ),
        (
            {"mesh": Mesh(torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]]))},
            "NaN or infinite vertices",
        ),
        ({"mesh": Mesh(torch.ones(3, 3), torch.tensor([[0, 1, 2]]))}, "all vertices of `mesh` coincide"),
        ({"mesh": Mesh(torch.eye(3), torch.tensor([[0, 1, 1]]))}, "no area"),
        ({"config": FindPose(num_views=3)}, "`num_views` should be an integer from 20 to 20000, got 3"),
        ({"config": FindPose(resolution=0)}, "`resolution` should be an integer from 32 to 2048"),
        ({"config": FindPose(num_views=10**6)}, "`num_views` should be an integer"),
        (
            {"config": FindPose(num_starts=4.5)},
            "`num_starts` should be an integer from 1 to 2000, got 4.5",
        ),
        ({"config": FindPose(focal_length_std=-0.1)}, "`focal_length_std` should be from 0 to 1, got -0.1"),
        ({"guess": torch.eye(4).numpy()}, "`guess` should be a 4 × 4 rigid transform"),
        (
            {"guess": torch.eye(4).expand(2, 4, 4)},
            r"`guess` should be a 4 × 4 rigid transform.*got float32\[2, 4, 4\]",
        ),
        ({"guess": torch.eye(4) * 2}, "`guess` should be a 4 × 4 rigid transform"),
        (
            {"guess": torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))},
            "`guess` should be a 4 × 4 rigid transform",
        ),
    ],
)
def test_refuses(arguments, message):
    photo = take_photo(elephant(), camera_at(pose(0)))
    given = {"mesh": elephant(), "photo": photo, "config": QUICK} | arguments
    with pytest.raises(InputError, match=message):
        unrender.find_pose(given.pop("mesh"), given.pop("photo"), given.pop("config"), **given)


def test_refuses_depth_in_other_units():
    photo = take_photo(elephant(), camera_at(pose(0)), depth=True)
    wrong = photo.replace(depth=photo.depth * 1000)
    with pytest.raises(InputError, match=r"depth is [\d,]+ times .*units"):
        next(iter(unrender.find_pose(elephant(), wrong, QUICK)))


def test_a_cloud_far_away_with_points_that_are_not_finite():
    truth = pose(3)
    samples = unrender.sample_points_from_mesh(elephant(), 3000, generator=torch.Generator().manual_seed(1))
    far = torch.tensor([1e6, -2e6, 3e5], dtype=torch.float64)
    points = transform(truth, samples.points).double() + far
    points[::50] = torch.nan
    estimate = solve(elephant(), unrender.PointCloud(points))
    there = truth.double()
    there[:3, 3] += far
    angle, shift = errors(estimate.camera_from_object, there)
    assert angle < 0.5
    assert shift < 0.005
    assert estimate.status == "converged"
    again = solve(elephant(), unrender.PointCloud(points), guess=estimate.camera_from_object)
    assert errors(again.camera_from_object, there)[0] < 0.5


def test_another_object_in_a_cloud_fails():
    points = unrender.sample_points_from_mesh(unrender.torus(), 3000).points * 0.6
    assert solve(elephant(), unrender.PointCloud(points)).status == "failed"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.full((100, 3), torch.nan), "too few finite points: 0"),
        (torch.rand(10, 3), "too few finite points: 10"),
        (torch.rand(100, 3) * 1000, "times as large as the mesh; use the same units for both"),
        (torch.zeros(100, 3), "nearly all points of the cloud coincide"),
    ],
)
def test_refuses_clouds(points, message):
    with pytest.raises(InputError, match=message):
        unrender.find_pose(elephant(), unrender.PointCloud(points))


def test_a_ball_in_a_cloud_has_no_direction():
    ball = unrender.ico_sphere(3)
    points = unrender.sample_points_from_mesh(ball, 2000, generator=torch.Generator().manual_seed(2)).points
    estimate = solve(ball, unrender.PointCloud(points))
    assert estimate.status == "ambiguous"
    assert float(estimate.camera_from_object[:3, 3].norm()) < 1e-3


def test_a_guess_behind_the_camera_fails():
    photo = take_photo(elephant(), camera_at(pose(0)))
    behind = pose(0)
    behind[2, 3] = -4
    estimate = solve(elephant(), photo, guess=behind)
    assert estimate.status == "failed"
    assert estimate.rotation_std_degrees == 180


def test_refuses_an_object_of_a_few_pixels():
    mask = torch.zeros(SIZE, SIZE)
    mask[0, 0] = mask[-1, -1] = 1
    with pytest.raises(InputError, match="too small in the photo: 2 pixels wide"):
        unrender.find_pose(elephant(), Photo(torch.rand(SIZE, SIZE, 3), mask, camera_at(torch.eye(4))))


@pytest.mark.parametrize("channels", [1, 4])
def test_vertex_colors_of_any_number_of_channels(channels):
    truth = pose(1)
    photo = take_photo(elephant(), camera_at(truth))
    mesh = elephant()
    colors = torch.cat([mesh.vertex_colors[:, :3], torch.ones(len(mesh.vertices), 1)], 1)[:, :channels]
    assert errors(solve(mesh.replace(vertex_colors=colors), photo).camera_from_object, truth)[0] < 2


def test_half_a_silhouette_does_not_converge():
    truth = pose(2)
    photo = take_photo(elephant(), camera_at(truth))
    mask = photo.mask.clone()
    rows = (mask > 0).any(1).nonzero()[:, 0]
    mask[int(rows[0]) + 7 * len(rows) // 10 :] = 0  # something hides the legs
    assert solve(elephant(), photo.replace(mask=mask)).status != "converged"


def test_refuses_an_object_without_silhouette():
    everywhere = Photo(torch.rand(SIZE, SIZE, 3), torch.ones(SIZE, SIZE), camera_at(torch.eye(4)))
    with pytest.raises(InputError, match="the object fills the photo"):
        unrender.find_pose(elephant(), everywhere)


def test_a_texture_tells_the_sides_of_a_cube_apart():
    """Each side has a color of its own, on a strip of six."""
    cube = unrender.cube()
    colors = torch.tensor([[1, 0, 0], [0, 0.8, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1.0]])
    normals = unrender.face_normals(cube)
    side = 2 * normals.abs().argmax(1) + (normals.sum(1) > 0)
    uvs = torch.stack([(torch.arange(6) + 0.5) / 6, torch.full((6,), 0.5)], 1)
    image = colors.repeat_interleave(4, 0)[None].expand(4, -1, -1)
    texture = unrender.Texture(image.double(), uvs.double(), side[:, None].expand(-1, 3).contiguous())
    truth = Camera.look_at([2.5, 1.6, 3.2], height=1, width=1).camera_from_world  # three sides
    camera = camera_at(truth)
    light = (unrender.AmbientLight(0.9),)
    mesh, paint = cube.to(torch.float32), texture.to(torch.float32)
    photo = unrender.render_mesh(mesh, camera, texture=paint, lights=light, supersampling=2).clamp(0, 1)
    mask = (unrender.render_depth(mesh, camera) > 0).float()
    seen = Photo(photo, mask, camera.replace(camera_from_world=torch.eye(4)))
    estimate = solve(cube, seen, texture=texture)
    assert estimate.status == "converged"
    assert errors(estimate.camera_from_object, truth)[0] < 2
    assert solve(cube, seen, dataclasses.replace(QUICK, use_color=False)).status == "ambiguous"


def test_an_occluder_that_is_ignored_does_not_cut_the_object():
    truth = pose(1)
    photo = take_photo(elephant(), camera_at(truth))
    columns = photo.mask.sum(0).nonzero()[:, 0]
    hidden = torch.zeros_like(photo.mask)
    hidden[:, : int(columns[0]) + int(0.35 * len(columns))] = 1
    cut = photo.replace(
        mask=photo.mask * (1 - hidden), image=photo.image * (1 - hidden[..., None]), ignore=hidden
    )
    angle, shift = errors(solve(elephant(), cut).camera_from_object, truth)
    assert angle < 3
    assert shift < 0.1


def test_the_distance_is_not_more_certain_than_the_size_of_the_mask():
    truth = pose(0)
    photo = take_photo(elephant(), camera_at(truth))
    larger = torch.nn.functional.max_pool2d(photo.mask[None], 5, 1, 2)[0]
    estimate = solve(elephant(), photo.replace(mask=larger))
    _, shift = errors(estimate.camera_from_object, truth)
    assert shift < 6 * estimate.translation_std


def test_a_small_object_without_depth_does_not_converge():
    truth = pose(1, z=14.0)
    photo = take_photo(elephant(), camera_at(truth))
    estimate = solve(elephant(), photo)
    assert estimate.status == "ambiguous"
    assert estimate.translation_std > 0.1


def test_a_box_replaces_the_mask(tmp_path):
    camera = camera_at(pose(1))
    image = unrender.render_mesh(
        elephant(), camera, lights=LIGHT, background=(0.1, 0.3, 0.1), supersampling=2
    )
    noise = 0.05 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    unrender.save_image((image + noise).clamp(0, 1), tmp_path / "photo.png")
    rows, columns = ((unrender.render_depth(elephant(), camera) > 0).any(k).nonzero()[:, 0] for k in (1, 0))
    box = tuple(float(v) for v in (columns[0] - 2, rows[0] - 2, columns[-1] + 3, rows[-1] + 3))
    intrinsics = (FOCAL, FOCAL, SIZE / 2, SIZE / 2)
    photo = unrender.load_photo(tmp_path / "photo.png", intrinsics=intrinsics, box=box)
    angle, shift = errors(solve(elephant(), photo).camera_from_object, pose(1))
    assert angle < 3
    assert shift < 0.1
    for wrong, message in (((9, 9, 5, 5), "left, top, right, bottom"), ((0, 0, 3, 90), "at least")):
        with pytest.raises(InputError, match=message):
            unrender.load_photo(tmp_path / "photo.png", intrinsics=intrinsics, box=wrong)
    with pytest.raises(InputError, match="either `mask` or `box`"):
        unrender.load_photo(tmp_path / "photo.png", intrinsics=intrinsics, box=box, mask="mask.png")
