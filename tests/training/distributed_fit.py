"""Run by the tests of workers, as one of them: fit fields, and print what they are."""

import dataclasses
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

import unrender
from unrender.fields.schedules import HashSchedule, VoxelSchedule
from unrender.training.schedule import Schedule
from unrender.workers import joined_workers

HASH = HashSchedule(
    occupancy_resolution=32,
    samples_per_side=((0.0, 48),),
    finest_level=64,
    pruning_steps=3,
    pruning_samples=0.01,
)
VOXELS = VoxelSchedule(coarsening=((0.0, 2), (0.5, 1)), pruning_steps=3)
FITS = {
    "fit_nerf": (
        unrender.fit_nerf,
        unrender.FitNerf(steps=6, samples=2048, table_log2=12, shards=4, device="cpu"),
        Schedule(field=HASH),
    ),
    "streamed": (
        unrender.fit_nerf,
        unrender.FitNerf(steps=12, samples=1024, table_log2=10, shards=4, memory_mib=0.08, device="cpu"),
        Schedule(field=HASH),
    ),
    "fit_volume": (
        unrender.fit_volume,
        unrender.FitVolume(steps=6, rays=256, resolution=24, shards=2, device="cpu"),
        Schedule(field=VOXELS),
    ),
    "fit_nerf_50": (
        unrender.fit_nerf,
        unrender.FitNerf(steps=50, samples=512, table_log2=10, shards=4, device="cpu"),
        Schedule(field=dataclasses.replace(HASH, pruning_steps=12)),
    ),
    "fit_volume_50": (
        unrender.fit_volume,
        unrender.FitVolume(steps=50, rays=128, resolution=24, shards=4, device="cpu"),
        Schedule(field=dataclasses.replace(VOXELS, pruning_steps=12)),
    ),
}


def bits(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def main(name: str, scene: Path, checkpoints: Path, stop_at: int) -> None:
    fit, config, schedule = FITS[name]
    checkpoints.mkdir(parents=True, exist_ok=True)
    resume = checkpoints if (checkpoints / "checkpoint.safetensors").is_file() else None
    with joined_workers() as workers:
        steps = fit(
            unrender.load_scene(scene), config, schedule=schedule, checkpoints=checkpoints, resume=resume
        )
        for step in steps:
            last = step
            if step.index == stop_at:
                break
        steps.close()
        if workers.is_first:
            saved = load_file(checkpoints / "checkpoint.safetensors")
            field = last.result.contents()[0]
            print(f"{name} {last.index} {last.losses['color']} {bits(field)} {bits(saved)}", flush=True)


if __name__ == "__main__":
    _, scene, folder, *jobs = sys.argv
    with joined_workers():
        for job in jobs:  # NAME, or NAME@STEP to stop there
            name, _, stop_at = job.partition("@")
            main(name, Path(scene), Path(folder, job), int(stop_at or 0))
