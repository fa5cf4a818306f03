import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from unrender.errors import ShapeError
from unrender.geometry.rotations import (
    quaternion_from_rotation,
    random_rotations,
    rotation_angle,
    rotation_from_6d,
    rotation_from_quaternion,
    sixd_from_rotation,
    so3_exp_map,
    so3_log_map,
)

ANGLES = [0.0, 1e-30, 1e-12, 1e-7, 1e-4, 9e-3, 1.1e-2, 0.1, 1.0, 3.0, math.pi - 1e-3, math.pi - 1e-7, math.pi]


def some_rotations(count=20, dtype=torch.float64):
    return random_rotations(count, generator=torch.Generator().manual_seed(0), dtype=dtype)


def some_axes():
    axes = torch.cat(
        [torch.eye(3), -torch.eye(3), torch.randn(10, 3, generator=torch.Generator().manual_seed(1))]
    )
    return torch.nn.functional.normalize(axes.double(), dim=-1)


def test_agrees_with_reference_arrays(golden):
    """Compare with PyTorch3D, whose exponential and quaternions also act on column vectors.

    Its cameras then multiply rows (x R), and its six numbers are the first two rows of the matrix. So its six numbers
    belong to the transposed matrix here.
    """
    arrays = golden("rotations")
    rotation = arrays["rotation"]
    torch.testing.assert_close(so3_exp_map(arrays["log_rotation"]), rotation)
    short = arrays["log_rotation"].norm(dim=-1) < 3.1
    torch.testing.assert_close(
        so3_log_map(rotation[short]), arrays["log_rotation"][short], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(rotation_from_quaternion(arrays["quaternion_wxyz"]), rotation)
    torch.testing.assert_close(quaternion_from_rotation(rotation), arrays["quaternion_wxyz"])
    torch.testing.assert_close(rotation_from_6d(arrays["rotation_6d"]), rotation.mT)
    torch.testing.assert_close(sixd_from_rotation(rotation.mT), arrays["rotation_6d"])


def test_a_quarter_turn_about_z_takes_x_to_y():
    quarter = so3_exp_map(torch.tensor([0.0, 0.0, math.pi / 2]))
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))
    half = math.sqrt(0.5)
    torch.testing.assert_close(quaternion_from_rotation(quarter), torch.tensor([half, 0, 0, half]))
    torch.testing.assert_close(sixd_from_rotation(quarter), torch.tensor([0.0, 1, 0, -1, 0, 0]))


@pytest.mark.parametrize("angle", ANGLES)
def test_logarithm_inverts_exponential_to_rounding(angle):
    logarithm = angle * some_axes()
    rotation = so3_exp_map(logarithm)
    torch.testing.assert_close(rotation, torch.matrix_exp(hat(logarithm)), atol=1e-14, rtol=0)
    back = so3_log_map(rotation)
    if angle == math.pi:  # both signs of the axis are right
        back = back * (back * logarithm).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(back, logarithm, atol=1e-14, rtol=1e-14)
    single = so3_log_map(so3_exp_map(logarithm.float()))
    assert (so3_exp_map(single) - rotation).abs().max() < 1e-6


def hat(vectors):
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3))
def test_large_angles_wrap(logarithm):
    rotation = so3_exp_map(torch.tensor(logarithm, dtype=torch.float64))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64))
    again = so3_log_map(rotation)
    assert again.norm() <= math.pi + 1e-12
    torch.testing.assert_close(so3_exp_map(again), rotation)


@pytest.mark.parametrize(
    ("forth", "back"),
    [
        (quaternion_from_rotation, rotation_from_quaternion),
        (sixd_from_rotation, rotation_from_6d),
        (so3_log_map, so3_exp_map),
    ],
)
def test_round_trips(forth, back):
    half_turns = so3_exp_map(math.pi * some_axes())
    rotations = torch.cat([some_rotations(), half_turns, torch.eye(3).double()[None]])
    torch.testing.assert_close(back(forth(rotations)), rotations)
    torch.testing.assert_close(back(forth(rotations.view(1, -1, 3, 3)))[0], rotations)


def test_quaternions_of_any_length():
    quaternion = torch.tensor([[3.0, 0, 0, 3], [0, 0, 0, 0], [-1, 0, 0, 0]])
    rotation = rotation_from_quaternion(quaternion)
    torch.testing.assert_close(rotation[0], so3_exp_map(torch.tensor([0, 0, math.pi / 2])))
    assert torch.equal(rotation[1:], torch.eye(3).expand(2, 3, 3))
    assert (quaternion_from_rotation(some_rotations(200))[:, 0] >= 0).all()


def test_gradients():
    rotations = some_rotations(4)
    logarithms = torch.cat([so3_log_map(rotations), torch.zeros(1, 3).double(), 1e-3 * some_axes()[:2]])
    assert gradcheck(so3_exp_map, logarithms.requires_grad_())
    assert gradcheck(rotation_from_quaternion, torch.randn(3, 4).double().requires_grad_())
    assert gradcheck(rotation_from_6d, torch.randn(3, 6).double().requires_grad_())
    # on the rotations only: rotate a little and look at the coordinates
    for function in (so3_log_map, quaternion_from_rotation, sixd_from_rotation):
        tilt = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
        assert gradcheck(lambda x, function=function: function(so3_exp_map(x) @ rotations), tilt)
    tilt = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: so3_log_map(so3_exp_map(x)), tilt)
    assert gradcheck(lambda x: rotation_angle(so3_exp_map(x) @ rotations, rotations.roll(1, 0)), tilt)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", ANGLES)
def test_gradients_are_finite_everywhere(angle, dtype):
    logarithm = (angle * some_axes()).to(dtype).requires_grad_()
    rotation = so3_exp_map(logarithm)
    identity = torch.eye(3, dtype=dtype).expand_as(rotation)
    total = so3_log_map(rotation).sum() + rotation_angle(rotation, identity).sum()
    total = total + rotation_from_6d(sixd_from_rotation(rotation)).sum()
    assert torch.autograd.grad(total, logarithm)[0].isfinite().all()


def test_degenerate_coordinates_give_finite_values():
    zeros = torch.zeros(6, requires_grad=True)
    rotation_from_6d(zeros).sum().backward()
    assert zeros.grad.isfinite().all()
    nothing = torch.zeros(4, requires_grad=True)
    rotation_from_quaternion(nothing).sum().backward()
    assert nothing.grad.isfinite().all()


def test_random_rotations_are_uniform():
    rotations = some_rotations(20_000)
    torch.testing.assert_close(rotations.det(), torch.ones(20_000).double())
    torch.testing.assert_close(rotations.mean(0), torch.zeros(3, 3).double(), atol=0.02, rtol=0)
    # the angle has density (1 − cos θ) / π, so its mean is π/2 + 2/π
    angle = rotation_angle(rotations, torch.eye(3).double().expand_as(rotations))
    assert angle.mean() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
    assert torch.equal(some_rotations(3), some_rotations(3))


def test_rotation_angle_is_a_metric():
    a, b, c = some_rotations(60).view(3, 20, 3, 3)
    torch.testing.assert_close(rotation_angle(a, b), rotation_angle(b, a))
    torch.testing.assert_close(rotation_angle(a, b), so3_log_map(a.mT @ b).norm(dim=-1))
    torch.testing.assert_close(rotation_angle(c @ a, c @ b), rotation_angle(a, b))
    assert (rotation_angle(a, c) <= rotation_angle(a, b) + rotation_angle(b, c) + 1e-12).all()
    assert rotation_angle(a, a).max() < 1e-15
    tiny = so3_exp_map(torch.tensor([1e-10, 0, 0]).double())
    assert rotation_angle(tiny, torch.eye(3).double()) == pytest.approx(1e-10)


def test_shapes_are_checked():
    with pytest.raises(
        ShapeError, match=r"rotation_from_quaternion: `quaternion` should be .*, got float32\[2, 3\]"
    ):
        rotation_from_quaternion(torch.zeros(2, 3))
