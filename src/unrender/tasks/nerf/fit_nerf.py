"""Radiance field from posed images, by differentiable volume rendering."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender.data.depth_supervision import DepthSupervision
from unrender.data.frames import Frame
from unrender.data.pixels import PixelSource
from unrender.data.scenes import Scene
from unrender.errors import InputError, UnrenderError
from unrender.fields.protocol import RadianceField
from unrender.render.march import march
from unrender.tasks.nerf.checkpoint import read_checkpoint, save_checkpoint
from unrender.tasks.nerf.config import FitNerf, check
from unrender.tasks.nerf.trainer import Learner, begin_field, colors_to_learn

log = logging.getLogger("unrender")
MINUTES = 5.0
"""Of learning, where nothing is said."""
MINUTES_BETWEEN_CHECKPOINTS = 3.0
SECONDS_BETWEEN_LOOKS, SHARE_OF_LOOKS = 20.0, 0.05
"""At pictures that are held out; and the share of the time that is spent with it, at most."""
HELD_OUT_FRAMES, HELD_OUT_PATCHES, HELD_OUT_SIDE = 4, 64, 8
COLLAPSE_AT = 300
"""Step after which the error has to be below what needs no field."""
COLLAPSED = 0.95
"""Of that error."""
STEPS_TO_GO_BACK, MOST_RETURNS = 500, 3
"""Steps after which a good state is remembered, and how often learning returns to one."""


@dataclasses.dataclass(frozen=True)
class FitNerfStep:
    """Where the fit stands after a step."""

    index: int
    last_index: int
    """No step comes after this one; with `minutes`, an estimate."""
    losses: dict[str, float]
    """color: mean squared error; psnr: the same in decibels, of this step's rays, which the next step learns from."""
    samples: int
    """At which the field was asked in this step."""
    seconds: float
    """Since the fit began, loading included, and before it was resumed too."""
    result: RadianceField
    """The field as it is now; later steps change it."""
    held_out: float | None = None
    """PSNR of patches of pictures that are not learned from, when they were looked at after this step."""
    exposures: Tensor | None = None
    """By how much each photo for training is brighter than the field, in each channel, where that is learned."""


def fit_nerf(
    scene: Scene,
    config: FitNerf = FitNerf(),
    *,
    checkpoints: Path | None = None,
    resume: Path | None = None,
) -> Iterator[FitNerfStep]:
    """Fit a radiance field to the training frames of a scene; every step has a usable one, the last one the result.

    With `checkpoints`, a folder, all that is needed to go on is saved there every few minutes and at the end, also if
    the iterator is closed early. `resume` is such a folder: the fit goes on from there with the same numbers as if it
    had never stopped, if `steps` are given.

    Raises InputError before the first step for a scene without training frames, and for settings that differ from
    those of the fit to be resumed.
    """
    check(config)
    begin = time.perf_counter()
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_nerf: the scene {scene.name} has no frames for training")
    saved = None if resume is None else read_checkpoint(resume, scene, config)
    if len(frames) == 1:
        log.warning("there is one picture to learn from: it cannot tell how far things are")
    learner = _new_learner(scene, config, config.seed)
    if saved is not None:
        saved.restore(learner)
    return _fit(learner, scene, config, checkpoints, begin - learner.seconds)


def _new_learner(scene: Scene, config: FitNerf, seed: int) -> Learner:
    frames = scene.split("train")
    pixels = PixelSource(frames, memory_mib=config.memory_mib, seed=seed)
    depths = DepthSupervision(frames, seed=seed) if config.depth > 0 else None
    return Learner(begin_field(scene, config, seed), pixels, depths or None, config, seed)


def _fit(
    learner: Learner, scene: Scene, config: FitNerf, checkpoints: Path | None, begin: float
) -> Iterator[FitNerfStep]:
    looks, guard, saved = _Looks(scene.split("test")), _Guard(learner), time.perf_counter()
    if learner.index > 0 and _share(learner, config) >= 1:  # resumed, and nothing is left to do
        yield _describe(learner, learner.index, None)
    try:
        while (share := _share(learner, config)) < 1 or learner.index == 0:  # one step there is
            guard.step(share)
            if learner.index - learner.first_index == COLLAPSE_AT and learner.mean_error > (
                COLLAPSED * learner.mean_trivial_error
            ):
                learner = _begin_again(learner, scene, config)
                guard = _Guard(learner)
                guard.step(share)
            learner.seconds = time.perf_counter() - begin
            if time.perf_counter() - saved > 60 * MINUTES_BETWEEN_CHECKPOINTS:
                _save(learner, scene, config, checkpoints)
                saved = time.perf_counter()
            held_out = looks.look(learner.field)
            last = config.steps or max(learner.index, round(learner.index / max(share, 1e-3)))
            yield _describe(learner, last, held_out)
            learner.seconds = time.perf_counter() - begin
    except GeneratorExit:  # closed after a whole step; what fails within one is not saved
        _save(learner, scene, config, checkpoints)
        raise
    _save(learner, scene, config, checkpoints)


def _describe(learner: Learner, last_index: int, held_out: float | None) -> FitNerfStep:
    exposures = None if learner.exposures is None else learner.exposures.factors().detach()
    return FitNerfStep(
        learner.index,
        last_index,
        learner.losses,
        learner.num_samples,
        learner.seconds,
        learner.field,
        held_out,
        exposures,
    )


def _share(learner: Learner, config: FitNerf) -> float:
    """Return how much of the work is done."""
    if config.steps is not None:
        return learner.index / config.steps
    return learner.seconds / (60 * (MINUTES if config.minutes is None else config.minutes))


def _save(learner: Learner, scene: Scene, config: FitNerf, folder: Path | None) -> None:
    if folder is not None:
        save_checkpoint(folder, learner, scene, config)


def _begin_again(learner: Learner, scene: Scene, config: FitNerf) -> Learner:
    """Replace a field that shows nothing, once."""
    if learner.seed != config.seed:
        raise UnrenderError(
            f"fit_nerf: after {COLLAPSE_AT} steps, with two seeds, the field shows no more than one color does: poses "
            "or bounds may be wrong (`unrender inspect` shows them), or near things are cut away"
        )
    log.warning("the field collapsed to one color: beginning again with another seed")
    other = _new_learner(scene, config, config.seed + 1)
    other.index = other.first_index = learner.index
    return other


class _Guard:
    """Watches over a learner, and returns to a good state where numbers fail."""

    def __init__(self, learner: Learner) -> None:
        self._learner, self._good, self._returns = learner, _copy(learner.state()), 0

    def step(self, share: float) -> None:
        """Take a step; if its error is not finite, go back and go on with other random numbers."""
        learner = self._learner
        while not learner.step(share):
            self._returns += 1
            at = learner.index + 1
            if self._returns > MOST_RETURNS:
                raise UnrenderError(
                    f"fit_nerf: step {at}: the error, or its gradient, is not finite, after {MOST_RETURNS} returns to "
                    "good states; pictures or cameras may hold values that are not finite"
                )
            learner.restore(*self._good)
            learner.generator.manual_seed(learner.seed + 1000 * self._returns)
            log.warning("step %d: the error is not finite: going back to step %d", at, learner.index)
        if learner.index % STEPS_TO_GO_BACK == 0:
            self._good = _copy(learner.state())


def _copy(state: tuple[dict[str, Tensor], dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return {name: tensor.clone() for name, tensor in state[0].items()}, state[1]


class _Looks:
    """Patches of some pictures that are held out, looked at from time to time."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._batch = None
        if frames:
            pixels = PixelSource(frames[:: -(-len(frames) // HELD_OUT_FRAMES)])
            side = min(HELD_OUT_SIDE, *(min(c.height, c.width) for c in pixels.cameras))
            self._batch = pixels.draw(HELD_OUT_PATCHES, side)
        self._next = time.perf_counter() + SECONDS_BETWEEN_LOOKS

    def look(self, field: RadianceField) -> float | None:
        """Return the PSNR of the patches; None if there are none, or it was not long ago."""
        begin, batch = time.perf_counter(), self._batch
        if batch is None or begin < self._next:
            return None
        target, behind = colors_to_learn(batch, field.background, "white", torch.Generator())
        with torch.no_grad():
            seen = march(field, batch.rays, field.samples, background=behind)
        error = (
            float((seen.color - target).square().mean(1)[batch.valid].mean()) if batch.valid.any() else 1.0
        )
        spent = time.perf_counter() - begin
        self._next = begin + max(SECONDS_BETWEEN_LOOKS, spent / SHARE_OF_LOOKS)
        return -10 * math.log10(max(error, 1e-10))
