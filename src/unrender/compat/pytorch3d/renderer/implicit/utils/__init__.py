"""`RayBundle`: rays with sample positions along them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.errors import InputError


class RayBundle(NamedTuple):
    """Rays [..., 3], lengths [..., P] in directions, which may have any length, and image positions [..., 2]."""

    origins: Tensor
    directions: Tensor
    lengths: Tensor
    xys: Tensor


@dataclass
class HeterogeneousRayBundle:
    """Rays of a whole batch, [rays, 1, 1, ...], in the order of their cameras."""

    origins: Tensor
    directions: Tensor
    lengths: Tensor
    xys: Tensor
    camera_ids: Tensor | None = None
    """Indices of the cameras that have rays."""
    camera_counts: Tensor | None = None
    """Number of rays of each of these cameras."""


def ray_bundle_to_ray_points(ray_bundle: RayBundle | HeterogeneousRayBundle) -> Tensor:
    """Return the points to look at [..., P, 3]."""
    return ray_bundle_variables_to_ray_points(ray_bundle.origins, ray_bundle.directions, ray_bundle.lengths)


def _validate_ray_bundle_variables(
    rays_origins: Tensor, rays_directions: Tensor, rays_lengths: Tensor
) -> None:
    """Raise InputError unless origins and directions [..., 3] and lengths [..., P] have the same first axes."""
    shapes = [rays_origins.shape, rays_directions.shape, rays_lengths.shape]
    if any(shape[-1:] != (3,) for shape in shapes[:2]) or len({shape[:-1] for shape in shapes}) > 1:
        raise InputError(
            "rays should have origins and directions [..., 3] and lengths [..., P], "
            f"got {', '.join(str(list(shape)) for shape in shapes)}"
        )


def ray_bundle_variables_to_ray_points(
    rays_origins: Tensor, rays_directions: Tensor, rays_lengths: Tensor
) -> Tensor:
    """Return origin + length · direction [..., P, 3]."""
    return torch.addcmul(rays_origins[..., None, :], rays_lengths[..., None], rays_directions[..., None, :])


register(__name__)
__getattr__ = refuse_unknown(__name__)
