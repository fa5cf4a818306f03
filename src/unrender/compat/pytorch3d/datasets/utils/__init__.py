"""Collation of meshes."""

from collections.abc import Sequence
from typing import Any

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesAtlas
from unrender.compat.pytorch3d.structures.meshes import Meshes


def collate_batched_meshes(batch: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Merge items into lists, and their meshes into `Meshes`, for a `DataLoader`."""
    if not batch:
        return None
    merged: dict[str, Any] = {name: [item[name] for item in batch] for name in batch[0]}
    merged["mesh"] = None
    if {"verts", "faces"} <= merged.keys():
        textures = merged.get("textures")
        atlas = TexturesAtlas(textures) if textures and textures[0] is not None else None
        merged["mesh"] = Meshes(merged["verts"], merged["faces"], atlas)
    return merged


__getattr__ = refuse_unknown(__name__)
