import pytest
import torch

from check_kernel import check_kernel, implementations
from unrender.geometry.camera import Camera
from unrender.kernels.project_points import project_points


@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize(
    ("of_points", "of_pose", "of_focal"),
    [((), (), ()), ((2,), (2,), (2,)), ((), (3,), ()), ((3,), (), ()), ((2, 1), (3,), (1,))],
)
def test_kernel_agrees_with_the_reference(perspective, of_points, of_pose, of_focal):
    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    generator = torch.Generator().manual_seed(0)
    inputs = [draw(*of_points, 70, 3), draw(*of_pose, 4, 4), 3 * draw(*of_focal, 1, 2), draw(*of_pose, 1, 2)]
    check_kernel(lambda p, m, f, c: project_points(p, m, f[..., 0, :], c[..., 0, :], perspective), inputs)


def test_points_and_cameras_alone_have_the_same_gradients():
    eye, points = torch.tensor([1.0, 0.5, -2.0]), torch.randn(40, 3)
    found = []
    for choice in ("fast", "warp"):
        for moves in ((True, True), (True, False), (False, True)):
            leaves = [
                t.clone().requires_grad_(moving) for t, moving in zip((points, eye), moves, strict=True)
            ]
            with implementations(choice):
                camera = Camera.look_at(leaves[1], height=20, width=30)
                camera.project_homogeneous(leaves[0]).square().sum().backward()
            found.append([leaf.grad for leaf in leaves])
    for gradients in found:
        for one, both in zip(gradients, found[0], strict=True):
            assert one is None or torch.allclose(one, both, rtol=1e-4)
