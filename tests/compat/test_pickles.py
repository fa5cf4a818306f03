"""Objects saved by `torch.save`, loaded as torch does by default: with `weights_only`."""

import pickle
import subprocess
import sys

import pytest
import torch

from unrender.compat.pytorch3d import renderer as r
from unrender.compat.pytorch3d.structures import Meshes, Pointclouds, Volumes
from unrender.compat.pytorch3d.transforms import Transform3d
from unrender.compat.pytorch3d.utils import ico_sphere

BALL = ico_sphere(0).get_mesh_verts_faces(0)
VALUES = {
    "rays": r.RayBundle(*torch.rand(3, 2, 3), torch.rand(2, 2)),
    "cameras": r.FoVPerspectiveCameras(R=torch.eye(3)[None], T=torch.rand(1, 3)),
    "calibrated": r.PerspectiveCameras(image_size=((3, 4),), in_ndc=False),
    "mesh": Meshes([BALL[0]], [BALL[1]], r.TexturesVertex([torch.rand(12, 3)])),
    "cloud": Pointclouds([torch.rand(4, 3), torch.rand(2, 3)], features=[torch.rand(4, 1), torch.rand(2, 1)]),
    "volume": Volumes(torch.rand(1, 1, 2, 3, 4)),
    "lights": r.PointLights(location=torch.rand(2, 3)),
    "materials": r.Materials(),
    "transform": Transform3d().translate(1, 2, 3),
}


@pytest.mark.parametrize("name", VALUES)
def test_saved_values_load(name, tmp_path):
    value = VALUES[name]
    torch.save(value, tmp_path / "value.pt")
    for again in (torch.load(tmp_path / "value.pt"), pickle.loads(pickle.dumps(value))):
        assert type(again) is type(value)
    if name == "mesh":
        assert torch.equal(again.verts_packed(), value.verts_packed())
        assert torch.equal(again.textures.verts_features_packed(), value.textures.verts_features_packed())
    if name == "cloud":
        assert torch.equal(again.features_padded(), value.features_padded())
    if name == "transform":
        assert torch.equal(again.get_matrix(), value.get_matrix())
    if name == "cameras":
        assert torch.equal(again[0].T, value.T)


THEIRS = """
import sys, types, torch
from collections import OrderedDict
package = "pytorch3d.structures.meshes"
for i in range(1, 4):
    name = ".".join(package.split(".")[:i])
    sys.modules[name] = types.ModuleType(name)
class Meshes:
    pass
Meshes.__module__ = package
sys.modules[package].Meshes = Meshes
mesh = Meshes()
mesh.__dict__.update(
    device=torch.device("cpu"), _N=2, equisized=False, textures=None, _faces_list=[torch.tensor([[0, 1, 2]])] * 2,
    _verts_list=None, _verts_padded=torch.arange(24.0).view(2, 4, 3), _num_verts_per_mesh=torch.tensor([3, 4]),
)
torch.save(mesh, sys.argv[1])
"""


def test_meshes_that_pytorch3d_saved_load(tmp_path):
    subprocess.run([sys.executable, "-c", THEIRS, str(tmp_path / "mesh.pt")], check=True)
    mesh = torch.load(tmp_path / "mesh.pt")
    assert type(mesh) is Meshes
    assert [len(v) for v in mesh.verts_list()] == [3, 4]
    assert mesh.faces_packed().tolist() == [[0, 1, 2], [3, 4, 5]]
