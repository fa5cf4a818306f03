"""Rows of bench_gpu.py for points and meshes. Reaches and PyTorch3D's figures are of one H200, in ms."""

import math
import time
from collections.abc import Callable

import torch
from gpu_rows import Bench, Result, check, measurement, timing
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import ico_sphere
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.kernels.nearest import index_points, nearest
from unrender.kernels.potential import potential
from unrender.kernels.rasterize import rasterize_faces
from unrender.kernels.silhouette import soft_silhouette
from unrender.losses.chamfer import chamfer_distance
from unrender.losses.regularize import (
    mesh_edge_loss,
    mesh_laplacian_smoothing,
    mesh_normal_consistency,
)
from unrender.render.blend import blend_softmax
from unrender.render.fragments import rasterize
from unrender.render.lights import AmbientLight, Light, Material, PointLight
from unrender.render.mesh import render_silhouette
from unrender.render.shade import phong

BLUR = 3.88
"""Pixels: PyTorch3D's 9.2e-4 NDC² at 256²."""


def cow(bench: Bench) -> Mesh:
    return _mesh(bench, "meshes/cow/cow.obj", bench.size(4, 2))


def armadillo(bench: Bench) -> Mesh:
    return _mesh(bench, "meshes/armadillo.obj", bench.size(6, 2))


def _mesh(bench: Bench, name: str, level: int) -> Mesh:
    """Load a mesh, or make a sphere with about as many faces."""
    if name not in bench.kept:
        path = None if bench.tiny else bench.file(name)
        if path is None:
            mesh = ico_sphere(level)
        else:
            from unrender.io import load_mesh

            mesh = load_mesh(path)
        bench.kept[name] = Mesh(mesh.vertices, mesh.faces).to(bench.device)
    return bench.kept[name]


def view(mesh: Mesh, size: int) -> Camera:
    low, high = mesh.vertices.detach().amin(0), mesh.vertices.detach().amax(0)
    middle, diagonal = (low + high) / 2, (high - low).norm()
    eye = middle + diagonal * torch.tensor([0.5, 0.5, -1.0], device=low.device)
    return Camera.look_at(eye, middle, fov_degrees=60, height=size, width=size)


def leaf(mesh: Mesh) -> Mesh:
    return mesh.replace(vertices=mesh.vertices.detach().clone().requires_grad_())


# Kernels against their references


@check("nearest, all compared")
def check_compare(bench: Bench) -> Result:
    a, b = bench.randn(bench.size(2000, 50), 3), bench.randn(bench.size(3000, 60), 3)
    return bench.agree(lambda q, p: nearest(q, p).distances, [a, b])


@check("nearest, tree, k = 4")
def check_tree(bench: Bench) -> Result:
    a, b = bench.randn(2, bench.size(2000, 50), 3), bench.randn(2, bench.size(3000, 60), 3)
    return bench.agree(lambda q, p: tuple(nearest(index_points(q), index_points(p), 4)), [a, b])


@check("closest on mesh")
def check_closest(bench: Bench) -> Result:
    sphere = ico_sphere(bench.size(3, 1)).to(bench.device)
    queries = bench.randn(bench.size(2000, 20), 3)
    return bench.agree(
        lambda q, v: closest_on_mesh(q, v, sphere.faces).squared_distances, [queries, sphere.vertices]
    )


def _faces_on_screen(bench: Bench) -> tuple[Tensor, Tensor, int]:
    """Return triangles at random: large and small, in front of the camera, behind it, and on both sides of it."""
    size = bench.size(48, 12)
    faces = torch.randint(60, (bench.size(150, 20), 3), generator=bench.generator).to(bench.device)
    eye = torch.tensor([0.3, 0.2, -1.0], device=bench.device)
    camera = Camera.look_at(eye, fov_degrees=80, height=size, width=size)
    return camera.project_homogeneous(0.6 * bench.randn(2, 60, 3)), faces, size


@check("rasterize, 1 layer")
def check_rasterize(bench: Bench) -> Result:
    points, faces, size = _faces_on_screen(bench)

    def fragments(p: Tensor) -> tuple[Tensor, ...]:
        found = rasterize_faces(p, faces, height=size, width=size, near=0.05)
        return found.face_ids, found.barycentric, found.depth

    return bench.agree(fragments, [points], tolerance=1e-3)


@check("rasterize, 6 layers, blurred")
def check_layers(bench: Bench) -> Result:
    points, faces, size = _faces_on_screen(bench)

    def depths(p: Tensor) -> Tensor:
        return rasterize_faces(p, faces, height=size, width=size, near=0.05, layers=6, blur=2.0).depth

    return bench.agree(depths, [points], tolerance=1e-2)  # at one depth, faces change places


@check("silhouette")
def check_silhouette(bench: Bench) -> Result:
    points, faces, size = _faces_on_screen(bench)
    few = faces[:: bench.size(10, 4)].contiguous()

    def image(p: Tensor) -> Tensor:
        return soft_silhouette(p, few, height=size, width=size, near=0.05, blur=2.0)

    return bench.agree(image, [points], tolerance=1e-3)


@check("soft Phong")
def check_phong(bench: Bench) -> Result:
    # Room for all faces, at most 84 at a pixel: of two at one depth, the last bit would choose which is left out. The
    # reference's own gradient changes by 1.3e-4 where vertices move by 6e-8.
    mesh, size = ico_sphere(2).to(bench.device), bench.size(40, 12)
    camera, lights = view(mesh, size), two_lights(bench)
    return bench.agree(
        lambda v: soft_phong(mesh.replace(vertices=v), camera, lights, 96), [mesh.vertices], tolerance=1e-3
    )


@check("mesh losses")
def check_losses(bench: Bench) -> Result:
    mesh = ico_sphere(bench.size(3, 1)).to(bench.device)
    return bench.agree(lambda v: regularizers(mesh.replace(vertices=v)), [mesh.vertices])


def sources(bench: Bench, count: int) -> dict[str, Tensor]:
    """Return points on the unit sphere with their area vectors, as sources of winding numbers."""
    points = torch.nn.functional.normalize(bench.randn(count, 3), dim=-1)
    vectors = points * (4 * math.pi / count)
    return {"points": points, "dipoles": vectors, "softening": torch.full_like(points[:, 0], 0.01)}


@check("potential")
def check_potential(bench: Bench) -> Result:
    given, queries = sources(bench, bench.size(3000, 60)), bench.randn(bench.size(2000, 50), 3)
    return bench.agree(
        lambda q: tuple(potential(q, **given, opening=0.0)), [queries], tolerance=1e-3, outputs_only=True
    )


# Timings


def _chamfer(count: int, reach: float, pytorch3d: float | None) -> None:
    @timing(f"chamfer {count:,}, forward + backward", reach=reach, pytorch3d=pytorch3d, order=100)
    def row(bench: Bench) -> Callable[[], object]:
        n = bench.size(count, 64)
        x, y = bench.rand(n, 3).requires_grad_(), bench.rand(n, 3).requires_grad_()
        return lambda: torch.autograd.grad(chamfer_distance(x, y).distance, (x, y))


for _count, _reach, _theirs in (
    (1_000, 0.5, 1.43),
    (5_000, 0.6, 2.63),
    (20_000, 1.0, 6.05),
    (100_000, 3.0, 49.6),
    (1_000_000, 40.0, None),
):
    _chamfer(_count, _reach, _theirs)


@timing("nearest, tree built, 100,000", order=105)
def tree_built(bench: Bench) -> Callable[[], object]:
    x, y = (index_points(bench.rand(bench.size(100_000, 64), 3)) for _ in range(2))
    return lambda: nearest(x, y)


@timing("index points, 100,000", order=105)
def build_tree(bench: Bench) -> Callable[[], object]:
    x = bench.rand(bench.size(100_000, 64), 3)
    return lambda: index_points(x)


@timing("winding numbers of 50,000 points at 50,000", order=130)
def winding_numbers(bench: Bench) -> Callable[[], object]:
    given = sources(bench, bench.size(50_000, 60))
    index = index_points(given.pop("points"))
    return lambda: potential(index, index, **given)


@timing("closest on armadillo, 100,000 points", order=130)
def closest(bench: Bench) -> Callable[[], object]:
    mesh = armadillo(bench)
    points = index_points(sample_points_from_mesh(mesh, bench.size(100_000, 50)).points)
    return lambda: closest_on_mesh(points, mesh.vertices, mesh.faces)


def _raster(
    which: Callable[[Bench], Mesh], size: int, layers: int, reach: float | None, theirs: float | None
) -> None:
    blurred = "" if layers == 1 else ", blurred"

    @timing(
        f"rasterize {which.__name__} {size}², {layers} layers{blurred}",
        reach=reach,
        pytorch3d=theirs,
        order=101,
    )
    def row(bench: Bench) -> Callable[[], object]:
        mesh = which(bench)
        camera = view(mesh, bench.size(size, 16))
        points, pixels = camera.project_homogeneous(mesh.vertices), bench.size(size, 16)
        near, blur = 1e-4 * float(points[:, 3].max()), 0.0 if layers == 1 else BLUR
        return lambda: rasterize_faces(
            points, mesh.faces, height=pixels, width=pixels, near=near, layers=layers, blur=blur
        )


for _which, _size, _layers, _reach, _theirs in (
    (cow, 256, 1, 0.15, 3.31),
    (cow, 512, 1, None, 5.86),
    (cow, 1024, 1, 0.25, 15.9),
    (armadillo, 256, 1, 0.15, 5.78),
    (armadillo, 1024, 1, 0.2, 38.9),
    (cow, 256, 8, None, 3.64),
    (cow, 256, 50, 0.8, 3.96),
    (cow, 256, 100, None, 4.82),
):
    _raster(_which, _size, _layers, _reach, _theirs)


@timing("rasterize one face that fills 1024²", order=131)
def large_face(bench: Bench) -> Callable[[], object]:
    size = bench.size(1024, 16)
    corners = torch.tensor([[-size, -size, 1, 1], [3 * size, -size, 1, 1], [-size, 3 * size, 1, 1.0]])
    points, faces = corners.to(bench.device), torch.tensor([[0, 1, 2]], device=bench.device)
    return lambda: rasterize_faces(points, faces, height=size, width=size, near=0.1)


def _silhouette(
    which: Callable[[Bench], Mesh], size: int, backward: bool, reach: float | None, theirs: float | None
) -> None:
    what = "forward + backward" if backward else "forward"

    @timing(f"silhouette {which.__name__} {size}², {what}", reach=reach, pytorch3d=theirs, order=102)
    def row(bench: Bench) -> Callable[[], object]:
        return silhouette_step(which(bench), bench.size(size, 16), backward)


def silhouette_step(mesh: Mesh, size: int, backward: bool = True) -> Callable[[], object]:
    camera = view(mesh, size)
    if not backward:
        return lambda: render_silhouette(mesh, camera, blur=BLUR)
    return lambda: render_silhouette(leaf(mesh), camera, blur=BLUR).sum().backward()


for _which, _size, _backward, _reach, _theirs in (
    (cow, 256, False, 0.2, 3.44),
    (cow, 256, True, 0.5, 5.76),
    (cow, 512, True, None, 9.29),
    (armadillo, 256, True, None, 12.5),
    (armadillo, 1024, False, None, 59.8),
    (armadillo, 1024, True, 3.0, 63.8),
):
    _silhouette(_which, _size, _backward, _reach, _theirs)


def two_lights(bench: Bench) -> list[Light]:
    return [AmbientLight(0.5), PointLight(torch.tensor([2.0, 2.0, -2.0], device=bench.device))]


def soft_phong(mesh: Mesh, camera: Camera, lights: list[Light], layers: int) -> Tensor:
    fragments = rasterize(mesh, camera, layers=layers, blur=BLUR)
    colors = phong(mesh, fragments, camera, lights, Material(diffuse=0.3, specular=0.2))
    return blend_softmax(colors, fragments, blur=BLUR)


def _phong(layers: int, backward: bool, reach: float | None, theirs: float | None) -> None:
    what = "forward + backward" if backward else "forward"

    @timing(f"soft Phong cow 256², {layers} layers, {what}", reach=reach, pytorch3d=theirs, order=103)
    def row(bench: Bench) -> Callable[[], object]:
        return phong_step(bench, layers, backward)


def phong_step(bench: Bench, layers: int, backward: bool = True) -> Callable[[], object]:
    mesh, lights = cow(bench), two_lights(bench)
    camera = view(mesh, bench.size(256, 16))
    if not backward:
        return lambda: soft_phong(mesh, camera, lights, layers)
    return lambda: soft_phong(leaf(mesh), camera, lights, layers).sum().backward()


for _layers, _backward, _reach, _theirs in (
    (8, False, None, 6.7),
    (8, True, 1.5, 12.2),
    (50, True, None, 16.3),
):
    _phong(_layers, _backward, _reach, _theirs)


def regularizers(mesh: Mesh) -> Tensor:
    return (
        mesh_edge_loss(mesh)
        + 0.01 * mesh_normal_consistency(mesh)
        + 0.1 * mesh_laplacian_smoothing(mesh, "uniform")
    )


@timing("tutorial step: mesh (5,000 / 5,000 / 2,562)", reach=2.0, pytorch3d=11.3, order=104)
def mesh_step(bench: Bench) -> Callable[[], object]:
    source = ico_sphere(bench.size(4, 1)).to(bench.device)
    target = bench.rand(bench.size(5000, 60), 3)
    offsets = torch.zeros_like(source.vertices, requires_grad=True)
    optimizer = torch.optim.SGD([offsets], lr=1.0, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        mesh = source.replace(vertices=source.vertices + offsets)
        drawn = sample_points_from_mesh(mesh, len(target)).points
        loss = chamfer_distance(target, drawn).distance + regularizers(mesh)
        loss.backward()
        optimizer.step()

    return step


@timing("tutorial step: pose (silhouette, 256²)", reach=0.8, pytorch3d=5.5, order=104)
def pose_step(bench: Bench) -> Callable[[], object]:
    mesh = _mesh(bench, "meshes/teapot.obj", bench.size(3, 1))
    size = bench.size(256, 16)
    middle = mesh.vertices.mean(0)
    extent = (mesh.vertices - middle).norm(dim=1).amax()
    mesh = mesh.replace(vertices=(mesh.vertices - middle) / extent)
    target = torch.zeros(3, device=bench.device)
    seen = render_silhouette(mesh, view(mesh, size), blur=BLUR).detach()
    eye = torch.tensor([1.0, 2.0, -2.0], device=bench.device, requires_grad=True)
    optimizer = torch.optim.Adam([eye], lr=0.05)

    def step() -> None:
        optimizer.zero_grad()
        camera = Camera.look_at(eye, target, height=size, width=size)
        (render_silhouette(mesh, camera, blur=BLUR) - seen).square().sum().backward()
        optimizer.step()

    return step


@measurement("handing over to autograd", order=105)
def hand_over(bench: Bench) -> Result:
    """Time steps with the backward pass in autograd's own thread, as usual, and in the calling one."""
    steps = {
        "sum of ten numbers": small_step(bench),
        "silhouette, cow 256²": silhouette_step(cow(bench), bench.size(256, 16)),
        "soft Phong, cow 256², 8 layers": phong_step(bench, layers=8),
        "mesh tutorial": mesh_step(bench),
        "pose tutorial": pose_step(bench),
    }
    result: Result = {}
    for name, step in steps.items():
        for where, own_thread in (("own thread", True), ("calling thread", False)):
            with torch.autograd.set_multithreading_enabled(own_thread):
                result[f"{name}, {where}, ms"] = bench.time(step, 0.2)["ms"]
    return result


def small_step(bench: Bench) -> Callable[[], object]:
    numbers = bench.rand(10).requires_grad_()
    return lambda: (2 * numbers).sum().backward()


@measurement("find-pose, photo, no guess", order=106)
def pose_of_a_photo(bench: Bench) -> Result:
    """Time all of it, the second time: the first compiles."""
    from unrender.data.photos import Photo
    from unrender.render.mesh import render_mesh
    from unrender.tasks.pose.find_pose import FindPose, find_pose

    mesh, size = cow(bench), bench.size(256, 40)
    camera = view(mesh, size)
    image = render_mesh(mesh, camera, background=None)
    at_origin = camera.replace(camera_from_world=torch.eye(4, device=bench.device))
    photo = Photo(image[..., :3].clamp(0, 1), image[..., 3], at_origin)
    config = FindPose(num_views=20, num_starts=4, resolution=64) if bench.tiny else FindPose()
    seconds, agreements = [], []
    for _ in range(2):
        bench.synchronize()
        start = time.perf_counter()
        *_, last = find_pose(mesh, photo, config)
        estimate = last.result
        agreements.append(estimate.agreement)
        seconds.append(time.perf_counter() - start)
    return {
        "first_s": seconds[0],
        "s": seconds[1],
        "reach_s": 0.5,
        "agreement": agreements[1],
        "same": agreements[0] == agreements[1],
        "verdict": estimate.status,
    }


@timing("tutorial step through PyTorch3D's names: mesh", pytorch3d=11.3, order=140)
def compat_mesh_step(bench: Bench) -> Callable[[], object]:
    from unrender.compat.pytorch3d import loss, ops
    from unrender.compat.pytorch3d.utils import ico_sphere as sphere

    target, source = bench.rand(1, bench.size(5000, 60), 3), sphere(bench.size(4, 1), bench.device)
    offsets = torch.zeros_like(source.verts_packed(), requires_grad=True)
    optimizer = torch.optim.SGD([offsets], lr=1.0, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        mesh = source.offset_verts(offsets)
        distance, _ = loss.chamfer_distance(target, ops.sample_points_from_meshes(mesh, target.shape[1]))
        total = distance + loss.mesh_edge_loss(mesh) + 0.01 * loss.mesh_normal_consistency(mesh)
        (total + 0.1 * loss.mesh_laplacian_smoothing(mesh, method="uniform")).backward()
        optimizer.step()

    return step


@timing("tutorial step through PyTorch3D's names: pose, 100 layers", pytorch3d=5.5, order=140)
def compat_pose_step(bench: Bench) -> Callable[[], object]:
    from unrender.compat.pytorch3d import renderer as r
    from unrender.compat.pytorch3d.structures import Meshes

    mesh = _mesh(bench, "meshes/teapot.obj", bench.size(3, 1))
    meshes = Meshes([mesh.vertices], [mesh.faces], r.TexturesVertex(torch.ones_like(mesh.vertices)[None]))
    settings = r.RasterizationSettings(
        image_size=bench.size(256, 12),
        blur_radius=math.log(1 / 1e-4 - 1) * 1e-4,
        faces_per_pixel=bench.size(100, 4),
    )
    cameras = r.FoVPerspectiveCameras(device=bench.device)
    rasterizer = r.MeshRasterizer(cameras=cameras, raster_settings=settings)
    shader = r.SoftSilhouetteShader(blend_params=r.BlendParams(sigma=1e-4, gamma=1e-4))
    images = r.MeshRenderer(rasterizer, shader)
    eye = torch.tensor([3.0, 6.9, 2.5], device=bench.device, requires_grad=True)
    optimizer = torch.optim.Adam([eye], lr=0.05)

    def step() -> None:
        optimizer.zero_grad()
        R = r.look_at_rotation(eye[None, :], device=bench.device)
        T = -torch.bmm(R.transpose(1, 2), eye[None, :, None])[:, :, 0]
        images(meshes_world=meshes.clone(), R=R, T=T)[..., 3].square().sum().backward()
        optimizer.step()

    return step
