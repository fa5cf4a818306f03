"""Loading of objects that were saved by `torch.save`, by PyTorch3D or by this package, under `weights_only` too."""

import sys
from typing import Any

import torch

THEIRS = "pytorch3d"
PACKAGE = "unrender.compat.pytorch3d"
CLASSES = {
    "structures.meshes": ("Meshes",),
    "structures.pointclouds": ("Pointclouds",),
    "structures.volumes": ("VolumeLocator", "Volumes"),
    "structures._rows": ("Rows",),
    "renderer.cameras": (
        "FoVOrthographicCameras",
        "FoVPerspectiveCameras",
        "OrthographicCameras",
        "PerspectiveCameras",
    ),
    "renderer.fisheyecameras": ("FishEyeCameras",),
    "renderer.blending": ("BlendParams",),
    "renderer.implicit.utils": ("HeterogeneousRayBundle", "RayBundle"),
    "renderer.lighting": ("AmbientLights", "DirectionalLights", "PointLights"),
    "renderer.materials": ("Materials",),
    "renderer.mesh.rasterizer": ("Fragments", "RasterizationSettings"),
    "renderer.mesh.textures": ("TexturesAtlas", "TexturesUV", "TexturesVertex"),
    "renderer.points.rasterizer": ("PointFragments", "PointsRasterizationSettings"),
    "transforms.transform3d": ("Rotate", "RotateAxisAngle", "Scale", "Transform3d", "Translate"),
}
"""Values by the module that PyTorch3D has them in; they hold tensors and numbers, and run no code of a file."""


def register(module_name: str) -> None:
    """Let `torch.load` make the values of a module, under their names here and in PyTorch3D."""
    path = module_name.removeprefix(PACKAGE + ".")
    module = sys.modules[module_name]
    for name in CLASSES[path]:
        found = getattr(module, name)
        names = {f"{found.__module__}.{name}", f"{PACKAGE}.{path}.{name}", f"{THEIRS}.{path}.{name}"}
        safe: list[Any] = [(found, full) for full in sorted(names)]
        torch.serialization.add_safe_globals(safe)


def cut(padded: Any, counts: Any) -> Any:
    """Return the members of a padded tensor, or the tensor where the counts are not known."""
    if padded is None or counts is None:
        return padded
    sizes = counts.tolist() if isinstance(counts, torch.Tensor) else list(counts)
    return [rows[:n] for rows, n in zip(padded, sizes, strict=True)]


def rows_of(state: dict[str, Any], name: str, counts: Any) -> Any:
    """Return rows from the state of an object of PyTorch3D, which has a list, a padded tensor, or both."""
    members = state.get(f"_{name}_list")
    return members if members is not None else cut(state.get(f"_{name}_padded"), counts)
