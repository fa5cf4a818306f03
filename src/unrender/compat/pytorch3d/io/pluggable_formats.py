"""Interfaces of file formats that `IO` can be extended by."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from unrender.compat.pytorch3d._names import refuse_unknown


def endswith(path: Any, suffixes: str | Sequence[str]) -> bool:
    """Return whether a path, or the name of an open handle, has one of the suffixes, in upper or lower case.

    A handle without a name, such as a `StringIO`, may be of any format.
    """
    name = path if isinstance(path, str | os.PathLike) else getattr(path, "name", None)
    wanted = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    return not isinstance(name, str | pathlib.PurePath) or str(name).lower().endswith(wanted)


class MeshFormatInterpreter:
    """A format of meshes; `read` returns None, and `save` False, for files of another format."""

    def read(
        self, path: Any, include_textures: bool, device: Any, path_manager: Any = None, **kwargs: Any
    ) -> Any:
        """Load a mesh."""
        raise NotImplementedError

    def save(
        self, data: Any, path: Any, path_manager: Any = None, binary: bool | None = None, **kwargs: Any
    ) -> bool:
        """Save a mesh."""
        raise NotImplementedError


class PointcloudFormatInterpreter:
    """A format of point clouds; `read` returns None, and `save` False, for files of another format."""

    def read(self, path: Any, device: Any, path_manager: Any = None, **kwargs: Any) -> Any:
        """Load a point cloud."""
        raise NotImplementedError

    def save(
        self, data: Any, path: Any, path_manager: Any = None, binary: bool | None = None, **kwargs: Any
    ) -> bool:
        """Save a point cloud."""
        raise NotImplementedError


__getattr__ = refuse_unknown(__name__)
