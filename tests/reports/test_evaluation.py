"""Evaluation after training: as many test views as fit into a budget."""

import itertools
import logging
from pathlib import Path

import pytest
import torch

import unrender
from ball_field import Ball
from unrender import Frame, InputError
from unrender.cli.main import main
from unrender.reports.evaluation import evaluate_views, mean_metrics, protocol, summary
from unrender.runs.field_run import EvaluationOptions


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    frames = []
    for index in range(20):
        angle = torch.tensor(0.3 * index)
        eye = torch.stack([2 * angle.cos(), torch.tensor(0.3), 2 * angle.sin()])
        camera = unrender.Camera.look_at(eye, fov_degrees=40, height=12, width=16)
        path = tmp_path / f"{index:02d}.png"
        unrender.save_image(Ball(0.5).render(camera).color, path)
        frames.append(Frame(path.name, camera, path, "test"))
    return frames


def evaluated(frames: list[Frame], folder: Path, seconds: float | None, per_view: float = 1.0) -> list[str]:
    """Names of the views that are evaluated if the clock shows so many seconds for each."""
    clock = itertools.count(step=per_view)
    views = evaluate_views(
        Ball(0.5), frames, None, folder / "views", seconds=seconds, clock=lambda: next(clock)
    )
    return [view.name for view in views]


def test_as_many_views_as_fit_are_evaluated(frames, tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO, "unrender"):
        names = evaluated(frames, tmp_path, seconds=5.0)
    assert names == ["00.png", "04.png", "08.png", "12.png", "16.png"]
    assert "5 of 20 test views; all of them with --views all" in caplog.text
    assert len(list((tmp_path / "views").iterdir())) == 5


def test_one_view_is_evaluated_however_long_it_takes(frames, tmp_path) -> None:
    assert evaluated(frames, tmp_path, seconds=5.0, per_view=100.0) == ["00.png"]


def test_all_views_are_evaluated_if_they_fit_or_are_asked_for(frames, tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO, "unrender"):
        assert len(evaluated(frames, tmp_path, seconds=20.0)) == 20
        assert len(evaluated(frames, tmp_path, seconds=None, per_view=100.0)) == 20
    assert "for the rest" not in caplog.text


def test_the_report_says_how_many_there_are(frames, tmp_path) -> None:
    clock = itertools.count()
    views = list(
        evaluate_views(
            Ball(0.5), frames, None, tmp_path / "views", seconds=2.0, clock=lambda: float(next(clock))
        )
    )
    assert protocol(frames, views, None)["views"] == ["00.png", "10.png"]
    text = summary("ball", mean_metrics(views), num_views=20)
    assert text.startswith("2 of 20 test views of ball (all of them with --views all): PSNR ")
    assert summary("ball", mean_metrics(views), num_views=2).startswith("2 test views of ball: PSNR ")


def test_a_number_of_views_has_to_be_positive() -> None:
    EvaluationOptions(views="all").check()
    with pytest.raises(InputError, match="--views 0: must be at least 1"):
        EvaluationOptions(views=0).check()


@pytest.mark.parametrize("views", ["few", "1.5"])
def test_other_views_are_refused(views, tmp_path) -> None:
    with pytest.raises(SystemExit):
        main(["fit-nerf", str(tmp_path), "--views", views])
