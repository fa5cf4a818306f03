"""Find where a camera stood from the silhouette that it saw."""

import argparse

import numpy as np
import torch
from pytorch3d.io import load_obj
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
    look_at_rotation,
    look_at_view_transform,
)
from pytorch3d.structures import Meshes
from pytorch3d.utils import torus


class Model(torch.nn.Module):
    def __init__(self, meshes, renderer, seen, start):
        super().__init__()
        self.meshes, self.renderer = meshes, renderer
        self.register_buffer("seen", seen)
        self.camera_position = torch.nn.Parameter(torch.tensor(start))

    def forward(self):
        R = look_at_rotation(self.camera_position[None, :])
        T = -torch.bmm(R.transpose(1, 2), self.camera_position[None, :, None])[:, :, 0]
        image = self.renderer(meshes_world=self.meshes.clone(), R=R, T=T)
        return torch.sum((image[..., 3] - self.seen) ** 2)


def prepare(mesh=None, size=256, layers=100):
    if mesh:
        verts, faces, _ = load_obj(mesh)
        faces = faces.verts_idx
    else:
        verts, faces = torus(0.3, 0.8, 12, 24).get_mesh_verts_faces(0)
    textures = TexturesVertex(verts_features=torch.ones_like(verts)[None])
    meshes = Meshes(verts=[verts], faces=[faces], textures=textures)
    cameras = FoVPerspectiveCameras()
    blend = BlendParams(sigma=1e-4, gamma=1e-4)
    soft = RasterizationSettings(
        image_size=size, blur_radius=np.log(1.0 / 1e-4 - 1.0) * blend.sigma, faces_per_pixel=layers
    )
    silhouettes = MeshRenderer(
        rasterizer=MeshRasterizer(cameras=cameras, raster_settings=soft),
        shader=SoftSilhouetteShader(blend_params=blend),
    )
    hard = RasterizationSettings(image_size=size, blur_radius=0.0, faces_per_pixel=1)
    photos = MeshRenderer(
        rasterizer=MeshRasterizer(cameras=cameras, raster_settings=hard),
        shader=HardPhongShader(cameras=cameras, lights=PointLights(location=((2.0, 2.0, -2.0),))),
    )
    R, T = look_at_view_transform(3, 50.0, 0.0)
    photo = photos(meshes_world=meshes, R=R, T=T)
    model = Model(meshes, silhouettes, (photo[..., :3] != 1).any(-1).float(), [3.0, 6.9, 2.5])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    def step():
        optimizer.zero_grad()
        loss = model()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mesh")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    step, model = prepare(options.mesh, options.size, options.layers)
    losses = [step() for _ in range(options.steps)]
    few = max(1, len(losses) // 5)
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    place = ", ".join(f"{x:.2f}" for x in model.camera_position.tolist())
    print(f"from {first:.5f} to {last:.5f}, at {place}")


if __name__ == "__main__":
    main()
