"""`IO`: meshes and point clouds in all supported formats."""

from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io.obj_io import load_objs_as_meshes, save_obj
from unrender.compat.pytorch3d.io.ply_io import save_ply
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesUV, TexturesVertex
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.clouds import load_cloud, save_cloud
from unrender.io.files import FilePath
from unrender.io.meshes import load_mesh, save_mesh
from unrender.io.textures import load_textured_mesh

Device = torch.device | str


class IO:
    """Load and save by file suffix; custom format interpreters are not supported."""

    def __init__(self, include_default_formats: bool = True, path_manager: Any = None) -> None:
        self.path_manager = path_manager

    def load_mesh(
        self, path: FilePath, include_textures: bool = True, device: Device = "cpu", **kwargs: Any
    ) -> Meshes:
        """Load one mesh with its texture image or vertex colors."""
        if str(path).lower().endswith(".obj"):
            return load_objs_as_meshes([path], device, include_textures)
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

    def save_mesh(
        self,
        data: Meshes,
        path: FilePath,
        binary: bool | None = None,
        include_textures: bool = True,
        **kwargs: Any,
    ) -> None:
        """Save one mesh."""
        if len(data) != 1:
            raise InputError(f"IO.save_mesh: a file contains one mesh, got {len(data)}")
        verts, faces = data.get_mesh_verts_faces(0)
        textures = data.textures if include_textures else None
        if isinstance(textures, TexturesUV) and str(path).lower().endswith(".obj"):
            maps, uvs, corners = (
                textures.maps_list()[0],
                textures.verts_uvs_list()[0],
                textures.faces_uvs_list()[0],
            )
            save_obj(path, verts, faces, verts_uvs=uvs, faces_uvs=corners, texture_map=maps)
        elif isinstance(textures, TexturesVertex):
            save_mesh(Mesh(verts.detach(), faces, textures.verts_features_list()[0].detach()), path)
        elif binary is False and str(path).lower().endswith(".ply"):
            save_ply(path, verts, faces, ascii=True)
        else:
            save_mesh(Mesh(verts.detach(), faces), path)

    def load_pointcloud(self, path: FilePath, device: Device = "cpu", **kwargs: Any) -> Pointclouds:
        """Load one cloud with its normals, and its colors as features."""
        cloud = load_cloud(path).to(torch.float32).to(device)
        normals, colors = (None if t is None else [t] for t in (cloud.normals, cloud.colors))
        return Pointclouds([cloud.points], normals, colors)

    def save_pointcloud(
        self, data: Pointclouds, path: FilePath, binary: bool | None = None, **kwargs: Any
    ) -> None:
        """Save one cloud."""
        if len(data) != 1:
            raise InputError(f"IO.save_pointcloud: a file contains one point cloud, got {len(data)}")
        points, normals, features = data.get_cloud(0)
        colors: Tensor | None = features if features is not None and features.shape[1] == 3 else None
        save_cloud(PointCloud(points, normals, colors), path)


__getattr__ = refuse_unknown(__name__)
