"""Operations on clouds and meshes."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.ball_query import ball_query
from unrender.compat.pytorch3d.ops.cameras_alignment import corresponding_cameras_alignment
from unrender.compat.pytorch3d.ops.cubify import cubify
from unrender.compat.pytorch3d.ops.graph_conv import GraphConv
from unrender.compat.pytorch3d.ops.interp_face_attrs import interpolate_face_attributes
from unrender.compat.pytorch3d.ops.iou_box3d import box3d_overlap
from unrender.compat.pytorch3d.ops.knn import knn_gather, knn_points
from unrender.compat.pytorch3d.ops.laplacian_matrices import cot_laplacian, laplacian, norm_laplacian
from unrender.compat.pytorch3d.ops.mesh_face_areas_normals import mesh_face_areas_normals
from unrender.compat.pytorch3d.ops.mesh_filtering import taubin_smoothing
from unrender.compat.pytorch3d.ops.packed_to_padded import packed_to_padded, padded_to_packed
from unrender.compat.pytorch3d.ops.perspective_n_points import efficient_pnp
from unrender.compat.pytorch3d.ops.points_alignment import (
    corresponding_points_alignment,
    iterative_closest_point,
)
from unrender.compat.pytorch3d.ops.points_normals import (
    estimate_pointcloud_local_coord_frames,
    estimate_pointcloud_normals,
)
from unrender.compat.pytorch3d.ops.points_to_volumes import (
    add_pointclouds_to_volumes,
    add_points_features_to_volume_densities_features,
)
from unrender.compat.pytorch3d.ops.sample_farthest_points import sample_farthest_points
from unrender.compat.pytorch3d.ops.sample_points_from_meshes import sample_points_from_meshes
from unrender.compat.pytorch3d.ops.subdivide_meshes import SubdivideMeshes
from unrender.compat.pytorch3d.ops.utils import (
    convert_pointclouds_to_tensor,
    eyes,
    get_point_covariances,
    is_pointclouds,
    wmean,
)
from unrender.compat.pytorch3d.ops.vert_align import vert_align

__all__ = [
    "GraphConv",
    "SubdivideMeshes",
    "add_pointclouds_to_volumes",
    "add_points_features_to_volume_densities_features",
    "ball_query",
    "box3d_overlap",
    "convert_pointclouds_to_tensor",
    "corresponding_cameras_alignment",
    "corresponding_points_alignment",
    "cot_laplacian",
    "cubify",
    "efficient_pnp",
    "estimate_pointcloud_local_coord_frames",
    "estimate_pointcloud_normals",
    "eyes",
    "get_point_covariances",
    "interpolate_face_attributes",
    "is_pointclouds",
    "iterative_closest_point",
    "knn_gather",
    "knn_points",
    "laplacian",
    "mesh_face_areas_normals",
    "norm_laplacian",
    "packed_to_padded",
    "padded_to_packed",
    "sample_farthest_points",
    "sample_points_from_meshes",
    "taubin_smoothing",
    "vert_align",
    "wmean",
]

__getattr__ = refuse_unknown(__name__)
