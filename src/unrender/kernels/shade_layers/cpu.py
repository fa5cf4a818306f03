"""On a CPU, operations on the fragments that are not empty serve (see `render.shade`)."""

from torch import Tensor

from unrender.kernels._autograd import differentiate
from unrender.kernels.shade_layers import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(
    vertices: Tensor,
    normals: Tensor,
    colors: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    camera_from_world: Tensor,
    lights: Tensor,
    perspective: bool,
    two_sided: bool,
    grad_output: Tensor,
    needs_colors: bool,
) -> tuple[Tensor | None, ...]:
    arguments = (vertices, normals, colors, faces, face_ids, barycentric, camera_from_world, lights)
    found = differentiate(forward, (*arguments, perspective, two_sided), grad_output)
    return found[0], found[1], found[2] if needs_colors else None, found[5]
