"""Pose tracking: follow known objects through a video or a depth stream."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.data.photos import Photo
from unrender.errors import InputError, ShapeError
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.io.frame_sequences import have_same_aspect
from unrender.render.texture import Texture
from unrender.tasks.pose.color_regions import Array
from unrender.tasks.pose.find_pose import FindPose, find_pose, is_rigid
from unrender.tasks.pose.object_model import Placement, make_model
from unrender.tasks.pose.object_tracker import ObjectTracker, TrackStatus

GRAY_TOLERANCE = 4
"""Largest difference between the channels of a gray image, of 255: video codecs add some."""
MIN_RESOLUTION, MAX_RESOLUTION = 64, 640
RANGE_TOLERANCE = 0.05
"""By which the floats of a frame may leave [0, 1]: resampling overshoots a little."""


@dataclasses.dataclass(frozen=True)
class TrackPose:
    """Track the pose of known objects from frame to frame: by color, texture and, where there is any, depth.

    The contour of the object separates its colors from those around it; both color histograms are updated. Texture
    comes from the colors of the mesh and from keyframes of the video. Neither training nor masks are needed.
    """

    use_texture: bool = True
    """Align texture on the object: the colors of the mesh, and keyframes of the video."""
    use_depth: bool = True
    """Align measured depth, where there is any."""
    resolution: int = 160
    """Resolution: an object that is larger, in pixels, is subsampled."""
    redetect: bool = True
    """Search for a lost object: first near its last pose, then in the whole frame."""


class TrackedObject(NamedTuple):
    """An object to track, with its initial pose, the mask of the first frame, or both."""

    mesh: Mesh
    texture: Texture | None = None
    guess: Tensor | None = None
    """Pose in the first frame, 4 × 4, accurate to about 10 degrees and a tenth of the object's size."""
    mask: Tensor | None = None
    """[height, width] in [0, 1]: the pixels of the object in the first frame, from which `find_pose` estimates the
    initial pose; near the guess, if there is one."""
    name: str = "object"


class TrackedPose(TensorStruct):
    """The pose of an object in a frame."""

    camera_from_object: Float[Tensor, "4 4"]
    """4 × 4 rigid transform from the mesh's frame and units to the camera frame; while lost, the last known one."""
    status: TrackStatus
    """tracked: reliable. uncertain: for a few frames, the image does not support the pose. lost: not found."""
    confidence: float
    """Estimated probability that the pose is correct, within 5 degrees and 5 % of the distance, in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class TrackPoseStep:
    """The poses of all objects in a frame."""

    index: int
    last_index: int
    """Index of the last frame; -1 if it is unknown."""
    poses: tuple[TrackedPose, ...]
    """One for each object."""

    @property
    def result(self) -> tuple[TrackedPose, ...]:
        """The poses, as for other tasks."""
        return self.poses


class PoseTracker:
    """Tracks objects through frames that are given one at a time, such as those of a camera.

    Frames have the size of `camera`; others of the same aspect ratio are resampled. The camera or the objects move:
    poses are relative to the camera. Computes on the CPU.

    Example: `tracker = PoseTracker([TrackedObject(mesh, guess=pose)], camera)`, then `tracker.step(image)` for each
    frame.
    """

    def __init__(
        self, objects: Sequence[TrackedObject], camera: Camera, config: TrackPose = TrackPose()
    ) -> None:
        _check(objects, camera, config)
        self.config = config
        self.camera = camera.to("cpu").to(torch.float32)
        self._objects = [_on_cpu(item) for item in objects]
        self._trackers: list[ObjectTracker] = []
        self._placements: list[Placement] = []
        for item in self._objects:
            model, placement = make_model(item.mesh, item.texture, config.use_texture, "track_pose")
            self._placements.append(placement)
            self._trackers.append(
                ObjectTracker(model, self.camera, config.resolution, config.use_texture, config.redetect)
            )
        self._is_started = False

    def step(
        self, image: Tensor, depth: Tensor | None = None, *, guesses: Sequence[Tensor | None] | None = None
    ) -> tuple[TrackedPose, ...]:
        """Track all objects to the next frame; the first frame initializes them.

        image: [height, width, 3], floats in [0, 1] or 8-bit integers. depth: [height, width], z-depth in mesh units, 0
        where unknown. `guesses` restart objects at given poses in this frame.
        """
        pixels = _pixels(image, self.camera)
        measured = None if depth is None or not self.config.use_depth else _depth(depth, self.camera)
        results = []
        for k, (tracker, placement) in enumerate(zip(self._trackers, self._placements, strict=True)):
            scaled = None if measured is None else measured / np.float32(placement.radius)
            guess = guesses[k] if guesses is not None else None
            if guess is None and not self._is_started:
                guess = self._initial_pose(k, image)
            if guess is not None:
                is_gray = bool(np.ptp(pixels[::4, ::4], axis=2).max() <= GRAY_TOLERANCE)
                start = placement.from_world(_rigid(guess.cpu()))
                tracker.start(pixels, scaled, start.double().numpy(), is_gray)
            else:
                tracker.step(pixels, scaled)
            assert tracker.pose is not None
            pose = placement.to_world(torch.from_numpy(tracker.pose))
            results.append(TrackedPose(pose, tracker.status, tracker.confidence))
        self._is_started = True
        return tuple(results)

    def _initial_pose(self, k: int, image: Tensor) -> Tensor:
        item = self._objects[k]
        if item.mask is None and item.guess is not None:
            return item.guess
        if item.mask is None:
            raise InputError(
                f"track_pose: {item.name} has no initial pose; give `guess`, or `mask`, its pixels in the first frame"
            )
        colors = image.float() / 255 if image.dtype == torch.uint8 else image.float()
        photo = Photo(colors.cpu(), item.mask.float(), self.camera)
        config = FindPose(use_color=self.config.use_texture)
        *_, last = find_pose(item.mesh, photo, config, texture=item.texture, guess=item.guess)
        if last.result.status == "failed":
            raise InputError(
                f"track_pose: no pose of {item.name} fits the mask of the first frame (IoU "
                f"{last.result.agreement:.2f}); check the mask and the intrinsics, or give `guess`"
            )
        return last.result.camera_from_object


def track_pose(
    objects: Sequence[TrackedObject],
    frames: Iterable[Tensor | tuple[Tensor, Tensor | None]],
    camera: Camera,
    config: TrackPose = TrackPose(),
) -> Iterator[TrackPoseStep]:
    """Track objects through frames; yields the poses of each frame as soon as it is read.

    Frames are images, or pairs of an image and its depth, as for `PoseTracker.step`. Check `status` before you use a
    pose.

    Example: `for step in track_pose([TrackedObject(mesh, guess=pose)], frames, camera): print(step.poses[0].status)`.
    """
    tracker = PoseTracker(objects, camera, config)
    last = len(frames) - 1 if isinstance(frames, Sequence) else -1

    def steps() -> Iterator[TrackPoseStep]:
        for index, frame in enumerate(frames):
            image, depth = (frame, None) if isinstance(frame, Tensor) else frame
            yield TrackPoseStep(index, last, tracker.step(image, depth))

    return steps()


def _check(objects: Sequence[TrackedObject], camera: Camera, config: TrackPose) -> None:
    if isinstance(objects, TrackedObject) or not objects:
        raise InputError(
            f"track_pose: `objects` should be a list of at least one object, got {describe_value(objects)}"
        )
    if not isinstance(config.resolution, int) or not MIN_RESOLUTION <= config.resolution <= MAX_RESOLUTION:
        raise InputError(
            f"track_pose: `resolution` should be an integer from {MIN_RESOLUTION} to {MAX_RESOLUTION}, "
            f"got {config.resolution!r}"
        )
    if camera.focal.dim() != 1 or camera.projection != "perspective" or camera.lens is not None:
        raise InputError(
            "track_pose: `camera` should be a single perspective camera without a lens; undistort the frames first"
        )
    if not torch.equal(camera.camera_from_world, torch.eye(4).to(camera.camera_from_world)):
        raise InputError("track_pose: the pose of `camera` should be the identity: poses are relative to it")
    for item in objects:
        if item.guess is not None:
            _rigid(item.guess)
        size = (camera.height, camera.width)
        if item.mask is not None and tuple(item.mask.shape) != size:
            raise ShapeError(
                f"track_pose: `mask` of {item.name} should have the size of the camera, {size[0]} × {size[1]}, got "
                f"{describe_value(item.mask)}"
            )


def _on_cpu(item: TrackedObject) -> TrackedObject:
    return item._replace(
        **{name: value.to("cpu") for name, value in item._asdict().items() if hasattr(value, "to")}
    )


def _rigid(pose: Tensor) -> Tensor:
    if not is_rigid(pose):
        raise InputError(
            "track_pose: `guess` should be a 4 × 4 rigid transform (rotation and translation) from the mesh to the "
            f"camera, got {describe_value(pose)}"
        )
    return pose


def _pixels(image: Tensor, camera: Camera) -> NDArray[np.uint8]:
    """Return a frame as 8-bit RGB of the camera's size."""
    if (
        not isinstance(image, Tensor)
        or image.dim() != 3
        or image.shape[-1] not in (1, 3)
        or not image.numel()
    ):
        raise ShapeError(
            f"track_pose: a frame should be [height, width, 3] (or 1 channel), got {describe_value(image)}"
        )
    if image.dtype != torch.uint8:
        low, high = (float(end) for end in image.aminmax())
        tolerance = RANGE_TOLERANCE if image.is_floating_point() else -1.0
        if not (low >= -tolerance and high <= 1 + tolerance):
            raise InputError(
                "track_pose: a frame should be finite floats in [0, 1] or 8-bit integers, got "
                f"{describe_value(image)} from {low:g} to {high:g}"
            )
        image = (image.clamp(0, 1) * 255).round().byte()
    pixels = image.cpu().expand(-1, -1, 3).contiguous().numpy()
    height, width = pixels.shape[:2]
    if (height, width) == (camera.height, camera.width):
        return pixels
    if not have_same_aspect((height, width), (camera.height, camera.width)):
        raise InputError(
            f"track_pose: a frame has {width} × {height} pixels, but the camera {camera.width} × {camera.height}; "
            "frames should have the camera's aspect ratio"
        )
    from PIL import Image

    resized = Image.fromarray(pixels).resize((camera.width, camera.height), Image.Resampling.BOX)
    return np.asarray(resized)


def _depth(depth: Tensor, camera: Camera) -> Array:
    if not isinstance(depth, Tensor) or depth.shape != (camera.height, camera.width):
        raise ShapeError(
            f"track_pose: `depth` should have the size of the camera, {camera.height} × {camera.width}, got "
            f"{describe_value(depth)}"
        )
    values: Array = depth.cpu().float().nan_to_num(nan=0, posinf=0, neginf=0).clamp(min=0).numpy()
    return values
