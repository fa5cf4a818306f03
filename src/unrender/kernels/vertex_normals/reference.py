"""Reference implementation of the normals of vertices."""

import torch
from torch import Tensor

from unrender.kernels._columns import as_columns, as_rows
from unrender.kernels.face_vectors import face_vectors
from unrender.kernels.normalize import normalize
from unrender.kernels.scatter_sum import scatter_sum


def forward(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit directions of Σ_f (b − a) × (c − a) over the faces f around each vertex, and these sums.

    Zero where a sum is zero. The sums are in columns [*batch, 3, vertices].
    """
    vectors = face_vectors(as_columns(vertices), faces)
    sums = scatter_sum(torch.cat([vectors] * 3, -1), faces.mT.flatten(), vertices.shape[-2])
    return as_rows(normalize(sums)), sums
