"""glTF, binary and text."""

import struct
from typing import Any, BinaryIO

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io.pluggable import _OtherMeshes
from unrender.compat.pytorch3d.io.pluggable_formats import MeshFormatInterpreter, endswith
from unrender.compat.pytorch3d.structures.meshes import Meshes

_HEADER = struct.Struct("<4sII")


def _read_header(stream: BinaryIO) -> tuple[int, int] | None:
    """Return the version and the length in bytes of a GLB file, or None for a file of another kind."""
    data = stream.read(_HEADER.size)
    if len(data) < _HEADER.size or data[:4] != b"glTF":
        return None
    _, version, length = _HEADER.unpack(data)
    return version, length


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
