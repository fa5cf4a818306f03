"""Track objects through rendered sequences with known poses, and measure accuracy, honesty and speed.

python benchmarks/bench_track_pose.py --data FOLDER [--frames NUMBER] [--only MESH ...] [--sequences NAME ...]
    [--held-out]

A frame is correct within 5 degrees and 5 % of the distance. `leaves`: the object leaves the image and returns; frames
with less than 30 % of it visible do not count. `called`: of the frames with the status `tracked`, the fraction that is
correct. `ms`: median CPU time per frame. `--held-out`: sequences to which the confidence is not fitted.
"""

import argparse
import dataclasses
import math
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
from timing import machine
from torch import Tensor
from tracking_sequences import Sequence, camera_of, render_sequence

import unrender
from unrender import Mesh, PoseTracker, Texture, TrackedObject

MESHES = {
    "cow": "meshes/cow/cow.obj",
    "spot": "meshes/spot_bob/spot/spot.obj",
    "bob": "meshes/spot_bob/bob/bob_tri.obj",
    "teapot": "meshes/teapot.obj",
}
RED, GREEN = (0.75, 0.45, 0.35), (0.4, 0.5, 0.45)
SEQUENCES = {
    "still": Sequence(),
    "occluder": Sequence(occluder=True, seed=3),
    "light, blur": Sequence(light_changes=True, blur=2, seed=5),
    "leaves": Sequence(leaves=True, seed=7),
    "camera pans": Sequence(camera_pans=True, seed=9),
}
MIN_VISIBLE = 0.3


class Case(NamedTuple):
    mesh: str
    """Of MESHES, or `elephant`, the demo object."""
    color: tuple[float, float, float] | None
    """One color, which the tracker does not know; None: the colors of the mesh."""
    title: str
    sequence: Sequence


CASES = [
    Case(mesh, color, title, sequence)
    for mesh in ("cow", "spot", "bob")
    for color in (None, RED)
    for title, sequence in SEQUENCES.items()
]
HELD_OUT = [
    Case("elephant", None, "occluder", Sequence(occluder=True, seed=23)),
    Case("elephant", RED, "light, blur", Sequence(light_changes=True, blur=2, seed=25)),
    Case("elephant", GREEN, "leaves", Sequence(leaves=True, seed=27)),
    Case("teapot", GREEN, "occluder, fast", Sequence(occluder=True, seed=33, speed=1.3)),
    Case("teapot", GREEN, "camera pans", Sequence(camera_pans=True, seed=31)),
    Case("spot", None, "leaves", Sequence(leaves=True, seed=37)),
    Case("spot", GREEN, "leaves", Sequence(leaves=True, seed=38)),
    Case("bob", None, "occluder, light", Sequence(occluder=True, light_changes=True, seed=43)),
    Case("cow", GREEN, "light, blur, fast", Sequence(light_changes=True, blur=2, seed=45, speed=1.3)),
]
"""Other motions, photos and colors, and other objects in part, than those to which the confidence is fitted."""


class Result(NamedTuple):
    correct: float
    called: float
    num_called: int
    degrees: float
    milliseconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=["elephant", *MESHES])
    parser.add_argument("--sequences", nargs="*", default=list(SEQUENCES))
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    print(machine())
    folder, cases = ("fox/images", HELD_OUT) if arguments.held_out else ("colmap_photos/images", CASES)
    photos = sorted((arguments.data / folder).iterdir())[:: 2 if arguments.held_out else 3]
    print(f"{'mesh':14}{'sequence':18}{'correct':>10}{'called':>10}{'frames':>8}{'degrees':>9}{'ms':>7}")
    for case in cases:
        if case.mesh not in arguments.only or not case.title.startswith(tuple(arguments.sequences)):
            continue
        mesh, texture = load(arguments.data, case)
        sequence = dataclasses.replace(case.sequence, frames=arguments.frames)
        r = track(mesh, texture, sequence, photos, has_colors=case.color is None)
        label = case.mesh if case.color is None else f"{case.mesh}, plain"
        print(
            f"{label:14}{case.title:18}{r.correct:10.1%}{r.called:10.1%}{r.num_called:8d}{r.degrees:9.2f}"
            f"{r.milliseconds:7.0f}",
            flush=True,
        )


def load(data: Path, case: Case) -> tuple[Mesh, Texture | None]:
    """Load the mesh of a case, with its texture or in one color."""
    if case.mesh == "elephant":
        mesh, texture = unrender.demo_object(), None
    else:
        mesh, texture = unrender.load_textured_mesh(data / MESHES[case.mesh])
    mesh = mesh.to(torch.float32)
    if case.color is None:
        return mesh, None if texture is None else texture.to(torch.float32)
    return mesh.replace(vertex_colors=torch.tensor([case.color]).repeat(len(mesh.vertices), 1)), None


def track(
    mesh: Mesh, texture: Texture | None, sequence: Sequence, photos: list[Path], *, has_colors: bool
) -> Result:
    """Track a sequence from the true pose in its first frame; without `has_colors`, from the shape alone."""
    known = mesh if has_colors else mesh.replace(vertex_colors=None)
    tracker, errors, called, times = None, list[float](), list[bool](), list[float]()
    correct = list[bool]()
    for frame in render_sequence(mesh, texture, sequence, photos):
        if tracker is None:
            tracker = PoseTracker([TrackedObject(known, texture, guess=frame.pose)], camera_of(sequence))
        start = time.process_time()
        (tracked,) = tracker.step(frame.image)
        times.append(time.process_time() - start)
        degrees, shift = pose_error(mesh, tracked.camera_from_object.float(), frame.pose)
        is_correct = degrees < 5 and shift < 0.05
        if tracked.status == "tracked":
            called.append(is_correct)
        if frame.visible >= MIN_VISIBLE:
            correct.append(is_correct and tracked.status != "lost")
            errors.append(degrees)
    return Result(
        statistics.mean(correct),
        statistics.mean(called) if called else math.nan,
        len(called),
        statistics.median(errors),
        1e3 * statistics.median(times[1:]),
    )


def pose_error(mesh: Mesh, pose: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return the rotation error in degrees, and the error of the object's center relative to the distance."""
    low, high = mesh.vertices.aminmax(dim=0)
    center = (low + high) / 2
    angle = unrender.rotation_angle(pose[:3, :3].contiguous(), truth[:3, :3].contiguous())
    found, expected = (p[:3, :3] @ center + p[:3, 3] for p in (pose, truth))
    return math.degrees(float(angle)), float((found - expected).norm() / expected[2])


if __name__ == "__main__":
    main()
