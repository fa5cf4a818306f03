"""`RayBundle`: rays with sample positions along them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register


class RayBundle(NamedTuple):
    """Rays [..., 3], lengths [..., P] in directions, which may have any length, and image positions [..., 2]."""

    origins: Tensor
    directions: Tensor
    lengths: Tensor
    xys: Tensor


@dataclass
class HeterogeneousRayBundle:
    """Rays of a whole batch, [rays, 1, 1, ...], with the camera of each, in the order of the cameras."""

    origins: Tensor
    directions: Tensor
    lengths: Tensor
    xys: Tensor
    camera_ids: Tensor
    """Index of each ray's camera."""
    camera_counts: Tensor
    """Number of rays of each camera that has any."""


def ray_bundle_to_ray_points(ray_bundle: RayBundle | HeterogeneousRayBundle) -> Tensor:
    """Return the points to look at [..., P, 3]."""
    return ray_bundle_variables_to_ray_points(ray_bundle.origins, ray_bundle.directions, ray_bundle.lengths)


def ray_bundle_variables_to_ray_points(
    rays_origins: Tensor, rays_directions: Tensor, rays_lengths: Tensor
) -> Tensor:
    """Return origin + length · direction [..., P, 3]."""
    return torch.addcmul(rays_origins[..., None, :], rays_lengths[..., None], rays_directions[..., None, :])


register(__name__)
__getattr__ = refuse_unknown(__name__)
