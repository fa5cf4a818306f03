"""Loading and saving of point clouds."""

import logging

import numpy as np
import torch

from unrender._checked import describe_value
from unrender.errors import FileFormatError, InputError
from unrender.geometry.points import PointCloud, is_measured
from unrender.geometry.sample import sample_points_from_mesh
from unrender.io.files import FilePath
from unrender.io.formats import (
    CLOUD_READERS,
    CLOUD_WRITERS,
    MESH_READERS,
    read_geometry_data,
    write_geometry_data,
)
from unrender.io.geometry_data import Floats, GeometryData, check_colors, floats_from_tensor, rgb_from_tensor
from unrender.io.meshes import mesh_from_geometry_data

_log = logging.getLogger("unrender")

TABLES = (".txt", ".csv", ".tsv", ".bin", ".npy", ".npz")
CLOUD_KINDS = (tuple({*MESH_READERS, *CLOUD_READERS} - {*TABLES}), TABLES)
"""Suffixes of files that hold points, and of those that may hold anything else beside them."""
NUM_SAMPLES = 20_000
"""Points sampled from the surface if a mesh file is loaded as a point cloud."""


def load_cloud(path: FilePath) -> PointCloud:
    """Load a point cloud, with normals and colors if the file has them; meshes are sampled at 20,000 points.

    Reads ply, pcd, npy, npz, text (xyz, txt, csv, pts, ptx, asc), lidar scans (las, laz and e57 with the extra `scans`,
    bin of KITTI and nuScenes), and mesh files: obj, stl, off, glb, gltf. The columns of a table are found by their
    names, or else by their values; the log says which were used.
    Non-finite points, and several at the origin (rays without a return), are removed, with a warning in the log.
    Positions are float64 if the file stores doubles, or digits that float32 would lose; otherwise float32.
    Raises `FileFormatError` for a damaged file, `InputError` for a path that cannot be read or an unsupported suffix.
    """
    cloud, columns = load_cloud_and_columns(path)
    if columns:
        _log.info("%s: %s", path, columns)
    return cloud


def load_cloud_and_columns(path: FilePath) -> tuple[PointCloud, str]:
    """Load a point cloud, and say which columns of a table were used for what; empty for other files."""
    geometry = read_geometry_data(path, MESH_READERS | CLOUD_READERS)
    columns = geometry.columns
    if geometry.faces is not None:
        geometry = _sample_surface(geometry, path)
    geometry = _remove_unmeasured(_remove_non_finite(geometry, path), path)
    check_colors(geometry, path)
    cloud = PointCloud(
        torch.from_numpy(np.array(geometry.points)),
        None
        if geometry.normals is None or not geometry.normals.any()
        else torch.from_numpy(_unit(geometry.normals, geometry.points.dtype)),
        None if geometry.colors is None else torch.from_numpy(geometry.colors.astype(geometry.points.dtype)),
    )
    return cloud, columns


def _remove_non_finite(geometry: GeometryData, path: FilePath) -> GeometryData:
    kept = np.asarray(np.isfinite(geometry.points).all(axis=1))
    dropped = len(kept) - int(kept.sum())
    if dropped == len(kept):
        raise FileFormatError(f"{path}: none of the {len(kept)} points is finite")
    if dropped:
        _log.warning("%s: removed %d of %d points that are not finite", path, dropped, len(kept))
    return _rows(geometry, kept)


def _remove_unmeasured(geometry: GeometryData, path: FilePath) -> GeometryData:
    measured = is_measured(torch.from_numpy(np.array(geometry.points))).numpy()
    if measured.all():
        return geometry
    dropped = len(measured) - int(measured.sum())
    _log.warning(
        "%s: removed %d of %d points at the origin (0, 0, 0), which mean that nothing was measured",
        path,
        dropped,
        len(measured),
    )
    return _rows(geometry, measured)


def _rows(geometry: GeometryData, chosen: Floats | slice) -> GeometryData:
    normals, colors = (
        None if array is None else array[chosen] for array in (geometry.normals, geometry.colors)
    )
    return GeometryData(geometry.points[chosen], None, normals, colors)


def _unit(normals: Floats, dtype: np.dtype[np.floating]) -> Floats:
    """Normalize to unit length; invalid normals (zero or non-finite) become zero."""
    known = np.isfinite(normals).all(axis=1, keepdims=True) & (normals != 0).any(axis=1, keepdims=True)
    normals = np.where(known, normals, 1.0).astype(np.float64)
    normals /= np.abs(normals).max(axis=1, keepdims=True)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    unit: Floats = (normals * known).astype(dtype)
    return unit


def _sample_surface(geometry: GeometryData, path: FilePath) -> GeometryData:
    mesh = mesh_from_geometry_data(geometry, path)
    try:
        samples = sample_points_from_mesh(mesh, NUM_SAMPLES, generator=torch.Generator().manual_seed(0))
    except InputError as error:
        raise FileFormatError(
            f"{path}: cannot sample points from the mesh: it has no surface area"
        ) from error
    _log.warning("%s: the file holds a mesh; sampled %d points from its surface", path, NUM_SAMPLES)
    colors = None
    if mesh.vertex_colors is not None:
        corners = mesh.vertex_colors[mesh.faces[samples.face_ids]]
        colors = (corners * samples.barycentric[..., None].to(corners)).sum(-2).numpy()
    return GeometryData(samples.points.numpy(), None, samples.normals.numpy(), colors)


def save_cloud(cloud: PointCloud, path: FilePath) -> None:
    """Save a point cloud to ply, xyz, pcd or npz; float64 positions keep their precision, weights are not saved."""
    if cloud.points.ndim != 2:
        raise InputError(
            f"save_cloud: expected a single point cloud, got a batch with points {describe_value(cloud.points)}; "
            "index the batch"
        )
    normals = None if cloud.normals is None else floats_from_tensor(cloud.normals)
    geometry = GeometryData(floats_from_tensor(cloud.points), None, normals, rgb_from_tensor(cloud.colors))
    if cloud.lengths is not None:
        geometry = _rows(geometry, slice(int(cloud.lengths)))
    if len(geometry.points) == 0:
        raise InputError(f"save_cloud: cannot save to {path}: the point cloud has no points")
    write_geometry_data(path, CLOUD_WRITERS, geometry)
