"""Point clouds from files, and back."""

import logging

import numpy as np
import torch

from unrender._checked import describe_value
from unrender.errors import FileFormatError, InputError
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.io.contents import Contents, Floats, floats_from_tensor, rgb_from_tensor
from unrender.io.files import FilePath
from unrender.io.formats import CLOUD_READERS, CLOUD_WRITERS, MESH_READERS, read_contents, write_contents
from unrender.io.meshes import mesh_from_contents

_log = logging.getLogger("unrender")

NUM_SAMPLES = 20_000
"""Points drawn from the surface of a mesh that stands where a cloud is expected."""


def load_cloud(path: FilePath) -> PointCloud:
    """Load points, with normals and colors where the file has them; the surface of a mesh is sampled.

    Reads ply, pcd, npy, npz, text (xyz, txt, csv, pts, asc), and mesh files: obj, stl, off, glb.
    Points that are not finite are dropped, with a word in the log. Positions are float64 where the file holds
    doubles, or digits that float32 would lose; else float32.
    Raises `FileFormatError` for a damaged file, `InputError` for a path or suffix that cannot be used.
    """
    contents = read_contents(path, MESH_READERS | CLOUD_READERS)
    if contents.faces is not None:
        contents = _sample_surface(contents, path)
    contents = _drop_missing(contents, path)
    return PointCloud(
        torch.from_numpy(np.array(contents.points)),
        None
        if contents.normals is None
        else torch.from_numpy(_unit(contents.normals, contents.points.dtype)),
        None if contents.colors is None else torch.from_numpy(contents.colors.astype(contents.points.dtype)),
    )


def _drop_missing(contents: Contents, path: FilePath) -> Contents:
    kept = np.asarray(np.isfinite(contents.points).all(axis=1))
    dropped = len(kept) - int(kept.sum())
    if dropped == len(kept):
        raise FileFormatError(f"{path}: none of its {len(kept)} points is finite")
    if dropped:
        _log.warning("%s: dropped %d of %d points that are not finite", path, dropped, len(kept))
    return _rows(contents, kept)


def _rows(contents: Contents, chosen: Floats | slice) -> Contents:
    normals, colors = (
        None if array is None else array[chosen] for array in (contents.normals, contents.colors)
    )
    return Contents(contents.points[chosen], None, normals, colors)


def _unit(normals: Floats, dtype: np.dtype[np.floating]) -> Floats:
    """Scale to unit length; a normal that is unknown (zero, or not finite) becomes zero."""
    known = np.isfinite(normals).all(axis=1, keepdims=True) & (normals != 0).any(axis=1, keepdims=True)
    normals = np.where(known, normals, 1.0).astype(np.float64)
    normals /= np.abs(normals).max(axis=1, keepdims=True)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    unit: Floats = (normals * known).astype(dtype)
    return unit


def _sample_surface(contents: Contents, path: FilePath) -> Contents:
    mesh = mesh_from_contents(contents, path)
    try:
        samples = sample_points_from_mesh(mesh, NUM_SAMPLES, generator=torch.Generator().manual_seed(0))
    except InputError as error:
        raise FileFormatError(f"{path}: a mesh whose surface cannot be sampled: it has no area") from error
    _log.warning("%s: a mesh; its surface was sampled at %d points", path, NUM_SAMPLES)
    colors = None
    if mesh.vertex_colors is not None:
        corners = mesh.vertex_colors[mesh.faces[samples.face_ids]]
        colors = (corners * samples.barycentric[..., None].to(corners)).sum(-2).numpy()
    return Contents(samples.points.numpy(), None, samples.normals.numpy(), colors)


def save_cloud(cloud: PointCloud, path: FilePath) -> None:
    """Save a cloud to ply, xyz, pcd or npz; float64 positions keep their digits, weights are left out."""
    if cloud.points.ndim != 2:
        raise InputError(
            f"save_cloud: one cloud fits into a file, got {describe_value(cloud.points)}; index the cloud"
        )
    normals = None if cloud.normals is None else floats_from_tensor(cloud.normals)
    contents = Contents(floats_from_tensor(cloud.points), None, normals, rgb_from_tensor(cloud.colors))
    if cloud.lengths is not None:
        contents = _rows(contents, slice(int(cloud.lengths)))
    if len(contents.points) == 0:
        raise InputError(f"save_cloud: the cloud for {path} was not written: it has no points")
    write_contents(path, CLOUD_WRITERS, contents)
