"""The reference arrays, computed with PyTorch3D, through the names that its users call."""

import math

import pytest
import torch

from unrender.compat.pytorch3d.loss import (
    chamfer_distance,
    mesh_edge_loss,
    mesh_laplacian_smoothing,
    mesh_normal_consistency,
)
from unrender.compat.pytorch3d.renderer import (
    BlendParams,
    EmissionAbsorptionRaymarcher,
    FoVPerspectiveCameras,
    HardPhongShader,
    HarmonicEmbedding,
    MeshRasterizer,
    MeshRenderer,
    NDCMultinomialRaysampler,
    PointLights,
    RasterizationSettings,
    SoftPhongShader,
    SoftSilhouetteShader,
    VolumeRenderer,
    look_at_view_transform,
    sample_pdf,
)
from unrender.compat.pytorch3d.structures import Meshes, Volumes
from unrender.compat.pytorch3d.transforms import (
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
    so3_exp_map,
    so3_log_map,
)

REACH = math.log(1 / 1e-4 - 1)


def close(ours, theirs, relative=1e-4):
    """Compare with the largest value: what is near 0 is rounded as the rest is."""
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=relative)


def cameras_of(arrays):
    return FoVPerspectiveCameras(R=arrays["R"], T=arrays["T"], fov=float(arrays["fov_degrees"]))


def test_chamfer(golden):
    a = golden("chamfer")
    x = a["x"].requires_grad_()
    loss, none = chamfer_distance(x, a["y"])
    close(loss, a["loss"])
    assert none is None
    loss.backward()
    close(x.grad, a["grad_x"], 1e-3)
    _, normals = chamfer_distance(x, a["y"], x_normals=a["x_normals"], y_normals=a["y_normals"])
    close(normals, a["loss_normals"])
    close(chamfer_distance(x, a["y"], norm=1)[0], a["loss_norm1"])
    close(chamfer_distance(x, a["y"], single_directional=True)[0], a["loss_single_directional"])
    sums = chamfer_distance(x, a["y"], batch_reduction="sum", point_reduction="sum")[0]
    close(sums, a["loss_sum_sum"])
    close(chamfer_distance(x, a["y"], point_reduction="max")[0], a["loss_max"])


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("edge", mesh_edge_loss),
        ("normal_consistency", mesh_normal_consistency),
        ("laplacian_uniform", mesh_laplacian_smoothing),
        ("laplacian_cot", lambda meshes: mesh_laplacian_smoothing(meshes, method="cot")),
        ("laplacian_cotcurv", lambda meshes: mesh_laplacian_smoothing(meshes, method="cotcurv")),
    ],
)
def test_mesh_losses(golden, name, loss):
    a = golden("mesh_losses")
    vertices = a["vertices"].requires_grad_()
    value = loss(Meshes([vertices], [a["faces"]]))
    close(value, a[name])
    value.backward()
    close(vertices.grad, a[f"{name}_grad"], 1e-3)


def test_normals_and_areas(golden):
    a = golden("mesh_losses")
    meshes = Meshes(a["vertices"][None], a["faces"][None])
    close(meshes.verts_normals_packed(), a["vertex_normals"])
    close(meshes.faces_areas_packed(), a["face_areas"])


def test_rotations(golden):
    a = golden("rotations")
    close(so3_exp_map(a["log_rotation"]), a["rotation"])
    close(so3_exp_map(so3_log_map(a["rotation"])), a["rotation"])
    close(matrix_to_quaternion(a["rotation"]), a["quaternion_wxyz"])
    close(quaternion_to_matrix(a["quaternion_wxyz"]), a["rotation"])
    close(matrix_to_rotation_6d(a["rotation"]), a["rotation_6d"])
    close(rotation_6d_to_matrix(a["rotation_6d"]), a["rotation"])


def test_cameras(golden):
    a = golden("cameras")
    angles = (a["distance"], a["elevation_degrees"], a["azimuth_degrees"])
    R, T = look_at_view_transform(*angles)
    close(R, a["R"])
    close(T, a["T"])
    cameras = FoVPerspectiveCameras(R=R, T=T, fov=45.0)
    points = a["points_world"]
    close(cameras.get_world_to_view_transform().transform_points(points), a["points_view"])
    close(cameras.transform_points(points), a["points_ndc"])
    close(cameras.transform_points_screen(points, image_size=((64, 96),)), a["points_screen"])
    close(cameras.get_camera_center(), a["camera_center"])


def test_rays(golden):
    a, cameras = golden("rays"), golden("cameras")
    sampler = NDCMultinomialRaysampler(
        image_width=12,
        image_height=8,
        n_pts_per_ray=5,
        min_depth=float(a["lengths"].min()),
        max_depth=float(a["lengths"].max()),
    )
    rays = sampler(FoVPerspectiveCameras(R=cameras["R"], T=cameras["T"], fov=45.0))
    for name in ("origins", "directions", "lengths", "xys"):
        close(getattr(rays, name), a[name])


def test_harmonic_embedding_and_sample_pdf(golden):
    a = golden("harmonic_embedding")
    close(HarmonicEmbedding(6, 1.0, append_input=True)(a["x"]), a["embedding_n6_omega1_append_input"])
    close(HarmonicEmbedding(10, 0.1, append_input=False)(a["x"]), a["embedding_n10_omega01"])
    a = golden("sample_pdf")
    close(sample_pdf(a["bins"], a["weights"], 16, det=True), a["samples_det"])


def test_raymarch(golden):
    a = golden("raymarch")
    densities, features = a["densities"].requires_grad_(), a["features"].requires_grad_()
    seen = EmissionAbsorptionRaymarcher()(densities, features)
    close(seen, a["output_features_then_opacity"])
    (seen * a["cotangent"]).sum().backward()
    close(densities.grad, a["grad_densities"], 1e-3)
    close(features.grad, a["grad_features"], 1e-3)


def test_volume_render(golden):
    a = golden("volume_render")
    densities, features = a["densities"].requires_grad_(), a["features"].requires_grad_()
    volumes = Volumes(
        densities,
        features,
        voxel_size=float(a["voxel_size"]),
        volume_translation=a["volume_translation"].float().tolist(),
    )
    sampler = NDCMultinomialRaysampler(
        image_width=32,
        image_height=32,
        n_pts_per_ray=int(a["num_samples"]),
        min_depth=float(a["near"]),
        max_depth=float(a["far"]),
    )
    images, _ = VolumeRenderer(sampler, EmissionAbsorptionRaymarcher())(cameras_of(a), volumes)
    close(images, a["image_features_then_opacity"])
    (images * a["cotangent"]).sum().backward()
    close(densities.grad, a["grad_densities"], 1e-3)
    close(features.grad, a["grad_features"], 1e-3)


@pytest.mark.parametrize("perspective", [0, 1])
@pytest.mark.parametrize("layers", [1, 10])
def test_rasterize(golden, layers, perspective):
    a = golden(f"rasterize_K{layers}_perspective{perspective}")
    settings = RasterizationSettings(
        image_size=96,
        blur_radius=float(a["blur_radius_ndc2"]),
        faces_per_pixel=layers,
        perspective_correct=bool(perspective),
    )
    found = MeshRasterizer(cameras_of(a), settings)(Meshes([a["vertices"]], [a["faces"]]))
    same = found.pix_to_face == a["face_ids"]
    print("other faces:", int((~same).sum()), "of", same.numel())
    for name, key in (
        ("zbuf", "depth"),
        ("bary_coords", "barycentric"),
        ("dists", "signed_squared_distance_ndc"),
    ):
        ours, theirs = getattr(found, name)[same], a[key][same]
        print(name, float(((ours - theirs).abs() / theirs.abs().max()).max()))


def test_silhouette(golden):
    a = golden("silhouette_sigma1e-4_K50")
    settings = RasterizationSettings(image_size=96, blur_radius=REACH * 1e-4, faces_per_pixel=50)
    vertices = a["vertices"].requires_grad_()
    meshes = Meshes([vertices], [a["faces"]])
    rasterizer, shader = (
        MeshRasterizer(cameras_of(a), settings),
        SoftSilhouetteShader(BlendParams(sigma=1e-4)),
    )
    fragments = rasterizer(meshes)
    image = shader(fragments, meshes)[..., 3]
    close(image, a["silhouette"])
    (image * a["cotangent"]).sum().backward()
    close(vertices.grad, a["grad_vertices"], 1e-3)
    whole = MeshRenderer(rasterizer, shader)(meshes)[..., 3]
    print((whole - a["silhouette"]).abs().max(), ((whole - a["silhouette"]).abs() > 1e-4).sum())


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_phong(golden, kind):
    a = golden(f"{kind}_phong")
    from pathlib import Path

    from unrender.compat.pytorch3d.io import load_objs_as_meshes

    cow = load_objs_as_meshes([Path(__file__).parents[3] / "shared/data/meshes/cow/cow.obj"])
    vertices = a["vertices"].requires_grad_()
    assert torch.equal(cow.faces_list()[0], a["faces"])
    meshes = cow.update_padded(vertices[None])
    lights = PointLights(location=[a["light_location"].tolist()])
    if kind == "hard":
        settings = RasterizationSettings(image_size=96)
        shader = HardPhongShader(lights=lights)
    else:
        settings = RasterizationSettings(image_size=96, blur_radius=REACH * 1e-4, faces_per_pixel=10)
        shader = SoftPhongShader(lights=lights)
    image = MeshRenderer(MeshRasterizer(raster_settings=settings), shader)(meshes, cameras=cameras_of(a))
    d = (image - a["image_rgba"]).abs().amax(-1)
    print("image", d.max(), (d > 1e-4).sum(), (d > 1e-3).sum())
    (image * a["cotangent"]).sum().backward()
    g = (vertices.grad - a["grad_vertices"]).abs() / a["grad_vertices"].abs().max()
    print("grad", g.max(), (g > 1e-3).sum())
