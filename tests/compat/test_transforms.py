import math

import pytest
import torch

from unrender.compat.pytorch3d import transforms as t
from unrender.errors import InputError


def logarithms(count=20):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("convention", ["XYZ", "ZYX", "YXZ", "ZXY", "XYX", "ZYZ", "YXY", "XZX"])
def test_euler_angles_there_and_back(convention):
    rotation = t.so3_exp_map(logarithms())
    angles = t.matrix_to_euler_angles(rotation, convention)
    torch.testing.assert_close(t.euler_angles_to_matrix(angles, convention), rotation)
    turned = t.euler_angles_to_matrix(torch.tensor([math.pi / 2, 0.0, 0.0]), "ZYX")
    assert turned[:, 0].tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    with pytest.raises(InputError, match="names three axes"):
        t.euler_angles_to_matrix(angles, "XXY")


def test_conversions_agree():
    log = logarithms()
    rotation = t.axis_angle_to_matrix(log)
    quaternion = t.axis_angle_to_quaternion(log)
    torch.testing.assert_close(t.quaternion_to_matrix(quaternion), rotation)
    torch.testing.assert_close(t.axis_angle_to_matrix(t.quaternion_to_axis_angle(quaternion)), rotation)
    torch.testing.assert_close(t.axis_angle_to_matrix(t.matrix_to_axis_angle(rotation)), rotation)
    torch.testing.assert_close(t.rotation_6d_to_matrix(t.matrix_to_rotation_6d(rotation)), rotation)
    torch.testing.assert_close(t.matrix_to_rotation_6d(rotation), rotation[:, :2].flatten(1))
    points = logarithms().roll(1, 0)
    torch.testing.assert_close(t.quaternion_apply(quaternion, points), (rotation @ points[..., None])[..., 0])
    both = t.quaternion_multiply(quaternion, quaternion.roll(1, 0))
    torch.testing.assert_close(t.quaternion_to_matrix(both), rotation @ rotation.roll(1, 0))
    assert t.random_rotations(3).det().tolist() == pytest.approx([1, 1, 1])
    assert t.random_rotation().shape == (3, 3)
    assert t.random_quaternions(2).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_relative_angles():
    log = logarithms()
    log = log / log.norm(dim=1, keepdim=True) * torch.linspace(0, 3, 20, dtype=torch.float64)[:, None]
    rotation, other = t.so3_exp_map(log), t.random_rotations(20, dtype=torch.float64)
    angles = t.so3_relative_angle(rotation @ other, other)
    torch.testing.assert_close(angles, log.norm(dim=1))
    torch.testing.assert_close(t.so3_relative_angle(rotation @ other, other, cos_angle=True), angles.cos())


@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
def test_rigid_motions_there_and_back(size):
    log = torch.cat([logarithms(), size * logarithms().flip(0)], 1).requires_grad_()
    matrix = t.se3_exp_map(log)
    algebra = torch.zeros(20, 4, 4, dtype=torch.float64)
    algebra[:, :3, :3], algebra[:, :3, 3] = t.hat(log[:, 3:].detach()), log[:, :3].detach()
    torch.testing.assert_close(matrix.detach(), torch.linalg.matrix_exp(algebra).mT)
    small = log[:, 3:].norm(dim=1) < 3
    torch.testing.assert_close(t.se3_log_map(matrix)[small], log[small])
    matrix.sum().backward()
    assert log.grad.isfinite().all()


def test_transforms_act_on_rows_from_left_to_right():
    points = torch.rand(4, 5, 3)
    turn = t.random_rotations(4)
    transform = t.Translate(1.0, 2.0, 3.0).scale(2.0).rotate(turn).compose(t.Transform3d())
    torch.testing.assert_close(
        transform.transform_points(points), (2 * (points + torch.tensor([1.0, 2, 3]))) @ turn
    )
    torch.testing.assert_close(
        transform.inverse().transform_points(transform.transform_points(points)), points
    )
    assert (len(transform), len(transform[1:3]), len(transform[0])) == (4, 2, 1)
    assert t.Translate(torch.ones(4, 3)).transform_points(points[0]).shape == (4, 5, 3)
    assert t.Translate(torch.ones(1, 3)).transform_points(points[0]).shape == (5, 3)
    assert t.Scale(torch.tensor([1.0, 2.0])).get_matrix()[1].diagonal().tolist() == [2, 2, 2, 1]
    x_to_y = t.RotateAxisAngle(90.0, "Z").transform_points(torch.tensor([[1.0, 0, 0]]))
    assert x_to_y[0].tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    normals = t.Scale(1.0, 2.0, 1.0).transform_normals(torch.tensor([[0.0, 1, 0]]))
    assert normals.tolist() == [[0, 0.5, 0]]
    near = t.Transform3d(matrix=torch.eye(4).roll(1, 1)).transform_points(
        torch.tensor([[0.0, 0, 0]]), eps=1e-2
    )
    assert near.isfinite().all()


def test_says_what_is_wrong():
    with pytest.raises(InputError, match="should be \\[4, 4\\]"):
        t.Transform3d(matrix=torch.eye(3))
    with pytest.raises(InputError, match="takes x, y and z"):
        t.Translate(1.0, 2.0)
    with pytest.raises(InputError, match="'X', 'Y' or 'Z'"):
        t.RotateAxisAngle(90.0, "W")
    with pytest.raises(InputError, match="takes \\[P, 3\\]"):
        t.Transform3d().transform_points(torch.rand(3, 2))
