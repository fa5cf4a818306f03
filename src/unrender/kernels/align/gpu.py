"""Normal equations of image alignment: one thread per strip of a row; strips are added in a fixed order."""

from types import SimpleNamespace

import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.align.reference import MAX_DEPTH_STEP

STRIP = 8
"""Pixels of a row per thread."""


def forward(
    images: Tensor,
    shading_gradients: Tensor,
    depth: Tensor,
    residual: Tensor,
    weight: Tensor,
    rays: Tensor,
    pivot: Tensor,
    with_depth: bool,
) -> tuple[Tensor, Tensor]:
    batch, _, height, width = images.shape
    strips = (width + STRIP - 1) // STRIP
    gradient, hessian = (images.new_empty(batch, height, strips, *shape) for shape in ((6,), (6, 6)))
    arrays = [
        t.detach().contiguous() for t in (images, shading_gradients, depth, residual, weight, rays, pivot)
    ]
    kernel = align_kernels(images.dtype).add_up
    launch(kernel, (batch, height, strips), *arrays, int(with_depth), gradient, hessian)
    return gradient.flatten(1, 2).sum(1), hessian.flatten(1, 2).sum(1)


@per_precision("align")
def align_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernel."""
    scalar, vec3, vec4 = types.scalar, types.vec3, types.vec4
    vec6, mat66 = wp.types.vector(6, types.scalar), wp.types.matrix((6, 6), types.scalar)
    zero, one, half, edge = scalar(0.0), scalar(1.0), scalar(0.5), scalar(MAX_DEPTH_STEP)

    @wp.func
    def neighbor_fraction(depth: scalar, other: scalar):
        """Return the fraction of the difference to a neighbor that belongs to a pixel at `depth`; 0 is background."""
        if other == zero or other - depth > edge * depth:
            return one
        return wp.where(depth - other > edge * other, zero, half)

    @types.kernel
    def add_up(
        images: wp.array4d(dtype=scalar),
        shading_gradients: wp.array4d(dtype=vec3),
        depth: wp.array3d(dtype=scalar),
        residual: wp.array4d(dtype=scalar),
        weight: wp.array4d(dtype=scalar),
        rays: wp.array2d(dtype=vec4),
        pivot: wp.array(dtype=vec3),
        with_depth: int,
        gradient: wp.array3d(dtype=vec6),
        hessian: wp.array3d(dtype=mat66),
    ):
        b, row, strip = wp.tid()
        channels, height, width = images.shape[1], images.shape[2], images.shape[3]
        total, square = vec6(zero), mat66(zero)
        for column in range(strip * STRIP, wp.min((strip + 1) * STRIP, width)):
            z = depth[b, row, column]
            if z > zero:
                ray = rays[row, column]
                x, y = ray[0], ray[1]
                px, py, pz = x * z - pivot[b][0], y * z - pivot[b][1], z - pivot[b][2]
                sx, sy = ray[2] / z, ray[3] / z
                u_x = vec6(-sx * x * py, sx * (pz + x * px), -sx * py, sx, zero, -sx * x)
                u_y = vec6(-sy * (pz + y * py), sy * y * px, sy * px, zero, sy, -sy * y)
                left, right, above, below = scalar(0.0), scalar(0.0), scalar(0.0), scalar(0.0)
                if column > 0:
                    left = neighbor_fraction(z, depth[b, row, column - 1])
                if column + 1 < width:
                    right = neighbor_fraction(z, depth[b, row, column + 1])
                if row > 0:
                    above = neighbor_fraction(z, depth[b, row - 1, column])
                if row + 1 < height:
                    below = neighbor_fraction(z, depth[b, row + 1, column])
                for c in range(channels):
                    w, e, value = (
                        weight[b, c, row, column],
                        residual[b, c, row, column],
                        images[b, c, row, column],
                    )
                    if w != zero or e != zero:
                        by_x, by_y = scalar(0.0), scalar(0.0)
                        if right > zero:
                            by_x += right * (images[b, c, row, column + 1] - value)
                        if left > zero:
                            by_x += left * (value - images[b, c, row, column - 1])
                        if below > zero:
                            by_y += below * (images[b, c, row + 1, column] - value)
                        if above > zero:
                            by_y += above * (value - images[b, c, row - 1, column])
                        jacobian = -(by_x * u_x + by_y * u_y)
                        shading_gradient = shading_gradients[b, c, row, column]
                        jacobian += vec6(
                            shading_gradient[0], shading_gradient[1], shading_gradient[2], zero, zero, zero
                        )
                        if with_depth == 1 and c == channels - 1:
                            jacobian += vec6(py, -px, zero, zero, zero, one)
                        total += e * jacobian
                        square += wp.outer(w * jacobian, jacobian)
        gradient[b, row, strip] = total
        hessian[b, row, strip] = square

    return SimpleNamespace(add_up=add_up)
