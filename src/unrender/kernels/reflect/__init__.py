"""Reflection of one light at surface points (Phong 1975)."""

from torch import Tensor

from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.reflect import cpu, reference


def reflect(
    normals: Tensor,
    directions: Tensor,
    views: Tensor,
    colors: Tensor,
    diffuse: Tensor | float,
    specular: Tensor | float,
    shininess: Tensor | float,
) -> Tensor:
    """Compute the diffuse and specular reflection of a light `[points channels]`; see the reference.

    Differentiable in: all (on a GPU, not twice).
    """
    arguments = (normals, directions, views, colors, diffuse, specular, shininess)
    fast = implementation("reflect", colors.device)
    if fast is None or fast is cpu:
        return reference.forward(*arguments)
    return differentiable(fast, *arguments)
