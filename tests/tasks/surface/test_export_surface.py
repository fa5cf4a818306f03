"""Levels of detail, collision meshes and turntables."""

import pytest
import torch

from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import enclosed_volume
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.geometry.topology import is_watertight
from unrender.geometry.uv_atlas import unwrap
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.tasks.surface.convex_parts import convex_parts
from unrender.tasks.surface.levels_of_detail import levels_of_detail
from unrender.tasks.surface.texels import find_texels
from unrender.tasks.surface.turntable import save_turntable

pytest.importorskip("xatlas")
pytest.importorskip("coacd")


@pytest.fixture(scope="module")
def textured():
    mesh = torus(1.0, 0.45, 40, 24)
    atlas = unwrap(mesh, texture_size=256)
    texels = find_texels(atlas)
    return mesh, texels.texture(paint(texels.surface(mesh).points), atlas)


def paint(points):
    return 0.5 + 0.4 * torch.sin(2 * points)


def test_levels_of_detail_keep_shape_and_colors(textured):
    mesh, texture = textured
    levels = levels_of_detail(mesh, texture, levels=2)
    assert levels[0].mesh is mesh
    assert [len(level.mesh.faces) for level in levels[1:]] == pytest.approx([480, 120], rel=0.1)
    assert [level.texture.image.shape[0] for level in levels] == [256, 128, 64]
    for level in levels[1:]:
        corners = level.mesh.vertices[level.mesh.faces].flatten(0, 1)
        colors = level.texture.sample(level.texture.uvs[level.texture.faces].flatten(0, 1))
        assert float((colors - paint(corners)).abs().mean()) < 0.06
        assert float(enclosed_volume(level.mesh)) == pytest.approx(float(enclosed_volume(mesh)), rel=0.12)


def test_levels_of_detail_with_vertex_colors_end_at_small_meshes():
    sphere = ico_sphere(3)
    levels = levels_of_detail(sphere.replace(vertex_colors=paint(sphere.vertices)), levels=5)
    assert [len(level.mesh.faces) for level in levels] == [1280, 320, 80]
    assert torch.allclose(levels[2].mesh.vertex_colors, paint(levels[2].mesh.vertices), atol=0.2)
    with pytest.raises(InputError, match="`factor` at least 2"):
        levels_of_detail(sphere, factor=1)


def test_convex_parts_cover_the_mesh_and_leave_its_hole_open():
    mesh = torus(1.0, 0.3, 24, 12)
    parts = convex_parts(mesh, concavity=0.1, max_parts=16)
    assert 3 <= len(parts) <= 16
    assert all(is_watertight(part) and len(part.vertices) <= 64 for part in parts)
    assert all(float(enclosed_volume(part)) > 0 for part in parts)
    total = sum(float(enclosed_volume(part)) for part in parts)
    assert 0.9 < total / float(enclosed_volume(mesh)) < 1.6
    center = torch.zeros(1, 3)
    nearest = min(
        float(closest_on_mesh(center, part.vertices, part.faces).squared_distances) for part in parts
    )
    assert nearest > 0.3**2


def test_a_convex_mesh_is_one_part():
    far = cube().replace(vertices=cube().vertices.double() + 1e6)
    (part,) = convex_parts(far)
    assert part.vertices.dtype == torch.float64
    assert torch.allclose(part.vertices.amin(0), far.vertices.amin(0), atol=1e-3)
    with pytest.raises(InputError, match="single mesh with faces"):
        convex_parts(far.replace(faces=far.faces[:0]))
    with pytest.raises(InputError, match="NaN or infinite"):
        convex_parts(far.replace(vertices=far.vertices * torch.nan))
    with pytest.raises(InputError, match="`concavity` should be"):
        convex_parts(far, concavity=0.0)


def test_turntable(tmp_path, textured):
    av = pytest.importorskip("av")
    eyes = [(4.0, 0.0, 2.0), (0.0, 4.0, 2.0), (-4.0, 0.5, 2.0)]
    cameras = [Camera.look_at(eye, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), height=90, width=120) for eye in eyes]
    save_turntable(*textured, cameras, tmp_path / "turntable.mp4", num_frames=4, size=64)
    with av.open(str(tmp_path / "turntable.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape == (48, 64, 3)
    assert all(0.1 < float((frame < 200).any(-1).mean()) < 0.8 for frame in frames)
