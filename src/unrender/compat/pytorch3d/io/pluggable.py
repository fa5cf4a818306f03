"""`IO`: meshes and point clouds in all supported formats."""

import os
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io._sources import Source
from unrender.compat.pytorch3d.io.obj_io import load_objs_as_meshes, save_obj
from unrender.compat.pytorch3d.io.off_io import MeshOffFormat
from unrender.compat.pytorch3d.io.pluggable_formats import (
    MeshFormatInterpreter,
    PointcloudFormatInterpreter,
    endswith,
)
from unrender.compat.pytorch3d.io.ply_io import MeshPlyFormat, PointcloudPlyFormat
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesUV, TexturesVertex
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.clouds import load_cloud, save_cloud
from unrender.io.formats import CLOUD_READERS, CLOUD_WRITERS, MESH_READERS, MESH_WRITERS
from unrender.io.meshes import load_mesh, save_mesh
from unrender.io.textures import load_textured_mesh

Device = torch.device | str


class MeshObjFormat(MeshFormatInterpreter):
    """Meshes in OBJ files, with a texture image or atlas."""

    def __init__(self) -> None:
        self.known_suffixes = (".obj",)

    def read(
        self, path: Source, include_textures: bool, device: Device, path_manager: Any = None, **kwargs: Any
    ) -> Meshes | None:
        """Load a mesh, or return None for a file of another kind."""
        if not endswith(path, self.known_suffixes):
            return None
        names = ("create_texture_atlas", "texture_atlas_size", "texture_wrap")
        settings = {name: kwargs[name] for name in names if name in kwargs}
        return load_objs_as_meshes([path], device, include_textures, **settings)

    def save(
        self,
        data: Meshes,
        path: Source,
        path_manager: Any = None,
        binary: bool | None = None,
        decimal_places: int | None = None,
        **kwargs: Any,
    ) -> bool:
        """Save the first mesh, or return False for a path of another kind."""
        if not endswith(path, self.known_suffixes):
            return False
        verts, faces = data.get_mesh_verts_faces(0)
        textures = data.textures if kwargs.get("include_textures", True) else None
        extra: dict[str, Any] = {}
        if data.has_verts_normals():
            extra["normals"] = data.verts_normals_list()[0]
        if isinstance(textures, TexturesUV):
            extra["texture_map"] = textures.maps_list()[0]
            extra["verts_uvs"], extra["faces_uvs"] = (
                textures.verts_uvs_list()[0],
                textures.faces_uvs_list()[0],
            )
        save_obj(path, verts, faces, decimal_places, **extra)
        return True


class _OtherMeshes(MeshFormatInterpreter):
    """Meshes in the other formats of unrender: glTF, STL."""

    def read(
        self, path: Any, include_textures: bool, device: Device, path_manager: Any = None, **kwargs: Any
    ) -> Meshes | None:
        """Load one mesh with its texture image or vertex colors, or return None for a file of another kind."""
        if not _has_suffix(path, MESH_READERS):
            return None
        mesh, texture = load_textured_mesh(path) if include_textures else (load_mesh(path), None)
        mesh = mesh.to(torch.float32).to(device)
        textures: TexturesUV | TexturesVertex | None = None
        if texture is not None:
            texture = texture.to(device)
            image = texture.image[..., :3]
            textures = TexturesUV([image], [texture.faces], [texture.uvs], align_corners=False)
        elif include_textures and mesh.vertex_colors is not None:
            textures = TexturesVertex([mesh.vertex_colors])
        return Meshes([mesh.vertices], [mesh.faces], textures)

    def save(
        self, data: Meshes, path: Any, path_manager: Any = None, binary: bool | None = None, **kwargs: Any
    ) -> bool:
        """Save the first mesh, with vertex colors, or return False for a path of another kind."""
        if not _has_suffix(path, MESH_WRITERS):
            return False
        verts, faces = data.get_mesh_verts_faces(0)
        textures = data.textures if kwargs.get("include_textures", True) else None
        colors = textures.verts_features_list()[0] if isinstance(textures, TexturesVertex) else None
        save_mesh(Mesh(verts.detach(), faces, None if colors is None else colors.detach()), path)
        return True


class _OtherPointclouds(PointcloudFormatInterpreter):
    """Point clouds in the other formats of unrender: PCD, LAS, XYZ."""

    def read(self, path: Any, device: Device, path_manager: Any = None, **kwargs: Any) -> Pointclouds | None:
        """Load one cloud with normals, and colors as features, or return None for a file of another kind."""
        if not _has_suffix(path, CLOUD_READERS):
            return None
        cloud = load_cloud(path).to(torch.float32).to(device)
        normals, colors = (None if t is None else [t] for t in (cloud.normals, cloud.colors))
        return Pointclouds([cloud.points], normals, colors)

    def save(
        self,
        data: Pointclouds,
        path: Any,
        path_manager: Any = None,
        binary: bool | None = None,
        **kwargs: Any,
    ) -> bool:
        """Save the first cloud, or return False for a path of another kind."""
        if not _has_suffix(path, CLOUD_WRITERS):
            return False
        points, normals, features = data.get_cloud(0)
        colors = features if features is not None and features.shape[1] == 3 else None
        save_cloud(PointCloud(points, normals, colors), path)
        return True


def _has_suffix(path: Source, suffixes: Iterable[str]) -> bool:
    return isinstance(path, str | os.PathLike) and endswith(path, tuple(suffixes))


class IO:
    """Load and save in the format of a file's suffix; registered formats come first, the latest of them foremost."""

    def __init__(self, include_default_formats: bool = True, path_manager: Any = None) -> None:
        self.path_manager = path_manager
        self.mesh_interpreters: deque[MeshFormatInterpreter] = deque()
        self.pointcloud_interpreters: deque[PointcloudFormatInterpreter] = deque()
        if include_default_formats:
            self.mesh_interpreters += [MeshPlyFormat(), MeshOffFormat(), MeshObjFormat(), _OtherMeshes()]
            self.pointcloud_interpreters += [PointcloudPlyFormat(), _OtherPointclouds()]

    def register_meshes_format(self, interpreter: MeshFormatInterpreter) -> None:
        """Add a format of meshes, which comes before the others."""
        if not isinstance(interpreter, MeshFormatInterpreter):
            raise InputError("IO.register_meshes_format: takes a MeshFormatInterpreter")
        self.mesh_interpreters.appendleft(interpreter)

    def register_pointcloud_format(self, interpreter: PointcloudFormatInterpreter) -> None:
        """Add a format of point clouds, which comes before the others."""
        if not isinstance(interpreter, PointcloudFormatInterpreter):
            raise InputError("IO.register_pointcloud_format: takes a PointcloudFormatInterpreter")
        self.pointcloud_interpreters.appendleft(interpreter)

    def load_mesh(
        self, path: Source, include_textures: bool = True, device: Device = "cpu", **kwargs: Any
    ) -> Meshes:
        """Load one mesh with its normals, and its texture image or vertex colors."""
        for interpreter in self.mesh_interpreters:
            mesh: Meshes | None = interpreter.read(
                path, include_textures, device=device, path_manager=self.path_manager, **kwargs
            )
            if mesh is not None:
                return mesh
        raise InputError(f"No mesh interpreter found to read {path}.")

    def save_mesh(
        self,
        data: Meshes,
        path: Source,
        binary: bool | None = None,
        include_textures: bool = True,
        **kwargs: Any,
    ) -> None:
        """Save one mesh."""
        if not isinstance(data, Meshes):
            raise InputError(f"IO.save_mesh: takes Meshes, got {type(data).__name__}")
        if len(data) != 1:
            raise InputError(f"IO.save_mesh: a file contains one mesh, got {len(data)}")
        given = {"include_textures": include_textures, **kwargs}
        saved = (
            one.save(data, path, path_manager=self.path_manager, binary=binary, **given)
            for one in self.mesh_interpreters
        )
        if not any(saved):
            raise InputError(f"No mesh interpreter found to write to {path}.")

    def load_pointcloud(self, path: Source, device: Device = "cpu", **kwargs: Any) -> Pointclouds:
        """Load one cloud: the vertices of the file with their normals, and their colors as features."""
        for interpreter in self.pointcloud_interpreters:
            cloud: Pointclouds | None = interpreter.read(
                path, device=device, path_manager=self.path_manager, **kwargs
            )
            if cloud is not None:
                return cloud
        raise InputError(f"No point cloud interpreter found to read {path}.")

    def save_pointcloud(
        self, data: Pointclouds, path: Source, binary: bool | None = None, **kwargs: Any
    ) -> None:
        """Save one cloud."""
        if not isinstance(data, Pointclouds):
            raise InputError(f"IO.save_pointcloud: takes Pointclouds, got {type(data).__name__}")
        if len(data) != 1:
            raise InputError(f"IO.save_pointcloud: a file contains one point cloud, got {len(data)}")
        saved = (
            one.save(data, path, path_manager=self.path_manager, binary=binary, **kwargs)
            for one in self.pointcloud_interpreters
        )
        if not any(saved):
            raise InputError(f"No point cloud interpreter found to write to {path}.")


__getattr__ = refuse_unknown(__name__)
