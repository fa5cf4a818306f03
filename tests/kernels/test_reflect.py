import pytest
import torch
from torch.nn.functional import normalize

from check_kernel import check_kernel
from unrender.kernels.reflect import reflect


def points(channels, generator):
    directions = [normalize(torch.randn(40, 3, generator=generator), dim=-1) for _ in range(3)]
    return [*directions, torch.rand(40, channels, generator=generator)]


@pytest.mark.parametrize("numbers", [(0.7, 0.0, 8.0), (0.3, 0.2, 5.0), (1, 1, 3)])
def test_kernel_agrees_with_the_reference(numbers):
    def lit(normals, directions, views, colors):
        return reflect(normals, directions, views, colors, *numbers) + 0 * views  # unused without highlights

    check_kernel(lit, points(3, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("channels", "widths"), [(3, (3, 1)), (1, (1, 1)), (4, (1, 4))])
def test_coefficients_have_gradients(channels, widths):
    generator = torch.Generator().manual_seed(1)
    coefficients = [torch.rand(1, n, generator=generator) for n in (*widths, 1)]

    def lit(normals, directions, views, colors, diffuse, specular, shininess):
        return reflect(normals, directions, views, colors, diffuse[0], specular[0], 2 + shininess[0, 0])

    check_kernel(lit, [*points(channels, generator), *coefficients])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_coefficient_is_a_tensor(place):
    generator = torch.Generator().manual_seed(2)

    def lit(*tensors):
        numbers = [0.5, 0.4, 6.0]
        numbers[place] = tensors[4][0, 0]
        return reflect(*tensors[:4], *numbers)

    check_kernel(lit, [*points(3, generator), 1 + torch.rand(1, 1, generator=generator)])
