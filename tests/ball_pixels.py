"""Images of a ball, in device memory."""

import torch

from unrender.data.device_pixels import DevicePixels


def ball_pixels(frames: int = 6, size: int = 20) -> DevicePixels:
    """Images of a ball around 0, in colors of its normals, from all sides at distance 4."""
    generator = torch.Generator().manual_seed(0)
    forward = torch.nn.functional.normalize(torch.randn(frames, 3, generator=generator), dim=-1)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(forward, torch.tensor([[0.0, 0, 1]]).expand(frames, 3)), dim=-1
    )
    pose = torch.stack([right, torch.linalg.cross(forward, right), forward, -4 * forward], -1)
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size - 0.5] * 2, indexing="ij")
    local = torch.nn.functional.normalize(
        torch.stack([0.8 * x, 0.8 * y, torch.ones_like(x)], -1).view(-1, 3), dim=-1
    )
    world = local @ pose[:, :, :3].mT
    origin = pose[:, None, :, 3].expand_as(world)
    along = -(origin * world).sum(-1)
    apart = (origin + along[..., None] * world).norm(dim=-1)
    hit = origin + (along - (1 - apart.square()).clamp(min=0).sqrt())[..., None] * world
    colors = torch.cat([hit / 2 + 0.5, (apart < 1).float()[..., None]], -1).clamp(0, 1)
    packed = (255 * colors).round().to(torch.uint8).contiguous().view(torch.int32).flatten()
    return DevicePixels(
        packed,
        torch.ones(0, dtype=torch.bool),
        torch.arange(frames + 1) * size**2,
        torch.zeros(frames, dtype=torch.int64),
        local,
        pose,
        True,
    )
