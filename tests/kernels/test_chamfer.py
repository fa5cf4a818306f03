import pytest
import torch

from check_kernel import check_kernel
from unrender.kernels.chamfer import mean_chamfer
from unrender.kernels.nearest import nearest


def cloud(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize(
    ("x", "y"),
    [((1, 7, 3), (1, 30, 3)), ((2, 600, 3), (2, 400, 3)), ((3, 1, 2), (3, 4, 2)), ((1, 9, 8), (1, 5, 8))],
)
def test_kernel_agrees_with_the_reference(x, y, norm):
    check_kernel(lambda a, b: mean_chamfer(a, b, None, None, norm), [cloud(*x, seed=0), cloud(*y, seed=1)])


@pytest.mark.parametrize("norm", [1, 2])
def test_neighbors_can_be_given(norm):
    def distance(a, b):
        ids = [nearest(p.detach(), q.detach(), norm=norm).ids for p, q in ((a, b), (b, a))]
        return mean_chamfer(a, b, *ids, norm)

    check_kernel(distance, [cloud(2, 40, 3, seed=0), cloud(2, 50, 3, seed=1)])


def test_coincident_points_have_finite_gradients():
    points = cloud(1, 20, 3, seed=0)
    check_kernel(lambda a, b: mean_chamfer(a, b, None, None, 2), [points, points.repeat(1, 2, 1)], ties=True)
