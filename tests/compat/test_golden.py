"""The reference arrays, computed with PyTorch3D, through the names that its users call."""

import math
from pathlib import Path

import pytest
import torch

from unrender.compat.pytorch3d.io import load_objs_as_meshes
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
COW = Path(__file__).parents[3] / "shared/data/meshes/cow/cow.obj"


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
    assert (~same).sum() <= 17  # of 92,160: of two faces at one depth, to 2.4e-7, either comes first
    torch.testing.assert_close(found.zbuf[~same], a["depth"][~same], rtol=1e-6, atol=0)
    # without correction and clipping, theirs sum to area / (area + 1e-8 NDC²); ours to 1
    sums = torch.where(a["face_ids"] >= 0, a["barycentric"].sum(-1), 1)
    close(found.zbuf[same], (a["depth"] / sums)[same])
    close(found.dists[same], a["signed_squared_distance_ndc"][same])
    # in single precision barycentrics of faces seen edge on are known to 3e-4, by either
    close(found.bary_coords[same], (a["barycentric"] / sums[..., None])[same], 3e-4)
    off = (found.bary_coords - a["barycentric"] / sums[..., None]).abs().amax(-1)[same] > 1e-4
    assert off.double().mean() < 1e-3


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
    all_found = fragments.pix_to_face[..., -1] < 0
    close(whole[all_found], a["silhouette"][all_found])
    assert (whole >= a["silhouette"] - 1e-4).all()  # elsewhere they miss the faces after the fiftieth
    assert ((whole - a["silhouette"]).abs() > 1e-4).sum() == 188


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_phong(golden, kind):
    a = golden(f"{kind}_phong")
    if not COW.exists():
        pytest.skip("no cow")
    vertices = a["vertices"].requires_grad_()
    cow = load_objs_as_meshes([COW])
    assert torch.equal(cow.faces_packed(), a["faces"])
    lights = PointLights(location=[a["light_location"].tolist()])
    settings, shader = RasterizationSettings(image_size=96), HardPhongShader(lights=lights)
    if kind == "soft":
        settings = RasterizationSettings(image_size=96, blur_radius=REACH * 1e-4, faces_per_pixel=10)
        shader = SoftPhongShader(lights=lights)
    draw = MeshRenderer(MeshRasterizer(raster_settings=settings), shader)
    cameras = cameras_of(a)
    image = draw(cow.update_padded(vertices[None]), cameras=cameras)
    close(image, a["image_rgba"])
    (image * a["cotangent"]).sum().backward()
    compared = torch.ones(len(vertices), dtype=torch.bool)
    if kind == "soft":  # of faces seen edge on theirs gives slopes of 1e7, in single precision
        corners = 48 * cameras.transform_points_ndc(vertices.detach())[:, :2][a["faces"]]
        (ax, ay), (bx, by) = ((corners[:, k] - corners[:, 0]).unbind(1) for k in (1, 2))
        compared[a["faces"][(ax * by - bx * ay).abs() < 0.06].unique()] = False
    theirs = a["grad_vertices"][compared]
    error = (vertices.grad[compared] - theirs).abs() / theirs.abs().max()
    # in single precision ours is off at up to three vertices; in double, in tests/render/test_mesh.py, at none
    assert (error > 1e-3).sum() <= (6 if kind == "soft" else 0)
    assert error.max() < 5e-3
