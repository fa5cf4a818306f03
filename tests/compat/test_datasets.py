import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from unrender.compat.pytorch3d.datasets import (
    R2N2,
    ShapeNetCore,
    collate_batched_meshes,
    collate_batched_R2N2,
)
from unrender.compat.pytorch3d.datasets.r2n2.utils import (
    align_bbox,
    compute_extrinsic_matrix,
    read_binvox_coords,
)
from unrender.compat.pytorch3d.io import save_obj
from unrender.compat.pytorch3d.renderer import RasterizationSettings
from unrender.compat.pytorch3d.utils import ico_sphere

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def shapenet(tmp_path):
    verts, faces = ico_sphere(1).get_mesh_verts_faces(0)
    for model in ("a", "b"):
        (tmp_path / "core/03001627" / model).mkdir(parents=True)
        save_obj(tmp_path / "core/03001627" / model / "model.obj", 0.3 * verts, faces)
    return tmp_path / "core"


def test_shapenet(shapenet):
    (shapenet / "03001627/c").mkdir()
    with pytest.warns(UserWarning, match="Object file not found in the model directory c"):
        models = ShapeNetCore(shapenet, ["chair"])
    assert len(models) == 2
    assert models[1]["label"] == "chair"
    assert models[1]["model_id"] == "b"
    assert models[0]["textures"].shape == (80, 4, 4, 3)
    assert len(collate_batched_meshes([models[0], models[1]])["mesh"]) == 2
    images = models.render(categories=["chair"], sample_nums=[2], raster_settings=RasterizationSettings(8))
    assert images.shape == (2, 8, 8, 4)
    with pytest.raises(ValueError, match="Category table is not in the loaded dataset"):
        models.render(categories=["table"])


def test_r2n2(shapenet, tmp_path):
    views = tmp_path / "r2n2/ShapeNetRendering/03001627/a/rendering"
    views.mkdir(parents=True)
    (views / "rendering_metadata.txt").write_text("30 20 0 0.8 25\n90 25 0 0.7 25\n")
    for view in range(2):
        Image.fromarray(np.full((8, 8, 4), 255, np.uint8)).save(views / f"{view:02d}.png")
    (tmp_path / "split.json").write_text(json.dumps({"train": {"03001627": {"a": [0, 1]}}}))
    models = R2N2("train", shapenet, tmp_path / "r2n2", tmp_path / "split.json")
    item = models[0]
    assert item["images"].shape == (2, 8, 8, 3)
    centers = -(item["T"][:, None] @ item["R"].mT)[:, 0]
    torch.testing.assert_close(centers.norm(dim=1), torch.tensor([0.8, 0.7]) * 1.75)
    assert models[0, [1]]["K"].shape == (1, 4, 4)
    assert collate_batched_R2N2([item, item])["R"].shape == (2, 2, 3, 3)
    images = models.render(idxs=[0], raster_settings=RasterizationSettings(16))
    assert images.shape == (2, 16, 16, 4)
    assert images[..., 3].any()


def test_voxels_of_binvox():
    data = b"#binvox 1\ndim 2 2 2\ntranslate 0 0 0\nscale 1\ndata\n" + bytes([0, 2, 1, 3, 0, 3])
    assert read_binvox_coords(io.BytesIO(data)).tolist() == [[0, 0, 1], [0, 1, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match=r"Invalid header \(line 2\)"):
        read_binvox_coords(io.BytesIO(b"#binvox 1\nsize\n"))
    moved = align_bbox(torch.tensor([[0.0, 0, 0], [2, 4, 8]]), torch.tensor([[1.0, 1, 1], [2, 2, 2]]))
    assert moved.tolist() == [[1, 1, 1], [2, 2, 2]]
    matrix = compute_extrinsic_matrix(0, 0, 2.0)
    torch.testing.assert_close(matrix[:3, :3] @ matrix[:3, :3].T, torch.eye(3))
    assert matrix[:3, 3].tolist() == [0, 0, -2]
