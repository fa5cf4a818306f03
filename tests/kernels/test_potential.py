"""Potential of charges and dipoles: the tree code against the sum over all points."""

import pytest
import torch

from check_kernel import assert_same_bits, either_kernel, needs_cuda, num_threads
from unrender import ico_sphere
from unrender.errors import InputError
from unrender.geometry.mesh import face_areas
from unrender.kernels.nearest import index_points
from unrender.kernels.potential import potential


def sources(count: int = 700, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "points": torch.randn(count, 3, generator=generator, dtype=dtype),
        "charges": torch.randn(count, generator=generator, dtype=dtype),
        "dipoles": torch.randn(count, 3, generator=generator, dtype=dtype),
        "softening": 0.05 + 0.1 * torch.rand(count, generator=generator, dtype=dtype),
    }


@either_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tree_agrees_with_the_sum(monkeypatch, dtype, kernels) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    given = sources(dtype=dtype)
    queries = 2 * torch.randn(450, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    queries[:100] = given["points"][:100]
    exact, fast = (potential(queries, **given, opening=opening) for opening in (0.0, 0.2))
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    reference = potential(queries, **given)
    tight = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(tuple(exact), tuple(reference), **tight)
    # in numba, groups of 32 queries open nearly all clusters of so few points
    error = 5e-3 if kernels == "fast" else 5e-2
    for found, wanted in zip(fast, reference, strict=True):
        assert float((found - wanted).abs().mean()) < error * float(wanted.abs().mean())


@needs_cuda
def test_a_gpu_gives_the_same_as_the_reference_and_the_same_bits_each_time() -> None:
    given = {name: tensor.cuda() for name, tensor in sources(3000, torch.float32).items()}
    queries = given["points"] + 0.1
    exact = potential(queries, **given, opening=0.0)
    wanted = potential(queries.cpu(), **{name: t.cpu() for name, t in given.items()}, opening=0.0)
    torch.testing.assert_close([t.cpu() for t in exact], list(wanted), rtol=1e-3, atol=1e-3)
    assert_same_bits(potential(queries, **given), potential(queries, **given))


def test_gradients_are_those_of_the_potential(monkeypatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    given = sources(40)
    queries = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    differences = [
        (potential(queries + s, **given).values - potential(queries - s, **given).values) for s in step
    ]
    torch.testing.assert_close(
        potential(queries, **given).gradients, torch.stack(differences, 1) / 2e-5, rtol=1e-5, atol=1e-6
    )


def test_bits_do_not_depend_on_threads_and_indexed_points_give_the_same() -> None:
    given = sources(3000, torch.float32)
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(potential(given["points"], **given))
    assert_same_bits(*results)
    index = index_points(given["points"])
    assert_same_bits(results[0], potential(index, **{**given, "points": index}))


@either_kernel
def test_the_potential_of_a_closed_surface_is_minus_its_winding_number(monkeypatch, kernels) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    sphere = ico_sphere(4).to(torch.float64)
    corners = sphere.vertices[sphere.faces]
    centers = corners.mean(1)
    dipoles = torch.nn.functional.normalize(centers, dim=1) * face_areas(sphere)[:, None]
    queries = torch.tensor([[0.0, 0, 0], [0.5, 0.2, 0], [2, 0, 0], [0, 1.5, 1]], dtype=torch.float64)
    values = potential(queries, centers, dipoles=dipoles, softening=torch.zeros(len(centers))).values
    wanted = torch.tensor([-1.0, -1, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(values, wanted, atol=0.01, rtol=0)


@either_kernel
def test_points_without_softening_do_not_act_on_themselves(monkeypatch, kernels) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    point = torch.zeros(1, 3)
    found = potential(point, point, charges=torch.ones(1), dipoles=torch.ones(1, 3), softening=torch.zeros(1))
    assert found.values.tolist() == [0]
    assert bool(found.gradients.isfinite().all())


@pytest.mark.parametrize(("num_queries", "num_points"), [(0, 1), (1, 0)])
def test_empty_clouds_are_refused(num_queries: int, num_points: int) -> None:
    with pytest.raises(InputError, match="should have at least one point"):
        potential(torch.zeros(num_queries, 3), torch.zeros(num_points, 3), softening=torch.ones(num_points))


def test_a_negative_opening_is_refused() -> None:
    with pytest.raises(InputError, match="`opening` should be at least 0"):
        potential(torch.zeros(1, 3), torch.ones(1, 3), softening=torch.ones(1), opening=-1.0)
