"""Images and silhouettes of an object from all around, for the programs that fit them."""

import math

import torch
from pytorch3d.io import load_objs_as_meshes
from pytorch3d.renderer import (
    BlendParams,
    FoVPerspectiveCameras,
    HardPhongShader,
    MeshRasterizer,
    MeshRenderer,
    PointLights,
    RasterizationSettings,
    SoftSilhouetteShader,
    TexturesVertex,
    look_at_view_transform,
)
from pytorch3d.structures import Meshes
from pytorch3d.utils import torus


def take(mesh=None, views=40, size=128, distance=2.7):
    meshes = load_objs_as_meshes([mesh]) if mesh else colorful_torus()
    verts = meshes.verts_packed()
    center = verts.mean(0)
    meshes.offset_verts_(-center)
    meshes.scale_verts_(float(1 / (verts - center).abs().max()))
    R, T = look_at_view_transform(dist=distance, elev=0, azim=torch.linspace(-180, 180, views + 1)[:-1])
    cameras = FoVPerspectiveCameras(R=R, T=T)
    lights = PointLights(location=[[0.0, 0.0, -3.0]])
    blend = BlendParams(sigma=1e-4, gamma=1e-4, background_color=(0.0, 0.0, 0.0))
    pictures = MeshRenderer(
        rasterizer=MeshRasterizer(cameras=cameras, raster_settings=RasterizationSettings(image_size=size)),
        shader=HardPhongShader(cameras=cameras, lights=lights, blend_params=blend),
    )
    reach = RasterizationSettings(
        image_size=size, blur_radius=math.log(1 / 1e-4 - 1) * blend.sigma, faces_per_pixel=50
    )
    silhouettes = MeshRenderer(
        rasterizer=MeshRasterizer(cameras=cameras, raster_settings=reach),
        shader=SoftSilhouetteShader(blend_params=blend),
    )
    batch = meshes.extend(views)
    with torch.no_grad():
        images = pictures(batch, cameras=cameras, lights=lights)
        covered = silhouettes(batch, cameras=cameras)
    return cameras, images[..., :3], (covered[..., 3] > 1e-4).float()


def colorful_torus():
    verts, faces = torus(0.4, 1.0, 12, 24).get_mesh_verts_faces(0)
    return Meshes([verts], [faces], TexturesVertex([(verts + 1.5) / 3]))
