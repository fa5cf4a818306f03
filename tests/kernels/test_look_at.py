import pytest
import torch

from check_kernel import check_kernel, implementations, needs_warp
from unrender.kernels.look_at import look_at_pose


@pytest.mark.parametrize("batch", [(1,), (2, 3)])
def test_kernel_agrees_with_the_reference(batch):
    generator = torch.Generator().manual_seed(0)
    check_kernel(look_at_pose, [torch.randn(*batch, 3, generator=generator) for _ in range(3)])


@pytest.mark.parametrize("kernels", ["fast", pytest.param("warp", marks=needs_warp)])
def test_looking_along_up_takes_another_direction_for_up(kernels):
    found = []
    for choice in ("reference", kernels):
        leaves = [
            torch.tensor(row).requires_grad_()
            for row in ([0.5, 3.0, -1.0], [0.5, 1.0, -1.0], [0.0, 2.0, 0.0])
        ]
        with implementations(choice):
            pose = look_at_pose(*leaves)
            (pose * torch.arange(16.0).view(4, 4)).sum().backward()
        found.append((pose.detach(), *(leaf.grad for leaf in leaves)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    assert all(bool(gradient.abs().max() > 0.1) for gradient in found[0][1:])
