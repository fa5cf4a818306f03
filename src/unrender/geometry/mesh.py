"""Triangle meshes: the value, and its first derivatives in space (normals, areas)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError


class Mesh(TensorStruct):
    """One topology and any number of poses of its vertices, in world units.

    Faces turn counter-clockwise seen from outside. Several topologies are a Python list of meshes.
    """

    vertices: Float[Tensor, "*batch vertices 3"]
    faces: Int[Tensor, "faces 3"]
    vertex_colors: Float[Tensor, "vertices channels"] | None = None
    """Linear in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.faces):
            low, high = (int(x) for x in torch.aminmax(self.faces))
            if low < 0 or high >= self.vertices.shape[-2]:
                raise InputError(
                    f"Mesh: `faces` index vertices {low} to {high}, but there are {self.vertices.shape[-2]} vertices "
                    f"in {describe_value(self.vertices)}"
                )
