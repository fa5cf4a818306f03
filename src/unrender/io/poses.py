"""Files with one rigid pose: JSON, npy or text."""

import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import FileFormatError
from unrender.io.arrays import array_from_npy
from unrender.io.files import read_bytes, reading


def load_pose(path: Path) -> Float[Tensor, "4 4"]:
    """Read a 4 × 4 matrix from JSON (as `camera_from_object`, or alone), an npy array or text."""
    data = read_bytes(path)
    with reading(path):
        if path.suffix.lower() == ".npy":
            values = array_from_npy(data)
        elif path.suffix.lower() == ".json":
            content = json.loads(data)
            rows = content.get("camera_from_object") if isinstance(content, dict) else content
            values = np.array(rows, object)
        else:
            values = np.array([line.split() for line in data.decode().splitlines() if line.strip()], object)
        if values.shape != (4, 4):
            raise FileFormatError("expected a pose: `camera_from_object`, or 4 × 4 numbers")
        pose = values.astype(np.float64)
        if not np.isfinite(pose.astype(np.float32)).all():
            raise FileFormatError(f"the pose is not finite in single precision: {pose.tolist()}")
        return torch.from_numpy(pose)
