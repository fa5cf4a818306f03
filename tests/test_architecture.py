import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import unrender

SOURCE = Path(unrender.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
KERNELS = sorted(path.parent for path in SOURCE.glob("kernels/[a-z]*/__init__.py"))
HEAVY = (
    "numba",
    "warp",
    "triton",
    "scipy",
    "skimage",
    "trimesh",
    "PIL",
    "tyro",
    "rich",
    "matplotlib",
    "viser",
)

# fmt: off
PUBLIC_NAMES = [
    "AmbientLight", "CallableField", "Camera", "Chamfer", "ClosestOnMesh", "Composited", "DepthFiles",
    "DepthLayers", "DepthMap", "DepthPoints", "DepthSupervision", "DepthView", "DirectionalLight", "Field",
    "FieldOptions", "FileAccessError", "FileFormatError", "FilledMesh", "FindPose",
    "FindPoseStep", "FindRegions", "FitLinearModel", "FitLinearModelStep", "FitMesh",
    "FitMeshStep", "FitNerf", "FitVolume", "FlatRegion", "FlatRegions", "Fragments", "Frame", "GaussianField",
    "FitSurface", "FitSurfaceStep",
    "Gaussians", "GripPair",
    "HashLevels", "HashNeRF", "Headlight", "InputError", "KernelError", "Landmarks", "Lens", "LinearModelFit",
    "LinearShapeModel",
    "Material", "Mesh",
    "MissingFileError", "NeRF", "Nearest", "OccupancyGrid", "ParameterChange", "Photo", "PixelBatch",
    "PixelSource", "Pixels", "PointCloud", "PointFragments", "PointIndex", "PointLight", "PoseEstimate",
    "PoseTracker", "RayInterval", "RaySamples", "Rays", "RegisterPhotos", "RegisterPhotosStep", "Registration",
    "RenderOutput", "Scene", "SceneBox", "SceneRegion", "ShapeError", "SparseVoxels", "SurfaceSamples",
    "Texture", "TrackLinearModelStep",
    "TrackPose", "TrackPoseStep", "TrackedObject", "TrackedPose", "TrainableField", "TrainingStep",
    "TransferFunction", "UnrenderError", "View", "Volume", "Window", "WorldOrigin", "__version__",
    "apply_transfer_function", "ball_query", "blend_hard", "blend_softmax", "chamfer_distance", "clip_to_box",
    "closest_on_mesh", "cloud_from_mesh", "composite", "composite_alphas", "composite_points", "confined_reads",
    "connected_components", "cube", "demo_object", "depth_errors", "depth_layers", "depth_loss",
    "distortion_loss", "enclosed_volume", "evaluate_depth", "extract_surface", "face_areas", "face_normals",
    "farthest_points", "fill_holes", "find_pose", "find_regions", "fit_linear_model", "fit_mesh", "fit_nerf",
    "fit_surface",
    "fit_tutorial_volume", "fit_volume",
    "fuse_depths", "genus", "harmonic_embedding", "hash_grid", "ico_sphere", "index_faces", "index_points",
    "interpolated_path", "is_manifold", "is_watertight", "join_meshes", "keep_largest_component", "linear_shape",
    "load_cameras", "load_cloud", "load_depth", "load_depth_views", "load_field", "load_gaussians", "load_image",
    "load_landmarks", "load_linear_model",
    "load_mesh",
    "load_photo", "load_scene", "load_textured_mesh", "load_volume", "march", "marching_cubes",
    "match_exposure", "measure_depth", "measure_mesh", "mesh_edge_loss", "mesh_laplacian_smoothing",
    "mesh_normal_consistency", "nearest", "orbit_path", "packed_from_padded", "padded_from_packed",
    "perspective_n_points", "phong", "point_to_mesh_distance", "points_from_depth", "points_from_views", "psnr",
    "quaternion_from_rotation", "quick_look", "random_pixels", "random_rotations", "rasterize",
    "rasterize_points", "rays_of", "rays_through", "register_field", "register_photos", "remesh_isotropic",
    "render_depth", "render_field", "render_mesh", "render_normals", "render_points", "render_silhouette",
    "render_volume", "resolve_device", "rotation_angle", "rotation_from_6d", "rotation_from_quaternion",
    "sample_grid", "sample_importance", "sample_occupied", "sample_points_from_mesh", "sample_stratified",
    "sample_uniform", "samples_at", "save_cameras", "save_cloud", "save_demo_scene", "save_depth", "save_field",
    "save_image", "save_linear_model",
    "save_mesh", "save_transforms", "save_video", "save_volume", "sixd_from_rotation",
    "separate_fans",
    "simplify_quadric", "smooth_taubin", "so3_exp_map", "so3_log_map", "spherical_harmonics", "spiral_path",
    "ssim", "subdivide",
    "surface_area", "tiny_mlp", "to_local", "to_world", "torus", "track_linear_model",
    "track_pose", "vertex_normals",
    "view_consistency", "visible_blocks", "voxel_downsample", "watch", "window_transfer",
    "BakedTexture", "BakedVertexColors", "FitTemplate", "FitTemplateStep",
    "LevelOfDetail", "PhotoView", "TemplateFit", "UVAtlas", "bake_texture",
    "bake_vertex_colors", "convex_parts", "fit_template",
    "levels_of_detail", "load_photo_views", "save_textured_mesh",
    "save_turntable", "transform_for_export", "unwrap",
]
# fmt: on


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def short(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def test_public_names():
    assert sorted(dir(unrender)) == sorted(unrender.__all__) == sorted(PUBLIC_NAMES)
    for name in PUBLIC_NAMES:
        assert getattr(unrender, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = unrender.nothing_of_that_name


def test_import_is_light():
    code = (
        f"import sys, torch; before = set(sys.modules); import unrender; unrender.{'; unrender.'.join(LIGHT)}"
    )
    code += f"; print(sorted({set(HEAVY)!r} & (set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


LIGHT = ("Mesh", "chamfer_distance", "index_points", "closest_on_mesh", "Camera", "ShapeError", "render_mesh")


def test_no_file_is_called_after_nothing():
    assert not [
        short(path)
        for path in MODULES
        if path.stem.strip("_") in {"utils", "core", "common", "base", "helpers"}
    ]


def test_no_file_is_long():
    lengths = {short(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert not {name: length for name, length in lengths.items() if length > 500}


def is_compiled(function: ast.FunctionDef) -> bool:
    """Tell whether it is the inside of a kernel, for numba or Warp: calls in there cost time."""
    ends = ("njit", "wp.func", ".kernel")
    return any(ast.unparse(decorator).split("(")[0].endswith(ends) for decorator in function.decorator_list)


def num_lines(function: ast.FunctionDef) -> int:
    """Count the lines of a function without those of the functions in it."""
    inside = [
        node for node in ast.walk(function) if isinstance(node, ast.FunctionDef) and node is not function
    ]
    inner = {line for node in inside for line in range(node.lineno, node.end_lineno + 1)}
    return len(set(range(function.lineno, function.end_lineno + 1)) - inner)


def num_parameters(function: ast.FunctionDef) -> int:
    arguments = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(arguments) - (arguments[:1] in (["self"], ["cls"]))


def test_no_function_is_long():
    assert not [
        f"{short(path)}: {function.name}"
        for path in MODULES
        for function in functions(path)
        if not is_compiled(function) and num_lines(function) > 50
    ]


def test_no_function_has_many_parameters():
    found = [
        f"{short(path)}: {function.name}"
        for path in MODULES
        if not short(path).startswith("compat")  # their signatures
        for function in functions(path)
        if not is_compiled(function) and num_parameters(function) > 12
    ]
    assert not found


def test_interfaces_are_not_hidden_in_kwargs():
    allowed = {  # one value each, under its own name
        "_checked.py: wrapper",
        "_struct.py: replace",
        "cli/confine.py: run",  # a decorator
        "kernels/nearest/__init__.py: check_agreement",
        "kernels/nearest/__init__.py: check_finite",
        "kernels/nearest/__init__.py: check_points",
        "losses/chamfer.py: of",
        "viewer/guarded_server.py: _serve",  # in place of a function of websockets
    }
    found = {
        f"{short(path)}: {function.name}"
        for path in MODULES
        if not short(path).startswith("compat")
        for function in functions(path)
        if function.args.kwarg
    }
    assert found <= allowed


def test_devices_are_told_apart_in_one_place():
    names = {"is_cuda", "is_cpu"}
    found = [
        f"{short(path)}:{node.lineno}"
        for path in MODULES
        if short(path) != "kernels/_dispatch.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in names
    ]
    assert not found


def test_only_kernels_know_the_compilers():
    found = [
        short(path)
        for path in MODULES
        if not short(path).startswith(("kernels", "cli/doctor"))
        for node in ast.walk(tree(path))
        if (
            isinstance(node, ast.Import)
            and any(a.name.split(".")[0] in {"numba", "warp", "triton"} for a in node.names)
        )
        or (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] in {"numba", "warp", "triton"}
        )
    ]
    assert not found


@pytest.mark.parametrize("name", [name for name in PUBLIC_NAMES if not name.startswith("_")])
def test_what_is_public_is_documented(name):
    assert inspect.getdoc(getattr(unrender, name))


KERNEL_MODULES = [path for path in MODULES if short(path).startswith("kernels")]


def test_internals_of_numba_lie_in_one_folder():
    found = [
        f"{short(path)}:{node.lineno}"
        for path in KERNEL_MODULES
        if not short(path).startswith("kernels/_llvm/")
        for node in ast.walk(tree(path))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.split(".")[0] == "llvmlite" or name.startswith("numba.")
    ]
    assert not found


def test_kernels_import_no_private_names():
    found = [
        f"{short(path)}:{node.lineno} {alias.name}"
        for path in KERNEL_MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_") and (node.module or "").startswith("unrender.kernels.")
    ]
    assert not found


def test_kernels_remember_nothing():
    found = {
        f"{short(path)}: {name}"
        for path in KERNEL_MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Global)
        for name in node.names
    }
    assert not found


INDEX = {"query_order", "order", "boxes", "blocks"}
"""Parameters for what a fast version builds once, opaque to others."""


@pytest.mark.parametrize("folder", KERNELS, ids=lambda folder: folder.name)
def test_implementations_have_one_signature(folder):
    names = ["reference", "cpu"]
    if (folder / "gpu.py").exists() and importlib.util.find_spec("warp") is not None:
        names.append("gpu")
    modules = [importlib.import_module(f"unrender.kernels.{folder.name}.{name}") for name in names]
    assert len({parameters_but_index(m.forward) for m in modules}) == 1
    for name in ("build", "forward", "backward", "compare_all"):
        signatures = {
            tuple(inspect.signature(f).parameters) for m in modules[1:] if (f := getattr(m, name, None))
        }
        assert len(signatures) <= 1, name


def parameters_but_index(function) -> tuple[str, ...]:
    """List the names of parameters; points in the order of a tree are points."""
    names = [name for name in inspect.signature(function).parameters if name not in INDEX]
    return tuple("points" if name == "ordered" else name for name in names)


@pytest.mark.parametrize("folder", KERNELS, ids=lambda folder: folder.name)
def test_every_kernel_has_the_same_rooms(folder):
    assert {path.name for path in folder.glob("*.py")} >= {"__init__.py", "reference.py", "cpu.py"}
    reference, cpu = (
        importlib.import_module(f"unrender.kernels.{folder.name}.{room}") for room in ("reference", "cpu")
    )
    assert inspect.getdoc(reference.forward)
    public = importlib.import_module(f"unrender.kernels.{folder.name}")
    documented = [
        inspect.getdoc(member) or "" for _, member in inspect.getmembers(public, inspect.isfunction)
    ]
    assert any("Differentiable in:" in text for text in documented)
    differentiable = not any("Differentiable in: nothing." in text for text in documented)
    fast = [cpu]
    if (folder / "gpu.py").exists() and importlib.util.find_spec("warp") is not None:
        fast.append(importlib.import_module(f"unrender.kernels.{folder.name}.gpu"))
    for function in (
        reference.forward,
        *(module.forward for module in fast),
        *(module.backward for module in fast if differentiable),
    ):
        parameters = inspect.signature(function).parameters.values()
        assert all(parameter.default is parameter.empty for parameter in parameters)
    for name in {"build", "forward", "backward", "compare_all"} & set(dir(cpu)):
        assert len({tuple(inspect.signature(getattr(module, name)).parameters) for module in fast}) == 1, name
    assert len((folder / "reference.py").read_text("utf-8").splitlines()) <= 100
