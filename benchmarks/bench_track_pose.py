"""Track objects through rendered sequences with known poses, and measure accuracy, honesty and speed.

python benchmarks/bench_track_pose.py --data FOLDER [--frames NUMBER] [--only MESH ...] [--sequences NAME ...]
    [--set fit|held-out|new]

A frame is correct within 5 degrees and 5 % of the distance. `leaves`: the object leaves the image and returns; frames
with less than 30 % of it visible do not count. `called`: of the frames with the status `tracked`, the fraction that is
correct. `ms`: median CPU time per frame. `--set held-out`: sequences to which the confidence is not fitted; `new`: with
which nothing was chosen. At the end, over all sequences: of the tracked frames, how many are correct, by confidence.
"""

import argparse
import dataclasses
import math
import statistics
import time
from itertools import pairwise
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
NEW = [
    Case("teapot", RED, "occluder", Sequence(occluder=True, seed=103)),
    Case("elephant", GREEN, "occluder", Sequence(occluder=True, seed=107)),
    Case("elephant", None, "leaves", Sequence(leaves=True, seed=101)),
    Case("teapot", GREEN, "leaves", Sequence(leaves=True, seed=113)),
    Case("cow", None, "leaves", Sequence(leaves=True, seed=111)),
    Case("elephant", None, "light, blur", Sequence(light_changes=True, blur=2, seed=117)),
]
"""Sequences with which nothing was chosen."""
SETS = {
    "fit": (CASES, "colmap_photos/images", slice(0, None, 3)),
    "held-out": (HELD_OUT, "fox/images", slice(0, None, 2)),
    "new": (NEW, "fox/images", slice(1, None, 2)),
}
"""The sequences, and the photos behind them."""
CONFIDENCES = (0.5, 0.8, 0.95, 1.0)


class Result(NamedTuple):
    correct: float
    called: list[tuple[float, bool]]
    """Confidence of each tracked frame, and whether it is correct."""
    degrees: float
    milliseconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=["elephant", *MESHES])
    parser.add_argument("--sequences", nargs="*", default=list(SEQUENCES))
    parser.add_argument("--set", choices=list(SETS), default="fit")
    arguments = parser.parse_args()
    print(machine())
    cases, folder, every = SETS[arguments.set]
    photos = sorted((arguments.data / folder).iterdir())[every]
    called = list[tuple[float, bool]]()
    print(f"{'mesh':14}{'sequence':18}{'correct':>10}{'called':>10}{'frames':>8}{'degrees':>9}{'ms':>7}")
    for case in cases:
        if case.mesh not in arguments.only or not case.title.startswith(tuple(arguments.sequences)):
            continue
        mesh, texture = load(arguments.data, case)
        sequence = dataclasses.replace(case.sequence, frames=arguments.frames)
        r = track(mesh, texture, sequence, photos, has_colors=case.color is None)
        label = case.mesh if case.color is None else f"{case.mesh}, plain"
        called += r.called
        print(
            f"{label:14}{case.title:18}{r.correct:10.1%}{fraction(r.called):10.1%}{len(r.called):8d}{r.degrees:9.2f}"
            f"{r.milliseconds:7.0f}",
            flush=True,
        )
    print(f"of {len(called)} tracked frames, {fraction(called):.1%} are correct")
    for low, high in pairwise(CONFIDENCES):
        within = [frame for frame in called if low <= frame[0] < high or frame[0] == high == 1]
        print(f"  confidence {low:.2f} to {high:.2f}: {fraction(within):.1%} of {len(within)}")


def fraction(called: list[tuple[float, bool]]) -> float:
    """Return the fraction of tracked frames that are correct; nan without any."""
    return statistics.mean(is_correct for _, is_correct in called) if called else math.nan


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
    tracker, errors, times = None, list[float](), list[float]()
    called, correct = list[tuple[float, bool]](), list[bool]()
    for frame in render_sequence(mesh, texture, sequence, photos):
        if tracker is None:
            tracker = PoseTracker([TrackedObject(known, texture, guess=frame.pose)], camera_of(sequence))
        start = time.process_time()
        (tracked,) = tracker.step(frame.image)
        times.append(time.process_time() - start)
        degrees, shift = pose_error(mesh, tracked.camera_from_object.float(), frame.pose)
        is_correct = degrees < 5 and shift < 0.05
        if tracked.status == "tracked":
            called.append((tracked.confidence, is_correct))
        if frame.visible >= MIN_VISIBLE:
            correct.append(is_correct and tracked.status != "lost")
            errors.append(degrees)
    return Result(
        statistics.mean(correct),
        called,
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
