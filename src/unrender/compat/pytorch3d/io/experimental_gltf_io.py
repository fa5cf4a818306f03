"""glTF, binary and text."""

from typing import Any

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io.pluggable import _OtherMeshes
from unrender.compat.pytorch3d.io.pluggable_formats import MeshFormatInterpreter, endswith
from unrender.compat.pytorch3d.structures.meshes import Meshes


class MeshGlbFormat(MeshFormatInterpreter):
    """Meshes in GLB files; `IO` reads and writes them without registration too."""

    def __init__(self) -> None:
        self.known_suffixes = (".glb",)

    def read(
        self,
        path: Any,
        include_textures: bool,
        device: torch.device | str,
        path_manager: Any = None,
        **kwargs: Any,
    ) -> Meshes | None:
        """Load a mesh, or return None for a file of another kind."""
        if not endswith(path, self.known_suffixes):
            return None
        return _OtherMeshes().read(path, include_textures, device)

    def save(
        self, data: Any, path: Any, path_manager: Any = None, binary: bool | None = None, **kwargs: Any
    ) -> bool:
        """Save the first mesh, or return False for a path of another kind."""
        return endswith(path, self.known_suffixes) and _OtherMeshes().save(data, path, **kwargs)


__getattr__ = refuse_unknown(__name__)
