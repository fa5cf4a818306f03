"""Landmarks: known positions of vertices of a shape."""

from jaxtyping import Float, Int
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import InputError


class Landmarks(TensorStruct):
    """Positions in a point cloud of some vertices of a mesh or of a linear shape model, in world units."""

    vertex_ids: Int[Tensor, " landmarks"]
    points: Float[Tensor, "landmarks 3"]


def check_landmarks(landmarks: Landmarks, num_vertices: int, task: str) -> None:
    """Raise InputError for vertices that a shape does not have, and for positions that are not finite."""
    ids = landmarks.vertex_ids
    wrong = (ids < 0) | (ids >= num_vertices)
    if bool(wrong.any()):
        raise InputError(
            f"{task}: `landmarks` should index vertices 0 to {num_vertices - 1}, got {int(ids[wrong][0])}"
        )
    if not bool(landmarks.points.isfinite().all()):
        raise InputError(f"{task}: `landmarks` has positions that are NaN or infinite")
