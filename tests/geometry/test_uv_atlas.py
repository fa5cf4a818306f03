import pytest
import torch

from unrender.errors import InputError
from unrender.geometry.mesh import face_areas
from unrender.geometry.shapes import ico_sphere, torus
from unrender.geometry.uv_atlas import unwrap
from unrender.kernels.rasterize import rasterize_faces

pytest.importorskip("xatlas")


def uv_areas(atlas):
    a, b, c = (atlas.uvs[atlas.faces[:, k]].double() for k in range(3))
    (x, y), (z, w) = (b - a).T, (c - a).T
    return (x * w - y * z) / 2


@pytest.fixture(scope="module")
def unwrapped():
    mesh = torus(1.0, 0.4, 24, 16)
    return mesh, unwrap(mesh, texture_size=128, padding=3)


def test_charts_fill_the_texture_without_overlap(unwrapped):
    mesh, atlas = unwrapped
    assert atlas.faces.shape == mesh.faces.shape
    assert bool(((atlas.uvs >= 0) & (atlas.uvs <= 1)).all())
    points = torch.cat([atlas.uvs * 256, torch.ones_like(atlas.uvs)], -1)
    face_ids = rasterize_faces(points, atlas.faces, height=256, width=256, near=0.0, layers=2).face_ids
    covered = (face_ids >= 0).float().mean((0, 1))
    assert covered[0] > 0.3
    assert covered[1] < 0.002 * covered[0]  # centers on shared edges


def test_charts_keep_the_proportions_of_areas(unwrapped):
    mesh, atlas = unwrapped
    ratio = uv_areas(atlas).abs() / face_areas(mesh)
    assert ratio.quantile(0.95) < 1.5 * ratio.quantile(0.05)


def test_charts_are_apart_by_the_padding(unwrapped):
    _, atlas = unwrapped
    size = atlas.texture_size
    label = torch.arange(len(atlas.uvs))
    for _ in range(len(atlas.uvs)):  # vertices of a chart get its smallest index
        smallest = label[atlas.faces].amin(1, keepdim=True).expand(-1, 3)
        new = label.scatter_reduce(0, atlas.faces.flatten(), smallest.flatten(), "amin")
        if torch.equal(new, label):
            break
        label = new
    assert len(label.unique()) == atlas.num_charts > 1
    distance = torch.cdist(atlas.uvs, atlas.uvs) * size
    assert float(distance[label[:, None] != label].min()) >= 3


def test_same_atlas_in_other_units_and_far_from_the_origin(unwrapped):
    mesh, atlas = unwrapped
    moved = unwrap(mesh.replace(vertices=mesh.vertices.double() * 1024 + 2**20), texture_size=128, padding=3)
    assert moved.num_charts == atlas.num_charts
    assert torch.allclose(uv_areas(moved).abs().sum(), uv_areas(atlas).abs().sum(), rtol=0.05)


def test_faces_without_area_and_repeated_faces():
    sphere = ico_sphere(0)
    faces = torch.cat([sphere.faces, sphere.faces[:3], torch.tensor([[1, 1, 2], [3, 3, 3]])])
    atlas = unwrap(sphere.replace(faces=faces), texture_size=256)
    assert atlas.faces.shape == faces.shape
    assert bool(atlas.uvs.isfinite().all())


def test_small_texture_error_says_which_size_is_needed():
    mesh = torus(1.0, 0.4, 24, 16)
    with pytest.raises(
        InputError, match=r"too small for .* charts with a padding of 3; use at least 32"
    ) as error:
        unwrap(mesh, texture_size=16, padding=3)
    assert "16 × 16 texels" in str(error.value)
    unwrap(mesh, texture_size=32, padding=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faces": torch.zeros(0, 3, dtype=torch.int64)}, "should be a single mesh with faces, got 0 faces"),
        ({"vertices": torch.zeros(2, 12, 3)}, "should be a single mesh"),
        ({"vertices": torch.full((12, 3), torch.nan)}, "NaN or infinite vertices"),
        ({"vertices": torch.ones(12, 3)}, "have no area"),
    ],
)
def test_bad_meshes(change, message):
    with pytest.raises(InputError, match=message):
        unwrap(ico_sphere(0).replace(**change))


@pytest.mark.parametrize(
    "options", [{"texture_size": 8}, {"texture_size": 20000}, {"padding": -1}, {"padding": 512}]
)
def test_options_out_of_range(options):
    with pytest.raises(InputError, match=next(iter(options))):
        unwrap(ico_sphere(0), **options)
