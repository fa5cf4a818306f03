"""Training by graph steps, on Warp's CPU device."""

import math

import pytest
import torch

from ball_pixels import ball_pixels
from check_kernel import needs_warp
from unrender import SceneBox
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.occupancy import OccupancyGrid
from unrender.fields.schedules import HashSchedule
from unrender.kernels.hash_grid import HashLevels
from unrender.training.field_training import Objective

graph_training = pytest.importorskip("unrender.training.graph_training")
pytestmark = needs_warp
COLORS = Objective(0.0)


def make(seed=0, objective=COLORS):
    grid = OccupancyGrid(torch.ones(8, 8, 8, dtype=torch.bool))
    field = HashNeRF(
        SceneBox.cube(torch.zeros(3), 1.2), HashLevels.geometric(4, 32, 4, 10), grid, step=0.1,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    schedule = HashSchedule(
        occupancy_resolution=8, split_at=0.5, pruning_steps=12, samples_per_side=((0.0, 16), (0.5, 32))
    )
    options = graph_training.GraphOptions(samples=2048, schedule=schedule)
    return graph_training.GraphTraining(field, ball_pixels(), options, objective, seed)


def advance(training, first, last, total=40):
    return [training.step(i / total) for i in range(first, last)]


def test_training_lowers_the_loss_prunes_and_splits():
    training = make()
    measured = advance(training, 0, 80, 80)
    losses = [float(each.color) for each in measured]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert all(bool(each.is_finite) for each in measured)
    assert all(0 < float(each.constant) < 0.2 for each in measured)
    grid = training.field.occupancy
    assert grid.shape == (16, 16, 16)
    assert grid.num_occupied < 0.9 * 16**3
    assert torch.equal(training.graph_step.occupied.bool(), grid.occupied)
    density = training.field.density(torch.tensor([[0.0, 0.0, 0.97], [0.0, 0.0, 1.15]])).detach()
    assert density[0] > density[1]  # the field has what the steps trained


@pytest.mark.parametrize("exposure", [False, True])
def test_a_restored_training_continues_with_the_same_bits(exposure):
    objective = Objective(0.0, per_image_exposure=exposure)
    training = make(0, objective)
    advance(training, 0, 30)
    state = training.state().copy()
    advance(training, 30, 36)
    other = make(0, objective)
    advance(other, 0, 5)
    other.restore(state)
    advance(other, 30, 36)
    for a, b in zip(training.graph_step.state(), other.graph_step.state(), strict=True):
        assert torch.equal(a, b)
    for (name, a), b in zip(training.field.named_parameters(), other.field.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert (training.exposures is not None) == exposure
    if training.exposures is not None:
        assert torch.equal(training.exposures, other.exposures)
        assert 0.01 < float((training.exposures - 1).abs().max()) < 1
        torch.testing.assert_close(training.exposures.log().mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_state_has_the_moments_of_each_parameter():
    training = make()
    advance(training, 0, 3)
    state = training.state()
    parameters = list(training.field.named_parameters())
    for number, (name, parameter) in enumerate(parameters):
        assert torch.equal(state.tensors[f"field/{name}"], parameter)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert state.tensors[f"adam/{number}/{moment}"].shape == parameter.shape
            assert bool(state.tensors[f"adam/{number}/{moment}"].any()) == (name != "background")
        assert float(state.tensors[f"adam/{number}/step"]) == 3
    del state.tensors["graph/counters"], state.tensors["graph/scalars"]  # as from a CPU
    other = make(1)
    other.restore(state)
    measured = advance(other, 3, 6)
    assert other.graph_step.status().updates == 6
    assert math.isfinite(float(measured[-1].color))


def test_reseeding_draws_other_rays():
    training, other = make(), make()
    other.reseed(5)
    first, second = (float(advance(each, 0, 1)[0].color) for each in (training, other))
    assert first != second
