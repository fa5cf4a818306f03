"""Potential of charges and dipoles: winding numbers of oriented points, and their gradients."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.nearest import PointIndex, check_agreement, index_points
from unrender.kernels.potential import reference


class Potential(NamedTuple):
    """The potential at each query, and its gradient."""

    values: Float[Tensor, " queries"]
    gradients: Float[Tensor, "queries 3"]


@checked
def potential(
    queries: Float[Tensor, "queries 3"] | PointIndex,
    points: Float[Tensor, "points 3"] | PointIndex,
    *,
    charges: Float[Tensor, " points"] | None = None,
    dipoles: Float[Tensor, "points 3"] | None = None,
    softening: Float[Tensor, " points"],
    opening: float = 0.3,
) -> Potential:
    """Sum the potentials of charges c and dipoles m at points: Σ (c / r + m · d / r³) / 4π, r² = |d|² + softening².

    d is the vector from the point to the query. With the area vectors of a closed surface as dipoles, the potential is
    minus the winding number: −1 inside, 0 outside (Barill et al. 2018, Fast Winding Numbers for Soups and Clouds).
    Clusters of points act as one if their radius is less than `opening` times their distance; 0 is exact.
    Pass indexed points (`index_points`) to reuse their trees.

    Raises InputError for empty queries or points. Differentiable in: nothing.
    """
    at, sources = (t if isinstance(t, PointIndex) else index_points(t.detach()) for t in (queries, points))
    check_agreement("potential", queries=at.points, points=sources.points)
    if not opening >= 0:
        raise InputError(f"potential: `opening` should be at least 0, got {opening}")
    p = sources.points.detach()
    charges = p.new_zeros(len(p)) if charges is None else charges.detach().to(p)
    dipoles = p.new_zeros(len(p), 3) if dipoles is None else dipoles.detach().to(p)
    softening = softening.detach().to(p)
    fast = implementation("potential", p.device)
    if fast is None or at.order is None or sources.order is None:
        return Potential(*reference.forward(at.points.detach(), p, charges, dipoles, softening, opening))
    return Potential(
        *fast.forward(
            at.ordered, at.order, sources.ordered, sources.order, charges, dipoles, softening, opening
        )
    )
