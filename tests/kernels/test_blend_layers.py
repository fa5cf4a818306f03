import pytest
import torch

from check_kernel import check_kernel
from unrender.kernels.blend_layers import blend_layers


@pytest.mark.parametrize("gamma", [0.05, 1.0])
@pytest.mark.parametrize("images", [1, 3])
def test_kernel_agrees_with_the_reference(images, gamma):
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(30, 5, 3, generator=generator)
    depth = 2 + torch.rand(30, 5, generator=generator) / 10
    squared = torch.randn(30, 5, generator=generator)
    face_ids = torch.randint(9, (30, 5), generator=generator, dtype=torch.int32)
    empty = torch.arange(5) >= torch.arange(30)[:, None] % 6

    def blend(colors, depth, squared):
        near, far, background = (
            colors.new_tensor(v) for v in ([1.5] * images, [2.5] * images, [0.1, 0.2, 0.3])
        )
        ids = face_ids.to(colors.device).masked_fill(empty.to(colors.device), -1)
        return blend_layers(colors, depth, squared, ids, near, far, background, 2.3, gamma)

    check_kernel(blend, [colors, depth, squared])
