import pytest
import torch

from unrender import InputError, Rays, ShapeError, Volume, random_rotations
from unrender.geometry.camera import rigid, transform


def tilted(dtype=torch.float64) -> Volume:
    """Voxels of 0.5 × 1 × 2 units, turned and moved."""
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(3, 4, 5, generator=generator, dtype=dtype)
    color = torch.rand(3, 4, 5, 2, generator=generator, dtype=dtype)
    turn = random_rotations(1, generator=generator)[0].to(dtype)
    scale = torch.diag(torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=dtype))
    return Volume(density, rigid(turn, torch.tensor([1.0, 2.0, 3.0], dtype=dtype)) @ scale, color)


def test_centers_hold_the_values_wherever_the_volume_stands():
    volume = tilted()
    k, j, i = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(5), indexing="ij")
    centers = transform(volume.world_from_volume, torch.stack([i, j, k], -1).reshape(-1, 3) + 0.5)
    density, color = volume(centers.view(3, 4, 5, 3), centers.view(3, 4, 5, 3))
    torch.testing.assert_close(density, volume.density)
    torch.testing.assert_close(color, volume.color)


def test_a_box_is_filled_from_corner_to_corner():
    low, high = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 5.0])
    volume = Volume.in_box(torch.ones(2, 3, 3, 4), low, high)
    assert volume.batch_shape == (2,)
    for bound, expected in zip(volume.bounds, (low, high), strict=True):
        torch.testing.assert_close(bound, expected.expand(2, 3))
    points = torch.tensor([[0.0, 0.5, 3.0], [1.1, 0.5, 3.0]]).expand(2, 2, 3)
    assert volume.contains(points).tolist() == [[True, False]] * 2
    assert volume[1](torch.tensor([[0.0, 0.5, 3.0]]))[1].tolist() == [[1.0, 1.0, 1.0]]


def test_rays_are_clipped_in_units_of_the_world():
    volume = tilted()
    middle = volume.corners.mean(-2)
    along = volume.world_from_volume[:3, 2] / 2  # through the depth of 3 voxels of 2 units
    rays = Rays(torch.stack([middle - 10 * along, middle + 10 * along]), along.expand(2, 3))
    near, far = volume.clip(rays)
    torch.testing.assert_close(near[0], torch.tensor(7.0, dtype=torch.float64))
    torch.testing.assert_close(far[0], torch.tensor(13.0, dtype=torch.float64))
    assert far[1] <= near[1]


PAIR = Volume(torch.ones(2, 1, 1, 1), torch.eye(4).expand(2, 4, 4))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Volume(torch.ones(0, 2, 2), torch.eye(4)), ShapeError, "at least one voxel"),
        (lambda: Volume.in_box(torch.ones(2, 2, 2), torch.zeros(3), torch.zeros(3)), InputError, "should be above"),
        (lambda: PAIR(torch.ones(1, 3)), ShapeError, "index it"),
        (lambda: Volume(torch.ones(1, 1, 2), torch.eye(4), torch.ones(1, 2, 1, 3)), ShapeError, "`color` should"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
