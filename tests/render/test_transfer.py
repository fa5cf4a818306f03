import pytest
import torch

from unrender import (
    Camera,
    InputError,
    TransferFunction,
    Volume,
    apply_transfer_function,
    rays_of,
    render_volume,
    visible_blocks,
)
from unrender.geometry.camera import transform

SHELL = TransferFunction(
    0.4, 1.0, torch.tensor([0.0, 6.0, 6.0]), torch.tensor([[0.0, 0, 1], [1, 0, 0], [1, 1, 0]])
)


def ball(size: int = 24) -> Volume:
    """Values that rise towards the middle, in voxels that are not cubes."""
    axes = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in (size, size + 3, size - 5)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return Volume.in_box(1.2 - (x * x + y * y + z * z).sqrt(), -torch.ones(3), torch.ones(3))


def test_the_table_is_linear_between_its_entries_and_constant_beyond():
    density, color = SHELL(torch.tensor([-1.0, 0.4, 0.55, 0.7, 0.85, 1.0, 9.0]))
    torch.testing.assert_close(density, torch.tensor([0.0, 0, 3, 6, 6, 6, 6]))
    torch.testing.assert_close(color[2], torch.tensor([0.5, 0, 0.5]))
    torch.testing.assert_close(color[-1], torch.tensor([1.0, 1, 0]))


def test_passing_over_what_is_invisible_changes_nothing():
    volume, camera = ball(), Camera.look_at([1.0, 2.0, 3.0], fov_degrees=45.0, height=30, width=40)
    blocks = visible_blocks(volume, SHELL)
    assert 0.05 < blocks.occupied.float().mean() < 0.75
    everything = blocks._replace(occupied=torch.ones_like(blocks.occupied))
    one, other = (render_volume(volume, SHELL, camera, blocks=b) for b in (None, everything))
    assert one.opacity.max() > 0.95
    for name in ("color", "opacity", "distance"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=0)


def test_finer_steps_change_little():
    volume, camera = ball(), Camera.look_at([1.0, 2.0, 3.0], fov_degrees=45.0, height=30, width=40)
    coarse, fine = (render_volume(volume, SHELL, camera, step=step).color for step in (0.05, 0.005))
    assert (coarse - fine).abs().mean() < 0.01


def test_values_go_on_to_the_border():
    """Beyond the grid there is no fading to 0, which can be any value: water, in tomography."""
    volume = Volume.in_box(torch.full((3, 3, 3), -1000.0), -torch.ones(3), torch.ones(3))
    steep = TransferFunction(-1100.0, 0.0, torch.tensor([1.0, 0.0]), torch.ones(2, 3))
    points = transform(volume.world_from_volume, torch.tensor([[0.01, 1.5, 2.99], [1.5, 1.5, 1.5]]))
    density, _ = apply_transfer_function(volume, steep)(points, points)
    torch.testing.assert_close(density[0], density[1])


def test_values_have_gradients():
    volume = ball(9)
    leaf = volume.density.requires_grad_()
    camera = Camera.look_at([1.0, 2.0, 3.0], fov_degrees=45.0, height=6, width=8)
    render_volume(
        volume.replace(density=leaf), SHELL, camera, background=torch.ones(3)
    ).color.sum().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad.abs().sum() > 0
    assert rays_of(camera).batch_shape == (6, 8)


def test_a_window_has_two_ends():
    with pytest.raises(InputError, match="from `low` to a higher `high`"):
        TransferFunction(1.0, 1.0, torch.zeros(2), torch.zeros(2, 3))
