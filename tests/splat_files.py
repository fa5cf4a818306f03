"""Gaussians on the surface of a mesh, and writers of splat files, from the descriptions of the formats."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from unrender import Mesh, quaternion_from_rotation, sample_points_from_mesh, surface_area
from unrender.geometry.gaussians import Gaussians

C0 = 0.28209479177387814
PLY_ORDER = ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2")


def gaussians_on(mesh: Mesh, count: int, *, opacity: float = 0.9, width: float = 0.6) -> Gaussians:
    """Return flat Gaussians on a mesh in its vertex colors, with standard deviations of `width` mean distances."""
    samples = sample_points_from_mesh(mesh, count, generator=torch.Generator().manual_seed(0))
    normals = samples.normals
    across = normalize(torch.linalg.cross(normals, normals.roll(1, -1) + 0.1), dim=-1)
    axes = torch.stack([across, torch.linalg.cross(normals, across), normals], -1)
    side = width * float(surface_area(mesh) / count) ** 0.5
    colors = torch.full((count, 3), 0.7)
    if mesh.vertex_colors is not None:
        corners = mesh.vertex_colors[mesh.faces[samples.face_ids]]
        colors = (samples.barycentric[..., None] * corners).sum(1)
    return Gaussians(
        samples.points,
        torch.tensor([side, side, side / 10]).expand(count, 3),
        quaternion_from_rotation(axes),
        torch.full((count,), opacity),
        ((colors - 0.5) / C0)[:, None],
    )


def random_gaussians(count: int, degree: int) -> Gaussians:
    """Return Gaussians whose values every format can hold with a small error."""
    generator = torch.Generator().manual_seed(degree)
    quaternions = torch.randn(count, 4, generator=generator)
    quaternions = normalize(quaternions * quaternions[:, :1].sign(), dim=-1)
    return Gaussians(
        4 * torch.rand(count, 3, generator=generator) - 2,
        torch.rand(count, 3, generator=generator) + 0.05,
        quaternions,
        0.02 + 0.96 * torch.rand(count, generator=generator),
        torch.rand(count, (degree + 1) ** 2, 3, generator=generator) - 0.5,
    )


def ply_bytes(gaussians: Gaussians) -> bytes:
    """Write a ply file of 3D Gaussian splatting: logarithms of scales, logits of opacities, channels of harmonics."""
    rest = gaussians.harmonics[:, 1:].mT.flatten(1)
    columns = [gaussians.means, torch.zeros_like(gaussians.means), gaussians.harmonics[:, 0], rest]
    columns += [gaussians.opacities.logit()[:, None], gaussians.scales.log(), gaussians.quaternions]
    names = [*PLY_ORDER, *(f"f_rest_{i}" for i in range(rest.shape[1])), "opacity"]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rest)}"]
    header += [*(f"property float {name}" for name in names), "end_header", ""]
    return "\n".join(header).encode() + torch.cat(columns, 1).numpy().astype("<f4").tobytes()


def splat_bytes(gaussians: Gaussians) -> bytes:
    """Write a splat file of antimatter15: 32 bytes a Gaussian, without view-dependent color."""
    rows = np.zeros(len(gaussians.means), [("f", "<f4", 6), ("color", "u1", 4), ("rotation", "u1", 4)])
    rows["f"] = torch.cat([gaussians.means, gaussians.scales], 1)
    color = torch.cat([0.5 + C0 * gaussians.harmonics[:, 0], gaussians.opacities[:, None]], 1)
    rows["color"] = (255 * color).round().clamp(0, 255)
    rows["rotation"] = (128 * gaussians.quaternions + 128).round().clamp(0, 255)
    return rows.tobytes()


def spz_bytes(gaussians: Gaussians, version: int) -> bytes:
    """Write an spz file, whose axes are turned by half a turn about x: y up, z backward."""
    count, functions = gaussians.harmonics.shape[:2]
    turned = gaussians.means * torch.tensor([1.0, -1, -1])
    if version == 1:
        positions = turned.numpy().astype("<f2").tobytes()
    else:
        fixed = (turned * 4096).round().to(torch.int32).numpy().astype("<i4")
        positions = fixed.view(np.uint8).reshape(count, 3, 4)[..., :3].tobytes()
    quaternions = gaussians.quaternions[:, [1, 2, 3, 0]] * torch.tensor([1.0, -1, -1, 1])
    if version < 3:
        rotations = _bytes(quaternions[:, :3] * 127.5 + 127.5)
    else:
        rotations = b"".join(struct.pack("<I", _smallest_three(q)) for q in quaternions.tolist())
    signs = torch.tensor([1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1.0])[:functions, None]
    degree = round(functions**0.5) - 1
    flags = int(gaussians.is_antialiased)
    header = struct.pack("<IIIBBBB", 0x5053474E, version, count, degree, 12, flags, 0)
    body = [positions, _bytes(255 * gaussians.opacities)]
    body += [
        _bytes(255 * (0.5 + 0.15 * gaussians.harmonics[:, 0])),
        _bytes(16 * (gaussians.scales.log() + 10)),
    ]
    body += [rotations, _bytes(128 + 128 * (signs * gaussians.harmonics)[:, 1:])]
    return gzip.compress(header + b"".join(body), 1)


def _bytes(values: torch.Tensor) -> bytes:
    return values.round().clamp(0, 255).to(torch.uint8).numpy().tobytes()


def _smallest_three(quaternion: list[float]) -> int:
    """Pack a quaternion (x, y, z, w): the index of its largest entry, then sign and magnitude of the others."""
    largest = max(range(4), key=lambda i: abs(quaternion[i]))
    packed, sign = largest, -1 if quaternion[largest] < 0 else 1
    for i, value in enumerate(quaternion):
        if i != largest:
            packed = packed << 10 | (sign * value < 0) << 9 | round(511 * abs(value) * 2**0.5)
    return packed


def write(gaussians: Gaussians, path: Path) -> Path:
    """Write a splat file of the format of its suffix; spz files have version 3."""
    data = {".ply": ply_bytes, ".splat": splat_bytes, ".spz": lambda g: spz_bytes(g, 3)}[path.suffix](
        gaussians
    )
    path.write_bytes(data)
    return path
