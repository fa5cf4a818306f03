"""Tracking through rendered sequences: a colored object, an occluder, a loss, depth, and invalid input."""

import functools
import math

import pytest
import torch

import unrender
from unrender import Camera, InputError, Mesh, PoseTracker, ShapeError, TrackedObject, TrackPose
from unrender.geometry.camera import rigid
from unrender.geometry.simplify import cluster_vertices

WIDTH, HEIGHT, FOCAL = 200, 150, 190.0
DEFAULTS = TrackPose()
LIGHT = (unrender.AmbientLight(0.4), unrender.DirectionalLight(torch.tensor([0.3, -0.8, -0.5]), 0.6))


@functools.cache
def elephant() -> Mesh:
    return cluster_vertices(unrender.demo_object(), 20).to(torch.float32)


def camera() -> Camera:
    return Camera(
        torch.tensor([FOCAL] * 2), torch.tensor([WIDTH / 2, HEIGHT / 2]), torch.eye(4), HEIGHT, WIDTH
    )


def pose(frame: float, x: float = 0.0) -> torch.Tensor:
    start = unrender.random_rotations(1, generator=torch.Generator().manual_seed(0))[0].float()
    rotation = unrender.so3_exp_map(torch.tensor([0.02, 0.04, 0.01]) * frame) @ start
    return rigid(rotation, torch.tensor([0.03 * frame - 0.2 + x, 0.02 * frame - 0.1, 4.0 + 0.02 * frame]))


@functools.cache
def background() -> torch.Tensor:
    noise = torch.rand(1, 3, 15, 20, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(noise, size=(HEIGHT, WIDTH), mode="bilinear")[0].movedim(0, -1)
    return smooth * torch.tensor([0.3, 0.9, 0.3])


@functools.cache
def picture(frame: float, x: float = 0.0) -> torch.Tensor:
    at_pose = camera().replace(camera_from_world=pose(frame, x))
    rendered = unrender.render_mesh(elephant(), at_pose, lights=LIGHT, background=None, supersampling=2)
    return (rendered[..., :3] + background() * (1 - rendered[..., 3:])).clamp(0, 1)


def tracker(config: TrackPose = DEFAULTS, mesh: Mesh | None = None) -> PoseTracker:
    return PoseTracker([TrackedObject(mesh or elephant(), guess=pose(0))], camera(), config)


def errors(found: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Return degrees, and the shift relative to the distance."""
    found = found.to(truth)
    angle = unrender.rotation_angle(found[:3, :3].contiguous(), truth[:3, :3].contiguous())
    return math.degrees(float(angle)), float((found[:3, 3] - truth[:3, 3]).norm() / truth[2, 3])


def follow(track: PoseTracker, num: int) -> list[tuple[float, float]]:
    found = []
    for frame in range(num):
        (tracked,) = track.step(picture(frame))
        assert tracked.status == "tracked"
        assert tracked.confidence > 0.7
        found.append(errors(tracked.camera_from_object, pose(frame)))
    return found


def test_follows_a_colored_object():
    found = follow(tracker(), 8)
    assert max(degrees for degrees, _ in found) < 2.0
    assert max(shift for _, shift in found) < 0.02


def test_follows_the_contour_of_an_object_without_colors():
    plain = elephant().replace(vertex_colors=None)
    found = follow(tracker(TrackPose(use_texture=False), plain), 6)
    assert max(degrees for degrees, _ in found) < 5.0
    assert max(shift for _, shift in found) < 0.03


def test_same_frames_give_the_same_bits():
    first, second = (
        [step.poses[0].camera_from_object for step in steps]
        for steps in (
            unrender.track_pose(
                [TrackedObject(elephant(), guess=pose(0))], [picture(k) for k in range(3)], camera()
            )
            for _ in range(2)
        )
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_occluder_does_not_move_the_pose():
    track = tracker()
    for frame in range(6):
        image = picture(frame).clone()
        image[:, WIDTH // 2 + 22 - 4 * frame :] = torch.tensor([0.1, 0.2, 0.9])
        (tracked,) = track.step(image)
    assert tracked.status == "tracked"
    agreement = track._trackers[0].agreement
    assert agreement.visible < 0.9
    assert agreement.edges > agreement.all_edges
    degrees, shift = errors(tracked.camera_from_object, pose(5))
    assert degrees < 4
    assert shift < 0.03


def test_says_that_an_object_is_lost_and_finds_it_again():
    track = tracker()
    for frame in range(4):
        track.step(picture(frame))
    statuses = [track.step(background())[0].status for _ in range(4)]
    assert statuses[-1] == "lost"
    assert "tracked" not in statuses
    found = [track.step(picture(4, 0.4))[0] for _ in range(3)]
    assert found[-1].status == "tracked"
    degrees, shift = errors(found[-1].camera_from_object, pose(4, 0.4))
    assert degrees < 3
    assert shift < 0.03


def test_an_object_that_leaves_is_searched_for_without_errors():
    track = tracker()
    found = [track.step(picture(0, x))[0] for x in (0.0, 0.0, 0.6, 1.2, 1.8, 2.4)]
    found += [track.step(torch.zeros(HEIGHT, WIDTH, 3))[0] for _ in range(7)]
    assert found[-1].status == "lost"
    assert all(pose.confidence >= 0.5 for pose in found if pose.status == "tracked")


def test_a_pose_outside_the_image_is_not_tracked():
    track = tracker()
    track.step(picture(0))
    track._trackers[0].pose[0, 3] = 100.0
    (found,) = track.step(picture(0))
    assert (found.status, found.confidence) == ("uncertain", 0.0)


def test_an_object_that_is_never_there_is_not_tracked():
    track = tracker()
    assert [track.step(background())[0].status for _ in range(4)][-1] == "lost"


def test_finds_an_object_that_is_not_visible_in_the_first_frames():
    track = tracker()
    assert all(track.step(background())[0].status != "tracked" for _ in range(4))
    found = [track.step(picture(1, 0.5))[0] for _ in range(4)]
    assert found[-1].status == "tracked"
    degrees, shift = errors(found[-1].camera_from_object, pose(1, 0.5))
    assert degrees < 3
    assert shift < 0.03


def turned(degrees: float, scale: float = 1.0) -> torch.Tensor:
    """Return the pose in frame 0 about its center, turned and at another distance."""
    wrong = pose(0).clone()
    axis = torch.tensor([0.3, 0.8, -0.5]) / 0.99
    wrong[:3, :3] = unrender.so3_exp_map(math.radians(degrees) * axis) @ wrong[:3, :3]
    wrong[:3, 3] *= scale
    return wrong


@pytest.mark.parametrize(
    ("guess", "mesh"),
    [(turned(75), None), (turned(0, 3.0), None), (pose(0), unrender.torus())],
    ids=["turned", "too far", "another mesh"],
)
@pytest.mark.parametrize("has_colors", [True, False])
def test_a_wrong_guess_is_not_tracked(guess, mesh, has_colors):
    mesh = elephant() if mesh is None else mesh.to(torch.float32)
    mesh = mesh if has_colors else mesh.replace(vertex_colors=None)
    track = PoseTracker([TrackedObject(mesh, guess=guess)], camera())
    for frame in range(3):
        (tracked,) = track.step(picture(frame))
        degrees, shift = errors(tracked.camera_from_object, pose(frame))
        assert tracked.status != "tracked" or (degrees < 5 and shift < 0.05)


def disturbed(frame: int) -> torch.Tensor | None:
    """Render a sequence with an occluder, a loss, and a return in another place; None: the object is gone."""
    if frame in LOST:
        return None
    image = picture(*((frame, 0.0) if frame < LOST.start else (frame - 3, 0.3)))
    if frame < LOST.start:
        image = image.clone()
        image[:, max(WIDTH // 2 + 28 - 6 * min(frame, 10 - frame), 0) :] = torch.tensor([0.1, 0.2, 0.9])
    return image


LOST = range(10, 15)


@pytest.mark.parametrize("has_colors", [True, False])
def test_frames_called_tracked_are_right_and_a_lost_object_is_called_lost(has_colors):
    mesh = elephant() if has_colors else elephant().replace(vertex_colors=None)
    track, called, statuses = tracker(mesh=mesh), list[bool](), list[str]()
    for frame in range(20):
        image = disturbed(frame)
        (tracked,) = track.step(background() if image is None else image)
        truth = pose(frame) if frame < LOST.start else pose(frame - 3, 0.3)
        degrees, shift = errors(tracked.camera_from_object, truth)
        statuses.append(tracked.status)
        if tracked.status == "tracked":
            called.append(image is not None and degrees < 5 and shift < 0.05)
    assert sum(called) >= 0.98 * len(called)
    assert len(called) >= 11
    assert "lost" in [statuses[k] for k in LOST]
    assert statuses[-1] == "tracked"


def test_depth_determines_the_distance():
    track = tracker(mesh=elephant().replace(vertex_colors=None))
    for frame in range(4):
        at_pose = camera().replace(camera_from_world=pose(frame))
        (tracked,) = track.step(picture(frame), unrender.render_depth(elephant(), at_pose))
    _, shift = errors(tracked.camera_from_object, pose(3))
    assert shift < 0.005


def test_other_sizes_and_gray_images():
    track = tracker()
    small = torch.nn.functional.avg_pool2d(picture(1).movedim(-1, 0), 2).movedim(0, -1)
    track.step(picture(0))
    assert track.step(small)[0].status == "tracked"
    gray = tracker()
    for frame in range(3):
        (tracked,) = gray.step((picture(frame).mean(-1, keepdim=True) * 255).byte())
    assert errors(tracked.camera_from_object, pose(2))[0] < 8


def test_several_objects_and_a_restart():
    objects = [TrackedObject(elephant(), guess=pose(0)), TrackedObject(elephant(), guess=pose(0))]
    track = PoseTracker(objects, camera())
    assert len(track.step(picture(0))) == 2
    restarted = track.step(picture(3), guesses=[pose(3), None])
    assert errors(restarted[0].camera_from_object, pose(3))[0] < 3


def test_a_mask_replaces_the_guess():
    mask = (unrender.render_depth(elephant(), camera().replace(camera_from_world=pose(0))) > 0).float()
    track = PoseTracker([TrackedObject(elephant(), mask=mask)], camera())
    (tracked,) = track.step(picture(0))
    assert errors(tracked.camera_from_object, pose(0))[0] < 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: PoseTracker([], camera()), "at least one object"),
        (lambda: PoseTracker([TrackedObject(elephant())], camera()).step(picture(0)), "no initial pose"),
        (lambda: PoseTracker([TrackedObject(elephant(), guess=torch.ones(4, 4))], camera()), "rigid"),
        (lambda: tracker(TrackPose(resolution=5)), "resolution"),
        (lambda: tracker().step(torch.zeros(150, 150, 3)), "aspect ratio"),
        (lambda: tracker().step(torch.full((HEIGHT, WIDTH, 3), math.nan)), "finite"),
    ],
)
def test_invalid_input_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        change()


def test_invalid_frames_are_refused():
    height, width = camera().height, camera().width
    for frame in (torch.full((height, width, 3), 255.0), torch.full((height, width, 3), -0.5)):
        with pytest.raises(InputError, match=r"finite floats in \[0, 1\] or 8-bit integers, got .* from"):
            tracker().step(frame)
    with pytest.raises(ShapeError, match="a frame should be"):
        tracker().step(torch.zeros(0, width, 3))
    with pytest.raises(ShapeError, match="`depth` should have the size"):
        tracker().step(torch.zeros(height, width, 3), torch.zeros(height, width).numpy())
    with pytest.raises(
        InputError, match="`objects` should be a list of at least one object, got TrackedObject"
    ):
        PoseTracker(TrackedObject(elephant(), guess=pose(0)), camera())


def test_invalid_shapes_are_refused():
    with pytest.raises(ShapeError, match="a frame should be"):
        tracker().step(torch.zeros(4, 4))
    with pytest.raises(ShapeError, match="`depth` should have the size"):
        tracker().step(picture(0), torch.zeros(3, 3))
