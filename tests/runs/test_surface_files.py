import numpy as np
import pytest
import torch

from unrender.errors import FileAccessError, InputError
from unrender.geometry.camera import Camera
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.io import load_mesh, load_textured_mesh
from unrender.render.lights import AmbientLight
from unrender.render.mesh import render_mesh
from unrender.runs import surface_files
from unrender.runs.surface_files import SurfaceFiles, SurfaceWriter, texture_metrics, texture_steps
from unrender.tasks.surface.photo_views import PhotoView

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("xatlas")


def save_surface(*args, **options):
    """Write all files; return their paths."""
    writer = SurfaceWriter(*args, **options)
    paths, extras = writer.save_mesh(), writer.save_extras()
    assert extras.failures == []
    return [*paths, *extras.paths]


@pytest.fixture(scope="module")
def surface():
    """A colored torus whose axis is x, and photos of it by cameras that have x up."""
    mesh = torus(1.0, 0.45, 24, 16)
    mesh = mesh.replace(vertices=mesh.vertices[:, [2, 0, 1]])
    mesh = mesh.replace(vertex_colors=(0.5 + 0.4 * torch.sin(3 * mesh.vertices)))
    views = []
    for turn in torch.arange(6) * (2 * torch.pi / 6):
        for height in (2.5, -2.5):
            eye = (height, 3 * float(turn.cos()), 3 * float(turn.sin()))
            camera = Camera.look_at(eye, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), height=72, width=96)
            rgba = render_mesh(mesh, camera, lights=(AmbientLight(1.0),), background=None).clamp(0, 1)
            pixels = (rgba * 255).round().to(torch.uint8)
            views.append(
                PhotoView("photo", camera, pixels[..., :3].contiguous(), pixels[..., 3].contiguous())
            )
    return mesh, views


def test_all_files(tmp_path, surface, monkeypatch):
    monkeypatch.setattr(surface_files, "convex_parts", lambda mesh: [cube(), ico_sphere(1)])
    mesh, views = surface
    files = SurfaceFiles(
        ("glb", "obj"), texture_size=256, texture_steps=4, lods=1, collision=True, up="y", units="cm"
    )
    *_, last = texture_steps(mesh, views, files)
    assert last.index == last.last_index
    assert last.baked is not None
    metrics = texture_metrics(last.atlas, last.baked)
    assert metrics["texture_size"] == 256
    assert 0 <= metrics["unobserved_texture"] < 0.3
    paths = save_surface(
        tmp_path, mesh, last.baked.texture, files, [view.camera for view in views], origin=(10.0, 0.0, 0.0)
    )
    names = ["mesh.glb", "mesh.obj", "mesh_lod1.glb", "mesh_lod1.obj", "collision.obj"]
    assert [path.name for path in paths if path.suffix not in (".mtl", ".png")] == names
    expected = torch.stack([-mesh.vertices[:, 1], mesh.vertices[:, 0] + 10, mesh.vertices[:, 2]], -1) * 100
    for name in names[:2]:
        read, texture = load_textured_mesh(tmp_path / name)
        assert torch.allclose(read.vertices[read.faces].float(), expected[mesh.faces], atol=1e-3)
        colors = texture.sample(texture.uvs[texture.faces].flatten(0, 1)).view(-1, 3, 3)
        assert float((colors - mesh.vertex_colors[mesh.faces]).abs().mean()) < 0.08
    assert len(load_mesh(tmp_path / "mesh_lod1.glb").faces) == pytest.approx(len(mesh.faces) / 4, rel=0.1)
    parts = trimesh.load_scene(tmp_path / "collision.obj", split_objects=True, group_material=False).geometry
    assert sorted(parts) == ["part_0", "part_1"]
    assert all(part.is_convex for part in parts.values())
    assert np.abs(parts["part_0"].bounds - [[-50, 950, -50], [50, 1050, 50]]).max() < 1e-3


def test_vertex_colors_and_turntable(tmp_path, surface, monkeypatch):
    mesh, views = surface
    rendered = []
    monkeypatch.setattr(surface_files, "save_turntable", lambda *args, orbit: rendered.append((*args, orbit)))
    files = SurfaceFiles(("ply",), colors="vertex", turntable=True)
    cameras = [view.camera for view in views[:3]]
    paths = save_surface(tmp_path, mesh, None, files, cameras, orbit=False)
    assert [path.name for path in paths] == ["mesh.ply", "turntable.mp4"]
    assert rendered[0][2:] == (cameras, paths[1], False)
    read = load_mesh(paths[0])
    assert torch.equal(read.vertices, mesh.vertices)
    assert torch.allclose(read.vertex_colors, mesh.vertex_colors, atol=0.003)


def test_levels_of_detail_that_are_left_out_are_named(tmp_path, surface, caplog):
    mesh, views = surface
    files = SurfaceFiles(("ply",), colors="vertex", lods=8)
    paths = save_surface(tmp_path, mesh, None, files, [view.camera for view in views])
    assert 1 < len(paths) < 9
    assert f"--lods 8: {len(paths) - 1} written" in caplog.text


def test_other_files_are_written_if_one_fails(tmp_path, surface, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("no convex parts")

    monkeypatch.setattr(surface_files, "convex_parts", fails)
    monkeypatch.setattr(surface_files, "save_turntable", lambda *args, orbit: None)
    mesh, views = surface
    files = SurfaceFiles(("ply",), colors="vertex", lods=1, collision=True, turntable=True)
    extras = SurfaceWriter(tmp_path, mesh, None, files, [view.camera for view in views]).save_extras()
    assert [path.name for path in extras.paths] == ["mesh_lod1.ply", "turntable.mp4"]
    assert extras.failures == ["--collision failed: no convex parts"]


def test_folder_that_cannot_be_written(tmp_path, surface):
    mesh, views = surface
    with pytest.raises(FileAccessError, match="create the folder"):
        save_surface(tmp_path / "missing", mesh, None, SurfaceFiles(), [views[0].camera])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": ()}, "--format: give at least one"),
        ({"texture_size": 4}, "--texture-size 4: must be 16 to 16384"),
        ({"texture_steps": -1}, "--texture-steps -1"),
        ({"lods": 9}, "--lods 9: must be 0 to 8"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        SurfaceFiles(**options).check()
    SurfaceFiles().check()
