"""Trajectories of objects: JSON lines, CSV of the BOP benchmark, and the text format of TUM."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from unrender.geometry.camera import invert_rigid
from unrender.geometry.rotations import quaternion_from_rotation
from unrender.io.files import atomic_write


class PoseRecord(NamedTuple):
    """The pose of an object in a frame."""

    frame: int
    seconds: float
    name: str
    """Name of the frame's file; empty in a video."""
    object_id: int
    """Number of the object, from 1."""
    camera_from_object: Tensor
    status: str
    confidence: float


def write_pose_lines(path: Path, records: Sequence[PoseRecord]) -> None:
    """Write one JSON object per line."""
    lines = []
    for record in records:
        values = record._asdict() | {"camera_from_object": record.camera_from_object.tolist()}
        lines.append(json.dumps(values))
    _write(path, "".join(line + "\n" for line in lines))


def write_bop_csv(path: Path, records: Sequence[PoseRecord], seconds_per_frame: float) -> None:
    """Write reliable poses as results of the BOP benchmark; translations are in mesh units, there in millimeters.

    Format: https://bop.felk.cvut.cz/challenges/
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["scene_id", "im_id", "obj_id", "score", "R", "t", "time"])
    for record in records:
        if record.status != "tracked":
            continue
        pose = record.camera_from_object
        rotation, translation = (
            " ".join(f"{x:.9g}" for x in v.tolist()) for v in (pose[:3, :3].flatten(), pose[:3, 3])
        )
        score, seconds = f"{record.confidence:.4f}", f"{seconds_per_frame:.4f}"
        writer.writerow([1, record.frame, record.object_id, score, rotation, translation, seconds])
    _write(path, text.getvalue())


def write_tum_trajectory(path: Path, records: Sequence[PoseRecord]) -> None:
    """Write the trajectory of the camera relative to the object, where the pose is reliable: t tx ty tz qx qy qz qw."""
    lines = ["# object_from_camera: seconds tx ty tz qx qy qz qw"]
    for record in records:
        if record.status == "tracked":
            pose = invert_rigid(record.camera_from_object)
            w, x, y, z = quaternion_from_rotation(pose[:3, :3]).tolist()
            numbers = [*pose[:3, 3].tolist(), x, y, z, w]
            lines.append(f"{record.seconds:.6f} " + " ".join(f"{n:.9g}" for n in numbers))
    _write(path, "\n".join(lines) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode(errors="surrogateescape"))
