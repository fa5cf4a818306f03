"""Topological simplification of a level set: false tunnels are closed, and false handles are cut."""

import math

from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.simplify_topology import reference


@checked
def simplify_topology(
    values: Float[Tensor, "depth height width"], tunnel_tolerance: float, handle_tolerance: float
) -> Bool[Tensor, "depth height width"]:
    """Return which grid nodes are inside the zero level set, where `values` > 0, after topological simplification.

    Nodes change sides only if their values are within a tolerance of 0: as few as close a tunnel, or cut a handle, at
    its weakest cross section. Others stay, and no part of the solid or of the space around it is cut off from the rest.
    Parts and cavities whose values are all within the tolerance vanish. Inside nodes are adjacent to all 26 neighbors,
    outside nodes to 6; outside the grid is outside.

    Raises InputError if a tolerance is negative or not finite. Differentiable in: nothing.
    """
    for tolerance in (tunnel_tolerance, handle_tolerance):
        if not 0 <= tolerance < math.inf:
            raise InputError(
                f"simplify_topology: tolerances should be finite and at least 0, got {tolerance}"
            )
    fast = implementation("simplify_topology", values.device) or reference
    inside: Tensor = fast.forward(values.detach().double().contiguous(), tunnel_tolerance, handle_tolerance)
    return inside
