"""PyTorch3D's names on a GPU: what is asked for there is made there."""

import numpy as np
import pytest
import torch
from pretended_gpu import DEVICE, held, on_gpu, pretended_gpu
from torch import Tensor

from check_kernel import needs_cuda
from unrender.compat.pytorch3d.loss import (
    chamfer_distance,
    mesh_edge_loss,
    mesh_laplacian_smoothing,
    mesh_normal_consistency,
)
from unrender.compat.pytorch3d.ops import knn_points
from unrender.compat.pytorch3d.renderer import (
    BlendParams,
    EmissionAbsorptionRaymarcher,
    FoVPerspectiveCameras,
    HardPhongShader,
    HarmonicEmbedding,
    ImplicitRenderer,
    MeshRasterizer,
    MeshRenderer,
    NDCMultinomialRaysampler,
    PointLights,
    RasterizationSettings,
    RayBundle,
    SoftPhongShader,
    SoftSilhouetteShader,
    TexturesVertex,
    VolumeRenderer,
    look_at_rotation,
    look_at_view_transform,
    ray_bundle_to_ray_points,
)
from unrender.compat.pytorch3d.structures import Meshes, Volumes
from unrender.compat.pytorch3d.utils import ico_sphere


def deform_a_sphere(device: torch.device, target: Tensor) -> tuple[Tensor, ...]:
    source = ico_sphere(1, device)
    offsets = torch.full(source.verts_packed().shape, 0.01, device=device, requires_grad=True)
    mesh = source.offset_verts(offsets)
    loss, _ = chamfer_distance(target, mesh.verts_packed()[None])
    loss = loss + mesh_edge_loss(mesh) + mesh_normal_consistency(mesh)
    loss = loss + mesh_laplacian_smoothing(mesh, method="uniform")
    return loss.detach(), *torch.autograd.grad(loss, offsets)


def find_a_camera(device: torch.device, target: Tensor) -> tuple[Tensor, ...]:
    verts, faces = ico_sphere(1, device).get_mesh_verts_faces(0)
    meshes = Meshes([verts], [faces], TexturesVertex(torch.ones_like(verts)[None])).to(device)
    cameras, blend = FoVPerspectiveCameras(device=device), BlendParams(sigma=1e-4, gamma=1e-4)
    settings = RasterizationSettings(
        image_size=12, blur_radius=float(np.log(1 / 1e-4 - 1)) * blend.sigma, faces_per_pixel=4
    )
    rasterizer = MeshRasterizer(cameras=cameras, raster_settings=settings)
    lights = PointLights(device=device, location=((2.0, 2.0, -2.0),))
    shaders = [
        SoftSilhouetteShader(blend_params=blend),
        SoftPhongShader(cameras=cameras, lights=lights, blend_params=blend, device=device),
        HardPhongShader(cameras=cameras, lights=lights, device=device),
    ]
    eye = torch.tensor([1.0, 2.0, 2.5], device=device, requires_grad=True)
    R = look_at_rotation(eye[None, :], device=device)
    T = -torch.bmm(R.transpose(1, 2), eye[None, :, None])[:, :, 0]
    images = [
        MeshRenderer(rasterizer, shader).to(device)(meshes_world=meshes, R=R, T=T) for shader in shaders
    ]
    (gradient,) = torch.autograd.grad(images[0][..., 3].sum(), eye)
    R, T = look_at_view_transform(2.7, 10, 20, device=device)
    return *(image.detach() for image in images), gradient, R, T


def neighbors(device: torch.device, target: Tensor) -> tuple[Tensor, ...]:
    found = knn_points(target, target + 0.1, K=3)
    return found.dists, found.idx


def fit_a_volume(device: torch.device, target: Tensor) -> tuple[Tensor, ...]:
    """The renderer of the volume tutorial, with gradients."""
    R, T = look_at_view_transform(2.7, 10, torch.tensor([20.0, 40.0]), device=device)
    cameras = FoVPerspectiveCameras(device=device, R=R, T=T)
    rays = NDCMultinomialRaysampler(
        image_width=5, image_height=4, n_pts_per_ray=6, min_depth=0.1, max_depth=4.0
    )
    volume_renderer = VolumeRenderer(raysampler=rays, raymarcher=EmissionAbsorptionRaymarcher()).to(device)
    logits = torch.full((2, 4, 5, 5, 5), 0.1, device=device, requires_grad=True)
    grid = logits.sigmoid()
    volumes = Volumes(densities=grid[:, :1], features=grid[:, 1:], voxel_size=0.5)
    images, _ = volume_renderer(cameras=cameras, volumes=volumes)
    return images.detach(), *torch.autograd.grad(images.square().sum(), logits)


class SmallField(torch.nn.Module):
    """The network of the NeRF tutorial, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = HarmonicEmbedding(3)
        self.layer = torch.nn.Linear(21, 4)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(
                    torch.linspace(-0.3, 0.4, parameter.numel()).view_as(parameter) + 0.1 * number
                )

    def forward(self, ray_bundle: RayBundle, **settings: object) -> tuple[Tensor, Tensor]:
        values = self.layer(self.embedding(ray_bundle_to_ray_points(ray_bundle))).sigmoid()
        return values[..., :1], values[..., 1:]


def fit_a_nerf(device: torch.device, target: Tensor) -> tuple[Tensor, ...]:
    """The renderer of the NeRF tutorial on a grid of rays, with gradients."""
    R, T = look_at_view_transform(2.7, 10, 20, device=device)
    cameras = FoVPerspectiveCameras(device=device, R=R, T=T)
    rays = NDCMultinomialRaysampler(
        image_width=5, image_height=4, n_pts_per_ray=6, min_depth=0.1, max_depth=3.0
    )
    nerf_renderer = ImplicitRenderer(raysampler=rays, raymarcher=EmissionAbsorptionRaymarcher()).to(device)
    field = SmallField().to(device)
    images, bundle = nerf_renderer(cameras=cameras, volumetric_function=field)
    gradients = torch.autograd.grad(images.square().sum(), list(field.parameters()))
    return images.detach(), bundle.directions, *gradients


PROGRAMS = (deform_a_sphere, find_a_camera, neighbors, fit_a_volume, fit_a_nerf)


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_made_on_the_wrong_device(program, monkeypatch):
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    target = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0))
    expected = program(torch.device("cpu"), target)
    with pretended_gpu():
        found = [held(value) for value in program(DEVICE, on_gpu(target))]
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-3)


@needs_cuda
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_gpu_gives_what_the_cpu_gives(program):
    target = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0))
    expected = program(torch.device("cpu"), target)
    for value, wanted in zip(program(torch.device("cuda"), target.cuda()), expected, strict=True):
        torch.testing.assert_close(value.cpu(), wanted, rtol=1e-3, atol=1e-3)
