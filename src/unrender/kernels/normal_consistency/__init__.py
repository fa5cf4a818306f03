"""Mean deviation of the normals of adjacent faces."""

from torch import Tensor

from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.normal_consistency import cpu, reference


def normal_consistency(vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor) -> Tensor:
    """Compute the mean of 1 − cos of the angle between adjacent faces of `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    fast = implementation("normal_consistency", vertices.device)
    if fast is None or fast is cpu:
        return reference.forward(vertices, faces, hinge_faces, hinge_signs)
    return differentiable(fast, vertices, faces, hinge_faces, hinge_signs)
