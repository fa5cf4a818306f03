"""Textured meshes that are written are opened by trimesh, pygltflib and `load_textured_mesh`, and compared."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unrender.errors import FileAccessError, InputError
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.shapes import ico_sphere
from unrender.io import load_mesh, load_textured_mesh
from unrender.io.textured_meshes import save_textured_mesh
from unrender.render.texture import Texture

trimesh = pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def textured():
    """A sphere whose halves are two charts; colors are linear in u and v."""
    mesh = ico_sphere(2)
    mesh = mesh.replace(
        vertices=mesh.vertices * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([3.0, 0.0, -1.0])
    )
    corners = mesh.vertices[mesh.faces]
    is_upper = (corners.mean(1)[:, 2] > -1).long()
    uvs = 0.05 + 0.2 * (mesh.vertices[:, :2] - torch.tensor([2.0, -2.0])) * torch.tensor([1.0, 1.0])
    both = torch.cat([uvs, uvs * torch.tensor([1.0, 1.0]) + torch.tensor([0.5, 0.05])])
    u, v = torch.meshgrid((torch.arange(64) + 0.5) / 64, 1 - (torch.arange(64) + 0.5) / 64, indexing="xy")
    image = torch.stack([u, v, 0.5 * torch.ones_like(u)], -1)
    return mesh, Texture(image, both, mesh.faces + (is_upper * len(uvs))[:, None])


def expected(textured):
    """Return positions, normals, uvs and colors of all corners of the faces."""
    mesh, texture = textured
    uvs = texture.uvs[texture.faces]
    colors = texture.sample(uvs.flatten(0, 1)).view(-1, 3, 3)
    normals = vertex_normals(mesh)[mesh.faces]
    return [t.double().numpy() for t in (mesh.vertices[mesh.faces], normals, uvs, colors)]


def sample(image, uvs):
    """Return the colors at the nearest texels."""
    pixels = np.asarray(image.convert("RGB"), np.float64) / 255
    columns = (uvs[..., 0] * pixels.shape[1]).astype(int).clip(0, pixels.shape[1] - 1)
    rows = ((1 - uvs[..., 1]) * pixels.shape[0]).astype(int).clip(0, pixels.shape[0] - 1)
    return pixels[rows, columns]


def load_in_trimesh(path):
    """Load a file as it is: `load_mesh` would drop normals."""
    return next(iter(trimesh.load_scene(path, process=False).geometry.values()))


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_trimesh_reads_the_same_mesh(tmp_path, textured, suffix):
    files = save_textured_mesh(*textured, tmp_path / f"mesh.{suffix}")
    assert sorted(file.name for file in files) == sorted(file.name for file in tmp_path.iterdir())
    read = load_in_trimesh(tmp_path / f"mesh.{suffix}")
    positions, normals, uvs, colors = expected(textured)
    assert np.abs(read.triangles - positions).max() < 1e-5
    assert np.abs(read.vertex_normals[read.faces] - normals).max() < 2e-5
    assert np.abs(read.visual.uv[read.faces] - uvs).max() < 1e-6
    material = read.visual.material
    image = material.baseColorTexture if suffix == "glb" else material.image
    assert np.abs(sample(image, read.visual.uv[read.faces]) - colors).max() < 0.03


def test_material_of_glb_in_pygltflib(tmp_path, textured):
    pygltflib = pytest.importorskip("pygltflib")
    save_textured_mesh(*textured, tmp_path / "mesh.glb", image_format="png")
    gltf = pygltflib.GLTF2().load(str(tmp_path / "mesh.glb"))
    material = gltf.materials[0].pbrMetallicRoughness
    assert (material.roughnessFactor, material.metallicFactor, material.baseColorTexture.index) == (
        1.0,
        0.0,
        0,
    )
    assert gltf.images[0].mimeType == "image/png"
    blob = gltf.binary_blob()

    def read(index, kind):
        accessor = gltf.accessors[index]
        view = gltf.bufferViews[accessor.bufferView]
        values = np.frombuffer(blob, kind, view.byteLength // np.dtype(kind).itemsize, view.byteOffset)
        return values.reshape(accessor.count, -1)

    primitive = gltf.meshes[0].primitives[0]
    faces = read(primitive.indices, "<u4").reshape(-1, 3)
    positions, normals, uvs, colors = expected(textured)
    found = read(primitive.attributes.POSITION, "<f4")
    assert np.abs(found[faces] - positions).max() < 1e-6
    assert gltf.accessors[primitive.attributes.POSITION].min == found.min(0).tolist()
    assert np.abs(read(primitive.attributes.NORMAL, "<f4")[faces] - normals).max() < 1e-6
    found_uvs = read(primitive.attributes.TEXCOORD_0, "<f4")[faces] * (1, -1) + (0, 1)
    assert np.abs(found_uvs - uvs).max() < 1e-6
    view = gltf.bufferViews[gltf.images[0].bufferView]
    image = Image.open(io.BytesIO(blob[view.byteOffset : view.byteOffset + view.byteLength]))
    assert np.abs(sample(image, uvs) - colors).max() < 0.02


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_own_reader(tmp_path, textured, suffix, dtype):
    mesh, texture = textured
    far = mesh.to(dtype)
    if dtype == torch.float64:
        far = far.replace(vertices=far.vertices + torch.tensor([4.5e5, 5.1e6, 100.0], dtype=dtype))
    save_textured_mesh(far, texture, tmp_path / f"a mesh.{suffix}")
    read, read_texture = load_textured_mesh(tmp_path / f"a mesh.{suffix}")
    assert read.vertices.dtype == dtype
    if suffix != "ply":  # which stores vertices once per UV coordinate
        assert read.vertices.shape == mesh.vertices.shape
    assert torch.allclose(read.vertices[read.faces], far.vertices[far.faces], rtol=0, atol=1e-6)
    found = read_texture.sample(read_texture.uvs[read_texture.faces].flatten(0, 1))
    assert np.abs(found.view(-1, 3, 3).numpy() - expected(textured)[3]).max() < 0.03


def test_glb_has_linear_vertex_colors_and_normals(tmp_path):
    mesh = ico_sphere(1).replace(vertex_colors=torch.rand(42, 3, generator=torch.Generator().manual_seed(0)))
    save_textured_mesh(mesh, None, tmp_path / "mesh.glb")
    read = load_in_trimesh(tmp_path / "mesh.glb")
    linear = ((mesh.vertex_colors.numpy() + 0.055) / 1.055) ** 2.4
    written = read.visual.vertex_attributes["color"]
    assert np.abs(written - linear)[mesh.vertex_colors.numpy() > 0.04045].max() < 1e-5
    assert np.abs(read.vertex_normals - vertex_normals(mesh).numpy()).max() < 1e-5
    assert torch.allclose(load_mesh(tmp_path / "mesh.glb").vertex_colors, mesh.vertex_colors, atol=1e-5)


def test_normals_of_unreferenced_vertices_are_valid(tmp_path, textured):
    mesh, texture = textured
    more = mesh.replace(vertices=torch.cat([mesh.vertices, torch.zeros(1, 3)]))
    save_textured_mesh(more, texture, tmp_path / "mesh.obj")
    normals = [
        line.split()[1:] for line in (tmp_path / "mesh.obj").read_text().splitlines() if line[:3] == "vn "
    ]
    assert np.abs(np.linalg.norm(np.array(normals, float), axis=1) - 1).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_gray_and_rgba_textures_become_rgb(tmp_path, textured, suffix, channels):
    mesh, texture = textured
    image = torch.full((16, 16, channels), 0.25)
    save_textured_mesh(mesh, texture.replace(image=image), tmp_path / f"mesh.{suffix}")
    _, read = load_textured_mesh(tmp_path / f"mesh.{suffix}")
    assert torch.allclose(read.image, torch.full((16, 16, 3), 0.25), atol=0.01)


def test_bad_input(tmp_path, textured):
    mesh, texture = textured
    with pytest.raises(InputError, match=r"unsupported suffix '\.stl'"):
        save_textured_mesh(mesh, texture, tmp_path / "mesh.stl")
    with pytest.raises(InputError, match="it has no faces"):
        save_textured_mesh(mesh.replace(faces=mesh.faces[:0]), texture, tmp_path / "mesh.glb")
    with pytest.raises(InputError, match="not all vertices are finite"):
        save_textured_mesh(Mesh(mesh.vertices * torch.nan, mesh.faces), texture, tmp_path / "mesh.glb")
    with pytest.raises(InputError, match="expected a single mesh"):
        save_textured_mesh(Mesh(mesh.vertices[None], mesh.faces), texture, tmp_path / "mesh.glb")
    with pytest.raises(InputError, match="320 faces but the mesh has 80"):
        save_textured_mesh(ico_sphere(1), texture, tmp_path / "mesh.glb")
    with pytest.raises(FileAccessError, match="create the folder"):
        save_textured_mesh(mesh, texture, tmp_path / "missing" / "mesh.obj")
    assert list(tmp_path.iterdir()) == []
