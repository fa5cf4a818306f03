import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unrender
from unrender.geometry.simplify import cluster_vertices

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "```python\n" in page.read_text("utf-8")
]


@pytest.fixture
def folder_with_input(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    ball = unrender.ico_sphere(3)  # made a rod, which is fitted with 10,430 faces; a torus with 27,074
    rod = ball.replace(vertices=ball.vertices * torch.tensor([1.0, 0.15, 0.15]))
    samples = unrender.sample_points_from_mesh(rod, 600, generator=torch.Generator().manual_seed(0))
    unrender.save_cloud(unrender.PointCloud(samples.points), tmp_path / "scan.ply")
    mesh = cluster_vertices(unrender.demo_object(), 20).to(torch.float32)
    unrender.save_mesh(mesh, tmp_path / "object.ply")
    camera = unrender.Camera.look_at([2.0, 1.2, 3.0], fov_degrees=40.0, height=120, width=120)
    photo = unrender.render_mesh(mesh, camera, background=None, supersampling=2)
    unrender.save_image(photo.clamp(0, 1), tmp_path / "photo.png")
    across, down = np.meshgrid(np.arange(160) - 80, np.arange(120) - 60)
    Image.fromarray((1000 + across + down // 2).astype(np.uint16)).save(tmp_path / "depth.png")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page, folder_with_input):
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(page), "exec"), names)


def test_every_kernel_has_a_page():
    kernels = {path.parent.name for path in (ROOT / "src/unrender/kernels").glob("*/reference.py")}
    assert {page.stem for page in (ROOT / "docs/kernels").glob("*.md")} == kernels | {"index"}
