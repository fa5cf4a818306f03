from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.losses.regularize import mesh_edge_loss, mesh_laplacian_smoothing, mesh_normal_consistency

LOSSES = {
    "edge": mesh_edge_loss,
    "normal_consistency": mesh_normal_consistency,
    "laplacian_uniform": mesh_laplacian_smoothing,
    "laplacian_cot": partial(mesh_laplacian_smoothing, method="cot"),
    "laplacian_cotcurv": partial(mesh_laplacian_smoothing, method="cotcurv"),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def bumpy_sphere(*batch, level=1, dtype=torch.float64):
    mesh = ico_sphere(level).to(dtype)
    noise = torch.randn(*batch, *mesh.vertices.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return mesh.replace(vertices=mesh.vertices + 0.05 * noise)


def gradient(loss, mesh):
    vertices = mesh.vertices.clone().requires_grad_()
    return torch.autograd.grad(loss(mesh.replace(vertices=vertices)), vertices)[0]


@pytest.mark.parametrize("name", LOSSES)
def test_agrees_with_reference_arrays(name, golden):
    arrays = golden("mesh_losses")
    mesh = Mesh(arrays["vertices"], arrays["faces"])
    torch.testing.assert_close(LOSSES[name](mesh), arrays[name])
    torch.testing.assert_close(gradient(LOSSES[name], mesh), arrays[f"{name}_grad"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "loss", [mesh_edge_loss, partial(mesh_edge_loss, target_length=0.3), *list(LOSSES.values())[1:3]]
)
def test_gradients(loss):
    mesh = bumpy_sphere(2)
    assert gradcheck(lambda x: loss(mesh.replace(vertices=x)), mesh.vertices.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("method", ["cot", "cotcurv"])
def test_cotangent_laplacian_matches_the_textbook_matrix(method):
    mesh = bumpy_sphere()
    x = mesh.vertices.clone().requires_grad_()
    laplacian, area = torch.zeros(2, 42, 42, dtype=x.dtype)
    for i, j, k in [face[n:] + face[:n] for face in mesh.faces.tolist() for n in range(3)]:
        u, v = mesh.vertices[i] - mesh.vertices[k], mesh.vertices[j] - mesh.vertices[k]
        double_area = torch.linalg.cross(u, v).norm()
        laplacian[i, j] += (u @ v) / double_area
        laplacian[j, i] += (u @ v) / double_area
        area[i, i] += double_area / 2
    total = laplacian.sum(1, keepdim=True) if method == "cot" else 4 * area.diagonal()[:, None]
    expected = (((laplacian - laplacian.sum(1).diag()) @ x) / total).norm(dim=1).mean()
    loss = LOSSES[f"laplacian_{method}"]
    torch.testing.assert_close(loss(mesh), expected.detach())
    torch.testing.assert_close(gradient(loss, mesh), torch.autograd.grad(expected, x)[0])


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_similarity_transforms(scale, shift):
    mesh = bumpy_sphere()
    moved = mesh.replace(vertices=mesh.vertices.roll(1, -1) * scale + shift)
    for loss, power in zip(LOSSES.values(), (2, 0, 1, 1, -1), strict=True):
        torch.testing.assert_close(loss(moved), loss(mesh) * scale**power, rtol=1e-6, atol=0)


def test_known_shapes():
    # a cube: 12 edges of length 1 and 6 diagonals; flat hinges at the diagonals, right angles at the others
    assert mesh_edge_loss(cube()) == pytest.approx((12 * 1 + 6 * 2) / 18)
    assert mesh_edge_loss(cube(), 1.0) == pytest.approx(6 * (2**0.5 - 1) ** 2 / 18)
    assert mesh_normal_consistency(cube()) == pytest.approx(12 / 18)
    inside_out = cube().faces.clone()
    inside_out[::3] = inside_out[::3].flip(1)
    assert mesh_normal_consistency(cube().replace(faces=inside_out)) == pytest.approx(12 / 18)
    # the cotangents see curvature: 1 on the unit sphere
    assert 3 * LOSSES["laplacian_cotcurv"](ico_sphere(3)) == pytest.approx(1, rel=1e-2)


def test_edge_of_three_faces_counts_every_pair():
    vertices = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 0, 0], [0, 1, 0]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))
    assert mesh_normal_consistency(mesh) == pytest.approx((0 + 1 + 1) / 3)


@every_loss
def test_loss_of_a_batch_is_the_mean(loss):
    poses = bumpy_sphere(2, 3)
    each = torch.stack([loss(poses[i, j]) for i in range(2) for j in range(3)])
    torch.testing.assert_close(loss(poses), each.mean())


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_meshes_give_finite_values_and_gradients(loss, dtype):
    vertices = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]).float()
    crumpled = Mesh(vertices, torch.tensor([[0, 0, 1], [0, 1, 2], [0, 3, 4], [0, 1, 5]]))
    point = ico_sphere(1).replace(vertices=torch.ones(42, 3))
    needle = cube().replace(vertices=cube().vertices * torch.tensor([1e-12, 1e-15, 1]))
    for mesh in (crumpled, point, needle):
        mesh = mesh.to(dtype)
        assert loss(mesh).isfinite()
        assert gradient(loss, mesh).isfinite().all()


@every_loss
def test_no_faces_and_unreferenced_vertices(loss):
    mesh = Mesh(torch.rand(4, 3), torch.empty(0, 3, dtype=torch.int64))
    assert loss(mesh) == 0
    assert not gradient(loss, mesh).any()
    sphere = bumpy_sphere()
    more = sphere.replace(vertices=torch.cat([sphere.vertices, torch.rand(3, 3)]))
    assert not gradient(loss, more)[-3:].any()


@every_loss
@pytest.mark.parametrize("mesh", [bumpy_sphere(level=5, dtype=torch.float32), torus(segments=150)])
def test_results_do_not_depend_on_the_number_of_threads(loss, mesh):
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        results.append((loss(mesh), gradient(loss, mesh)))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_invalid_arguments_are_rejected():
    with pytest.raises(InputError, match='`method` should be "uniform", "cot" or "cotcurv", got \'cotan\''):
        mesh_laplacian_smoothing(cube(), "cotan")
