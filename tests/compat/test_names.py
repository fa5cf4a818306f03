"""The names that are promised stand where PyTorch3D has them, and no others do in silence."""

import importlib
import inspect
import subprocess
import sys

import pytest

import unrender.compat.pytorch3d
from unrender.compat.pytorch3d._names import MissingNameError

HERE = "unrender.compat.pytorch3d"
NAMES = {
    "io": "load_obj load_objs_as_meshes save_obj load_ply save_ply IO",
    "io.obj_io": "load_obj load_objs_as_meshes save_obj",
    "io.ply_io": "load_ply save_ply",
    "datasets": "R2N2 ShapeNetCore BlenderCamera collate_batched_meshes collate_batched_R2N2 render_cubified_voxels",
    "datasets.shapenet": "ShapeNetCore",
    "datasets.r2n2": "R2N2 BlenderCamera",
    "loss": "chamfer_distance mesh_edge_loss mesh_laplacian_smoothing mesh_normal_consistency point_mesh_face_distance",
    "loss.point_mesh_distance": "point_mesh_face_distance",
    "ops": "sample_points_from_meshes knn_points knn_gather SubdivideMeshes corresponding_points_alignment "
    "iterative_closest_point interpolate_face_attributes",
    "ops.knn": "knn_points",
    "ops.points_alignment": "corresponding_points_alignment iterative_closest_point",
    "structures": "Meshes Pointclouds Volumes join_meshes_as_batch join_meshes_as_scene",
    "structures.meshes": "Meshes join_meshes_as_batch join_meshes_as_scene",
    "structures.pointclouds": "Pointclouds join_pointclouds_as_batch join_pointclouds_as_scene",
    "structures.volumes": "VolumeLocator Volumes",
    "renderer": "FoVPerspectiveCameras PerspectiveCameras FoVOrthographicCameras OrthographicCameras "
    "look_at_view_transform look_at_rotation camera_position_from_spherical_angles RasterizationSettings "
    "MeshRasterizer MeshRenderer MeshRendererWithFragments rasterize_meshes HardPhongShader SoftPhongShader "
    "HardFlatShader HardGouraudShader SoftGouraudShader SoftSilhouetteShader BlendParams Materials PointLights "
    "DirectionalLights AmbientLights TexturesVertex TexturesUV NDCMultinomialRaysampler NDCGridRaysampler "
    "MonteCarloRaysampler MultinomialRaysampler RayBundle ray_bundle_to_ray_points EmissionAbsorptionRaymarcher "
    "AbsorptionOnlyRaymarcher VolumeRenderer VolumeSampler ImplicitRenderer HarmonicEmbedding sample_pdf",
    "renderer.cameras": "FoVPerspectiveCameras PerspectiveCameras look_at_view_transform CamerasBase "
    "OpenGLPerspectiveCameras OpenGLOrthographicCameras SfMPerspectiveCameras SfMOrthographicCameras",
    "renderer.blending": "BlendParams softmax_rgb_blend sigmoid_alpha_blend hard_rgb_blend",
    "renderer.lighting": "PointLights DirectionalLights AmbientLights",
    "renderer.materials": "Materials",
    "renderer.mesh": "MeshRasterizer MeshRenderer TexturesUV rasterize_meshes",
    "renderer.mesh.rasterizer": "MeshRasterizer RasterizationSettings Fragments rasterize_meshes",
    "renderer.mesh.rasterize_meshes": "rasterize_meshes",
    "renderer.mesh.renderer": "MeshRenderer MeshRendererWithFragments",
    "renderer.mesh.shader": "HardPhongShader SoftPhongShader SoftSilhouetteShader HardFlatShader",
    "renderer.mesh.shading": "phong_shading flat_shading gouraud_shading",
    "renderer.mesh.textures": "TexturesVertex TexturesUV TexturesAtlas Textures",
    "renderer.implicit": "VolumeRenderer HarmonicEmbedding sample_pdf",
    "renderer.implicit.harmonic_embedding": "HarmonicEmbedding",
    "renderer.implicit.raymarching": "EmissionAbsorptionRaymarcher AbsorptionOnlyRaymarcher",
    "renderer.implicit.raysampling": "NDCMultinomialRaysampler MonteCarloRaysampler",
    "renderer.implicit.renderer": "ImplicitRenderer VolumeRenderer VolumeSampler",
    "renderer.implicit.utils": "RayBundle ray_bundle_to_ray_points",
    "transforms": "so3_exp_map so3_log_map so3_relative_angle se3_exp_map Transform3d Rotate Translate Scale "
    "RotateAxisAngle quaternion_to_matrix matrix_to_quaternion axis_angle_to_matrix matrix_to_axis_angle "
    "euler_angles_to_matrix matrix_to_euler_angles rotation_6d_to_matrix matrix_to_rotation_6d random_rotations",
    "transforms.rotation_conversions": "quaternion_to_matrix",
    "transforms.so3": "so3_exp_map so3_log_map so3_relative_angle hat hat_inv",
    "transforms.se3": "se3_exp_map",
    "transforms.transform3d": "Transform3d Rotate",
    "utils": "ico_sphere torus",
    "io.mtl_io": "load_mtl make_mesh_texture_atlas",
    "io.off_io": "MeshOffFormat",
    "io.pluggable": "IO",
    "io.pluggable_formats": "MeshFormatInterpreter PointcloudFormatInterpreter endswith",
    "io.experimental_gltf_io": "MeshGlbFormat _read_header",
    "common": "get_device make_device",
    "common.compat": "meshgrid_ij",
    "common.datatypes": "get_device",
    "common.types": "get_device make_device",
    "common.linear_with_repeat": "LinearWithRepeat",
    "common.workaround": "symeig3x3",
    "ops.ball_query": "ball_query",
    "ops.cameras_alignment": "corresponding_cameras_alignment",
    "ops.cubify": "cubify",
    "ops.graph_conv": "GraphConv gather_scatter",
    "ops.interp_face_attrs": "interpolate_face_attributes",
    "ops.iou_box3d": "box3d_overlap",
    "ops.laplacian_matrices": "laplacian cot_laplacian norm_laplacian",
    "ops.marching_cubes": "marching_cubes",
    "ops.mesh_face_areas_normals": "mesh_face_areas_normals",
    "ops.mesh_filtering": "taubin_smoothing",
    "ops.packed_to_padded": "packed_to_padded padded_to_packed",
    "ops.perspective_n_points": "efficient_pnp",
    "ops.points_normals": "estimate_pointcloud_normals estimate_pointcloud_local_coord_frames",
    "ops.points_to_volumes": "add_pointclouds_to_volumes",
    "ops.sample_farthest_points": "sample_farthest_points",
    "ops.utils": "masked_gather wmean eyes",
    "ops.vert_align": "vert_align",
    "renderer.camera_conversions": "cameras_from_opencv_projection",
    "renderer.camera_utils": "join_cameras_as_batch camera_to_eye_at_up rotate_on_spot",
    "renderer.compositing": "alpha_composite norm_weighted_sum weighted_sum",
    "renderer.fisheyecameras": "FishEyeCameras",
    "renderer.opengl": "MeshRasterizerOpenGL",
    "renderer.points": "PointsRasterizationSettings PointsRasterizer PointsRenderer AlphaCompositor "
    "NormWeightedCompositor PulsarPointsRenderer",
    "renderer.points.compositor": "AlphaCompositor",
    "renderer.points.rasterizer": "PointsRasterizer PointsRasterizationSettings",
    "renderer.points.renderer": "PointsRenderer",
    "renderer.points.pulsar.unified": "PulsarPointsRenderer",
    "renderer.mesh.utils": "pack_rectangles",
    "renderer.utils": "TensorProperties convert_to_tensors_and_broadcast",
    "transforms.math": "acos_linear_extrapolation",
    "utils.camera_conversions": "cameras_from_opencv_projection opencv_from_cameras_projection",
    "utils.checkerboard": "checkerboard",
    "utils.ico_sphere": "ico_sphere",
    "utils.torus": "torus",
    "vis.texture_vis": "texturesuv_image_matplotlib texturesuv_image_PIL",
    "vis": "plot_scene get_camera_wireframe texturesuv_image_PIL",
    "vis.plotly_vis": "plot_scene AxisArgs",
}
SIGNATURES = {
    "loss.chamfer_distance": "(x, y, x_lengths=None, y_lengths=None, x_normals=None, y_normals=None, weights=None, "
    "batch_reduction='mean', point_reduction='mean', norm=2, single_directional=False, abs_cosine=True)",
    "ops.knn_points": "(p1, p2, lengths1=None, lengths2=None, norm=2, K=1, version=-1, return_nn=False, "
    "return_sorted=True)",
    "ops.sample_points_from_meshes": "(meshes, num_samples=10000, return_normals=False, return_textures=False)",
    "renderer.RasterizationSettings": "(image_size=256, blur_radius=0.0, faces_per_pixel=1, bin_size=None, "
    "max_faces_opengl=10000000, max_faces_per_bin=None, perspective_correct=None, clip_barycentric_coords=None, "
    "cull_backfaces=False, z_clip_value=None, cull_to_frustum=False)",
    "renderer.BlendParams": "(sigma=0.0001, gamma=0.0001, background_color=(1.0, 1.0, 1.0))",
    "renderer.look_at_view_transform": "(dist=1.0, elev=0.0, azim=0.0, degrees=True, eye=None, at=((0, 0, 0),), "
    "up=((0, 1, 0),), device='cpu')",
    "renderer.HarmonicEmbedding": "(n_harmonic_functions=6, omega_0=1.0, logspace=True, append_input=True)",
    "renderer.sample_pdf": "(bins, weights, n_samples, det=False, eps=1e-05)",
    "utils.torus": "(r, R, sides, rings, device=None)",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_stand_where_theirs_do(module):
    found = importlib.import_module(f"{HERE}.{module}")
    assert [name for name in NAMES[module].split() if not callable(getattr(found, name))] == []
    with pytest.raises(AttributeError, match=rf"pytorch3d\.{module}\.nothing is not supported .*docs/coming"):
        _ = found.nothing
    assert not hasattr(found, "nothing")


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures_are_theirs(path):
    module, _, name = path.rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(f"{HERE}.{module}"), name))
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(plain)) == SIGNATURES[path]


def test_unknown_modules_are_refused():
    with pytest.raises(MissingNameError, match=r"pytorch3d\.renderer\.nothing is not supported"):
        importlib.import_module(f"{HERE}.renderer.nothing")
    assert not hasattr(unrender.compat.pytorch3d, "_private")
    assert not hasattr(unrender.compat.pytorch3d, "implicitron")
    assert getattr(unrender.compat.pytorch3d.renderer, "nothing", None) is None
    assert unrender.compat.pytorch3d.ops.knn_points


def test_names_of_functions_and_modules_stay_apart(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pytorch3d.utils.ico_sphere import ico_sphere as first\n"
        "from pytorch3d.utils import ico_sphere, torus\n"
        "from pytorch3d.ops.ball_query import ball_query\n"
        "import pytorch3d.ops\n"
        "assert first is ico_sphere and callable(torus) and pytorch3d.ops.ball_query is ball_query\n"
        "from pytorch3d import _C\n"
        "from pytorch3d.renderer import PulsarPointsRenderer\n"
        "try:\n    PulsarPointsRenderer(1)\nexcept ImportError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-m", HERE, str(script)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "PulsarPointsRenderer is not supported by unrender" in found.stdout
