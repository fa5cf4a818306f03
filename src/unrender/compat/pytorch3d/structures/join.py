"""Joining of meshes, as batches or as one mesh."""

from collections.abc import Sequence

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.errors import InputError


def join_meshes_as_batch(meshes: Sequence[Meshes], include_textures: bool = True) -> Meshes:
    """Concatenate batches of meshes."""
    if isinstance(meshes, Meshes) or not all(isinstance(mesh, Meshes) for mesh in meshes):
        raise InputError("join_meshes_as_batch: takes a list of Meshes")
    textures = None
    if include_textures and any(mesh.textures is not None for mesh in meshes):
        given = [mesh.textures for mesh in meshes if mesh.textures is not None]
        if len(given) < len(meshes) or len({type(t) for t in given}) > 1:
            raise InputError("join_meshes_as_batch: all meshes should have textures of one kind, or none")
        textures = given[0].join_batch(given[1:])
    return Meshes(
        [v for mesh in meshes for v in mesh.verts_list()],
        [f for mesh in meshes for f in mesh.faces_list()],
        textures,
    )


def join_meshes_as_scene(meshes: Meshes | Sequence[Meshes], include_textures: bool = True) -> Meshes:
    """Join all meshes of a batch, or of several, into one mesh."""
    batch = meshes if isinstance(meshes, Meshes) else join_meshes_as_batch(meshes, include_textures)
    if len(batch) == 1:
        return batch if include_textures else Meshes(batch.verts_list(), batch.faces_list())
    with_textures = include_textures and batch.textures is not None
    textures = batch.textures.join_scene() if with_textures and batch.textures is not None else None
    return Meshes([batch.verts_packed()], [batch.faces_packed()], textures)


__getattr__ = refuse_unknown(__name__)
