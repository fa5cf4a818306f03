"""Random pixels and their rays, from images in device memory."""

from types import SimpleNamespace

import warp as wp

from unrender.kernels._hash_training import BATCHES, NUM_RAYS
from unrender.kernels._warp import Precision, per_precision


@per_precision("hash_training.pixel_rays")
def pixel_ray_kernels(precision: Precision) -> SimpleNamespace:
    """Make the kernel that draws pixels, which are packed as 8 bits of red, green, blue and alpha each."""

    @wp.func
    def frame_of(starts: wp.array(dtype=wp.int64), pixel: wp.int64):
        """Return the frame that contains a pixel."""
        low, high = int(0), starts.shape[0] - 1
        while high - low > 1:
            midpoint = (low + high) // 2
            if starts[midpoint] <= pixel:
                low = midpoint
            else:
                high = midpoint
        return low

    @precision.kernel
    def draw(
        seed: int,
        counters: wp.array(dtype=wp.int32),
        pixels: wp.array(dtype=wp.int32),
        valid: wp.array(dtype=wp.uint8),
        starts: wp.array(dtype=wp.int64),
        map_starts: wp.array(dtype=wp.int64),
        directions_camera: wp.array(dtype=wp.vec3),
        poses: wp.array2d(dtype=wp.float32),
        depth_frames: wp.array(dtype=wp.int32),
        depth_directions: wp.array(dtype=wp.vec3),
        depth_distances: wp.array(dtype=wp.float32),
        depth_fraction: float,
        constant_background: wp.array(dtype=wp.vec3),
        random_fraction: float,
        has_alpha: bool,
        origins: wp.array(dtype=wp.vec3),
        directions: wp.array(dtype=wp.vec3),
        target: wp.array(dtype=wp.vec3),
        background: wp.array(dtype=wp.vec3),
        jitter: wp.array(dtype=wp.float32),
        frame: wp.array(dtype=wp.int32),
        known: wp.array(dtype=wp.float32),
    ):
        """Fill rays, their backgrounds and target colors; the direction of rays of invalid pixels is 0.

        The last ones, a fraction of all, are rays of known depth; `known` is the distance at which they end, and 0 for
        the others.
        """
        r = wp.tid()
        num_rays = counters[wp.static(NUM_RAYS)]
        if r >= num_rays:
            return
        state = wp.rand_init(seed + counters[wp.static(BATCHES)] * 9781, r)
        high = wp.int64(wp.randu(state) >> wp.uint32(2))  # 30 bits and 30 bits
        low = wp.int64(wp.randu(state) >> wp.uint32(2))
        uniform = (wp.float64(high) + wp.float64(low) / wp.float64(1073741824.0)) / wp.float64(1073741824.0)
        if r >= num_rays - int(float(num_rays) * depth_fraction):
            d = wp.min(int(uniform * wp.float64(depth_distances.shape[0])), depth_distances.shape[0] - 1)
            f = depth_frames[d]
            origins[r] = wp.vec3(poses[f, 3], poses[f, 7], poses[f, 11])
            directions[r] = depth_directions[d]
            jitter[r] = wp.randf(state)
            known[r] = depth_distances[d]
            return
        known[r] = 0.0
        total = starts[starts.shape[0] - 1]
        pixel = wp.min(wp.int64(uniform * wp.float64(total)), total - wp.int64(1))
        f = frame_of(starts, pixel)
        local = directions_camera[int(map_starts[f] + pixel - starts[f])]
        right = wp.vec3(poses[f, 0], poses[f, 4], poses[f, 8])
        down = wp.vec3(poses[f, 1], poses[f, 5], poses[f, 9])
        forward = wp.vec3(poses[f, 2], poses[f, 6], poses[f, 10])
        direction = local[0] * right + local[1] * down + local[2] * forward
        usable = wp.isfinite(direction[0]) and wp.isfinite(direction[1]) and wp.isfinite(direction[2])
        if valid.shape[0] > 0 and valid[int(pixel)] == wp.uint8(0):
            usable = False
        directions[r] = wp.where(usable, direction, wp.vec3(0.0, 0.0, 0.0))
        origins[r] = wp.vec3(poses[f, 3], poses[f, 7], poses[f, 11])
        jitter[r] = wp.randf(state)
        frame[r] = f
        bits = wp.uint32(pixels[int(pixel)])
        color = (
            wp.vec3(
                float(bits & wp.uint32(255)),
                float((bits >> wp.uint32(8)) & wp.uint32(255)),
                float((bits >> wp.uint32(16)) & wp.uint32(255)),
            )
            / 255.0
        )
        background_color = constant_background[0]
        if wp.randf(state) < random_fraction:
            background_color = wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))
        alpha = float(1.0)
        if has_alpha:
            alpha = float(bits >> wp.uint32(24)) / 255.0
        target[r] = alpha * color + (1.0 - alpha) * background_color
        background[r] = background_color

    return SimpleNamespace(draw=draw)
