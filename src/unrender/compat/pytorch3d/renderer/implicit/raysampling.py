"""Sampling of rays and of positions along them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.cameras import (
    CamerasBase,
    FoVOrthographicCameras,
    FoVPerspectiveCameras,
)
from unrender.compat.pytorch3d.renderer.implicit.utils import HeterogeneousRayBundle, RayBundle
from unrender.errors import InputError


class MultinomialRaysampler(nn.Module):
    """Cast rays through all pixels of a grid, or through a random subset without replacement."""

    _xy_grid: Tensor

    def __init__(
        self,
        *,
        min_x: float,
        max_x: float,
        min_y: float,
        max_y: float,
        image_width: int,
        image_height: int,
        n_pts_per_ray: int,
        min_depth: float,
        max_depth: float,
        n_rays_per_image: int | None = None,
        n_rays_total: int | None = None,
        unit_directions: bool = False,
        stratified_sampling: bool = False,
    ) -> None:
        super().__init__()
        _check_total(n_rays_per_image, n_rays_total)
        rows, columns = torch.linspace(min_y, max_y, image_height), torch.linspace(min_x, max_x, image_width)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)
        self.register_buffer("_xy_grid", grid, persistent=False)
        self._n_pts_per_ray = n_pts_per_ray
        self._min_depth, self._max_depth = min_depth, max_depth
        self._n_rays_per_image, self._n_rays_total = n_rays_per_image, n_rays_total
        self._unit_directions, self._stratified_sampling = unit_directions, stratified_sampling

    def forward(
        self,
        cameras: CamerasBase,
        *,
        mask: Tensor | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        n_rays_per_image: int | None = None,
        n_pts_per_ray: int | None = None,
        stratified_sampling: bool | None = None,
        n_rays_total: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return rays with the axes of the grid, or [N, rays, 1] of sampled pixels, weighted by `mask`.

        With `n_rays_total`, these are `HeterogeneousRayBundle`: each ray is from a random camera of the batch.
        """
        settings = {"min_depth": min_depth, "max_depth": max_depth, "n_pts_per_ray": n_pts_per_ray}
        total = self._n_rays_total if n_rays_total is None else n_rays_total
        _check_total(n_rays_per_image, total)
        if total is not None:
            ids, counts = draw_cameras(cameras, total)
            each, part = cameras.gather_props(ids), None if mask is None else mask[ids]
            rays = self._rays(each, part, int(counts.max()), settings, stratified_sampling)
            return heterogeneous(rays, ids, counts)
        count = self._n_rays_per_image if n_rays_per_image is None else n_rays_per_image
        return self._rays(cameras, mask, count, settings, stratified_sampling)

    def _rays(
        self,
        cameras: CamerasBase,
        mask: Tensor | None,
        count: int | None,
        settings: dict[str, Any],
        stratified_sampling: bool | None,
    ) -> RayBundle:
        batch = len(cameras)
        xys = self._xy_grid.to(cameras.device).expand(batch, -1, -1, -1)
        if mask is not None or count is not None:
            pixels = xys.shape[1] * xys.shape[2]
            weights = xys.new_ones(batch, pixels) if mask is None else mask.reshape(batch, -1).to(xys)
            count = int((weights > 0).sum(1).min()) if count is None else count
            chosen = _draw(weights, count)
            xys = xys.reshape(batch, pixels, 2).gather(1, chosen[..., None].expand(-1, -1, 2))[:, :, None]
        stratified = self._stratified_sampling if stratified_sampling is None else stratified_sampling
        return rays_through(
            cameras,
            xys,
            *(getattr(self, f"_{name}") if value is None else value for name, value in settings.items()),
            unit_directions=self._unit_directions,
            stratified=stratified,
        )


class NDCMultinomialRaysampler(MultinomialRaysampler):
    """Cast rays through the pixels of an image in NDC."""

    def __init__(
        self,
        *,
        image_width: int,
        image_height: int,
        n_pts_per_ray: int,
        min_depth: float,
        max_depth: float,
        n_rays_per_image: int | None = None,
        n_rays_total: int | None = None,
        unit_directions: bool = False,
        stratified_sampling: bool = False,
    ) -> None:
        shorter = min(image_width, image_height)
        x, y = (image_width - 1) / shorter, (image_height - 1) / shorter
        super().__init__(
            min_x=x,
            max_x=-x,
            min_y=y,
            max_y=-y,
            image_width=image_width,
            image_height=image_height,
            n_pts_per_ray=n_pts_per_ray,
            min_depth=min_depth,
            max_depth=max_depth,
            n_rays_per_image=n_rays_per_image,
            n_rays_total=n_rays_total,
            unit_directions=unit_directions,
            stratified_sampling=stratified_sampling,
        )


class MonteCarloRaysampler(nn.Module):
    """Cast rays through random positions in a rectangle."""

    def __init__(
        self,
        min_x: float,
        max_x: float,
        min_y: float,
        max_y: float,
        n_rays_per_image: int,
        n_pts_per_ray: int,
        min_depth: float,
        max_depth: float,
        *,
        n_rays_total: int | None = None,
        unit_directions: bool = False,
        stratified_sampling: bool = False,
    ) -> None:
        super().__init__()
        self._n_rays_total = n_rays_total
        self._low, self._high = (min_x, min_y), (max_x, max_y)
        self._n_rays_per_image, self._n_pts_per_ray = n_rays_per_image, n_pts_per_ray
        self._min_depth, self._max_depth = min_depth, max_depth
        self._unit_directions, self._stratified_sampling = unit_directions, stratified_sampling

    def forward(self, cameras: CamerasBase, *, stratified_sampling: bool | None = None, **kwargs: Any) -> Any:
        """Return rays [N, rays, ...], or with `n_rays_total` `HeterogeneousRayBundle`."""
        total = self._n_rays_total
        if total is None:
            return self._rays(cameras, self._n_rays_per_image, stratified_sampling)
        ids, counts = draw_cameras(cameras, total)
        rays = self._rays(cameras.gather_props(ids), int(counts.max()), stratified_sampling)
        return heterogeneous(rays, ids, counts)

    def _rays(self, cameras: CamerasBase, count: int, stratified_sampling: bool | None) -> RayBundle:
        fractions = torch.rand(len(cameras), count, 2, device=cameras.device)
        low, high = fractions.new_tensor(self._low), fractions.new_tensor(self._high)
        stratified = self._stratified_sampling if stratified_sampling is None else stratified_sampling
        return rays_through(
            cameras,
            low + fractions * (high - low),
            self._min_depth,
            self._max_depth,
            self._n_pts_per_ray,
            unit_directions=self._unit_directions,
            stratified=stratified,
        )


class GridRaysampler(MultinomialRaysampler):
    """Earlier name of `MultinomialRaysampler`, for all pixels."""

    def __init__(
        self,
        min_x: float,
        max_x: float,
        min_y: float,
        max_y: float,
        image_width: int,
        image_height: int,
        n_pts_per_ray: int,
        min_depth: float,
        max_depth: float,
    ) -> None:
        super().__init__(
            min_x=min_x,
            max_x=max_x,
            min_y=min_y,
            max_y=max_y,
            image_width=image_width,
            image_height=image_height,
            n_pts_per_ray=n_pts_per_ray,
            min_depth=min_depth,
            max_depth=max_depth,
        )


class NDCGridRaysampler(NDCMultinomialRaysampler):
    """Earlier name of `NDCMultinomialRaysampler`, for all pixels."""

    def __init__(
        self, image_width: int, image_height: int, n_pts_per_ray: int, min_depth: float, max_depth: float
    ) -> None:
        super().__init__(
            image_width=image_width,
            image_height=image_height,
            n_pts_per_ray=n_pts_per_ray,
            min_depth=min_depth,
            max_depth=max_depth,
        )


def rays_through(
    cameras: CamerasBase,
    xys: Tensor,
    min_depth: float,
    max_depth: float,
    count: int,
    *,
    unit_directions: bool,
    stratified: bool,
) -> RayBundle:
    """Return the rays through positions [N, ..., 2] in NDC; directions have unit depth, or unit length if requested."""
    flat = xys.reshape(len(xys), -1, 2)
    planes = torch.cat([flat, flat], 1)
    depth = torch.ones_like(planes[..., :1])
    depth[:, flat.shape[1] :] = 2
    settings = (
        {} if isinstance(cameras, FoVPerspectiveCameras | FoVOrthographicCameras) else {"from_ndc": True}
    )
    near, far = cameras.unproject_points(torch.cat([planes, depth], -1), **settings).chunk(2, 1)
    directions = far - near
    origins = near - directions
    depths = torch.linspace(min_depth, max_depth, count, dtype=xys.dtype, device=xys.device)
    lengths = depths.expand(*xys.shape[:-1], count)
    if stratified:
        lengths = _jiggle_within_stratas(lengths)
    if unit_directions:
        directions = normalize(directions, dim=-1)
    shape = (*xys.shape[:-1], 3)
    return RayBundle(origins.reshape(shape), directions.reshape(shape), lengths, xys)


def _xy_to_ray_bundle(
    cameras: CamerasBase,
    xy_grid: Tensor,
    min_depth: float,
    max_depth: float,
    n_pts_per_ray: int,
    unit_directions: bool,
    stratified_sampling: bool = False,
) -> RayBundle:
    """Return the rays through positions [N, ..., 2] in NDC: custom samplers of rays call this."""
    settings = {"unit_directions": unit_directions, "stratified": stratified_sampling}
    return rays_through(cameras, xy_grid, min_depth, max_depth, n_pts_per_ray, **settings)


def _jiggle_within_stratas(bin_centers: Tensor) -> Tensor:
    """Draw one position within each bin, given the centers."""
    midpoints = (bin_centers[..., 1:] + bin_centers[..., :-1]) / 2
    first = torch.cat([bin_centers[..., :1], midpoints], -1)
    last = torch.cat([midpoints, bin_centers[..., -1:]], -1)
    return first + (last - first) * torch.rand_like(first)


def _safe_multinomial(input: Tensor, num_samples: int) -> Tensor:
    """Draw columns [N, num_samples] in proportion to weights [N, M], without replacement where there are enough."""
    enough = (input > 0).sum(1) >= num_samples
    rows = [
        w.multinomial(num_samples, replacement=not ok) for w, ok in zip(input, enough.tolist(), strict=True)
    ]
    return torch.stack(rows)


def _draw(weights: Tensor, count: int) -> Tensor:
    """Draw pixels without replacement, in proportion to their weights; with replacement if too few are nonzero."""
    there = (weights > 0).sum(1)
    if bool((there == 0).any()):
        raise InputError("the mask of an image is 0 everywhere: there are no rays to draw")
    if bool((there >= count).all()) and bool((weights == weights[:, :1]).all()):
        return torch.stack([torch.randperm(weights.shape[1], device=weights.device)[:count] for _ in weights])
    rows = [w.multinomial(count, replacement=int(n) < count) for w, n in zip(weights, there, strict=True)]
    return torch.stack(rows)


def _check_total(n_rays_per_image: int | None, n_rays_total: int | None) -> None:
    if n_rays_per_image is not None and n_rays_total is not None:
        raise InputError("`n_rays_total` and `n_rays_per_image` cannot both be given")


def draw_cameras(cameras: CamerasBase, total: int) -> tuple[Tensor, Tensor]:
    """Draw cameras for a number of rays; return those that were drawn, in their order, and their numbers of rays."""
    ids, counts = torch.randint(len(cameras), (total,)).unique(return_counts=True)
    return ids.to(cameras.device), counts.to(cameras.device)


def heterogeneous(rays: RayBundle, camera_ids: Tensor, counts: Tensor) -> HeterogeneousRayBundle:
    """Return the first rays of each camera, as many as it has, as the rays of a whole batch."""
    cameras, most = rays.origins.shape[:2]
    kept = torch.arange(most, device=counts.device) < counts[:, None]
    origins, directions, lengths, xys = (t.reshape(cameras, most, 1, 1, -1)[kept] for t in rays)
    return HeterogeneousRayBundle(origins, directions, lengths, xys, camera_ids, counts)


__getattr__ = refuse_unknown(__name__)
