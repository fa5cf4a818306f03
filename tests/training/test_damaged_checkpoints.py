"""Checkpoints of a training with values that no training writes."""

import copy
import functools
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unrender
from unrender.data.demo_scene import save_demo_scene
from unrender.data.scenes import Scene
from unrender.errors import FileFormatError, InputError
from unrender.fields.schedules import HashSchedule
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.schedule import Schedule

Contents = tuple[dict[str, Tensor], dict[str, Any]]
COARSE = Schedule(field=HashSchedule(occupancy_resolution=16, samples_per_side=((0.0, 16),), finest_level=32))
"""With it an attempt to resume takes milliseconds, of which there are many."""
FITS: dict[str, tuple[Callable[..., Iterator[Any]], Any]] = {
    "nerf": (
        functools.partial(unrender.fit_nerf, schedule=COARSE),
        unrender.FitNerf(steps=3, samples=512, table_log2=10, exposure="per_image"),
    ),
    "volume": (unrender.fit_volume, unrender.FitVolume(steps=3, rays=128, resolution=16, degree=0)),
}
HARMLESS = ("unrender", "settings/minutes", "settings/steps", "settings/memory_mib", "settings/device")
"""What may differ; besides, settings of None may be missing, and streamed images may have had other sizes."""
ABSENT = {
    "settings/total_variation_loss_weight missing",
    "settings/sparsity_loss_weight missing",
    "settings/distortion_loss_weight missing",
    "settings/schedule missing",
    "pixels/capacities longer",
}
SAMPLE = 30
"""Damages that are tried: all of them take a minute."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return save_demo_scene(tmp_path_factory.mktemp("scene"), size=12, num_train=3, num_test=0)


def tensors_damaged(tensors: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield tensors of which one is missing, too long, of another type, or not finite."""
    for name, tensor in tensors.items():
        yield f"{name} missing", {key: value for key, value in tensors.items() if key != name}
        yield (
            f"{name} longer",
            tensors | {name: torch.cat([tensor.reshape(-1), tensor.reshape(-1)[:1], tensor.reshape(-1)[:1]])},
        )
        yield (
            f"{name} other type",
            tensors | {name: tensor.to(torch.float64 if tensor.dtype != torch.float64 else torch.int8)},
        )
        if tensor.is_floating_point() and tensor.numel():
            worse = tensor.clone()
            worse.view(-1)[-1] = math.nan
            yield f"{name} not finite", tensors | {name: worse}
    yield "one more", tensors | {"adam/99/exp_avg": torch.zeros(3)}


def values_damaged(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield copies of nested values in which one is missing, or something else."""
    for key in values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ():
        name = f"{path}/{key}".strip("/")
        for wrong in ("x", [], {}, -1, math.nan, 1e300, None, True):
            if type(wrong) is not type(values[key]) or wrong != values[key]:
                changed = copy.copy(values)
                changed[key] = wrong
                yield f"{name} = {wrong}", changed
        if isinstance(values, dict):
            yield f"{name} missing", {k: v for k, v in values.items() if k != key}
        for what, inner in values_damaged(values[key], name):
            changed = copy.copy(values)
            changed[key] = inner
            yield what, changed


@pytest.mark.parametrize("kind", FITS)
def test_a_damaged_checkpoint_is_refused(kind: str, scene: Scene, tmp_path: Path) -> None:
    fit, config = FITS[kind]
    list(fit(scene, config, checkpoints=tmp_path))
    tensors, description = load_tensors(tmp_path / CHECKPOINT)
    damages = [(what, (worse, description)) for what, worse in tensors_damaged(tensors)]
    damages += [(what, (tensors, worse)) for what, worse in values_damaged(description)]
    damages = [damage for damage in damages if not damage[0].startswith(HARMLESS)]
    damages = [(what, contents) for what, contents in damages if what not in ABSENT]
    chosen = random.Random(0).sample(damages, int(os.environ.get("DAMAGES", SAMPLE)))
    answers = {}
    for what, contents in chosen:
        save_tensors(*contents, tmp_path / CHECKPOINT)
        answers[what] = refusal(lambda: fit(scene, config, resume=tmp_path))
    assert [what for what, answer in answers.items() if CHECKPOINT not in answer] == []


def refusal(resume: Callable[[], object]) -> str:
    """Return the message of a refused checkpoint, nothing if it is accepted."""
    try:
        resume()
    except (FileFormatError, InputError) as error:
        return str(error)
    return ""
