"""Real files, where they are present."""

from pathlib import Path

import pytest
import torch

from unrender.io import load_cloud, load_mesh

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")

MESHES = {
    "meshes/cow/cow.obj": (2_930, 5_856),
    "meshes/teapot.obj": (1_292, 2_464),
    "meshes/armadillo.obj": (49_990, 99_976),
    "meshes/spot_bob/spot/spot.obj": (2_930, 5_856),
    "meshes/spot_bob/bob/bob_tri.obj": (5_344, 10_688),
    "pose/lmo/models/obj_000001.ply": (5_841, 11_678),
    "clouds/with_truth/spot_truth.ply": (2_930, 5_856),
}
CLOUDS = {
    "pedestrian.ply": (239, torch.float32, False, False),
    "oni.ply": (1_435, torch.float64, True, False),
    "kitten.xyz": (5_210, torch.float32, True, False),
    "with_truth/spot_clean.xyz": (20_000, torch.float32, True, False),
    "with_truth/eight_noise.xyz": (10_000, torch.float32, False, False),
    "table_scene_mug_stereo_textured.pcd": (209_280, torch.float32, False, True),
}


@pytest.mark.parametrize("name", MESHES)
def test_mesh(name):
    mesh = load_mesh(DATA / name)
    assert (len(mesh.vertices), len(mesh.faces)) == MESHES[name]
    assert (mesh.vertex_colors is not None) == ("lmo" in name)


@pytest.mark.parametrize("name", CLOUDS)
def test_cloud(name):
    cloud = load_cloud(DATA / "clouds" / name)
    num_points, dtype, has_normals, has_colors = CLOUDS[name]
    assert cloud.points.shape == (num_points, 3)
    assert cloud.points.dtype == dtype
    assert (cloud.normals is not None, cloud.colors is not None) == (has_normals, has_colors)
