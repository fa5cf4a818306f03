"""Ctrl-C in tests of commands and runs, and reports that are made quickly."""

import pytest

from interrupts import default_interrupts
from unrender.reports import mesh_report, pose_report, shape_report

__all__ = ["default_interrupts", "few_images"]


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render few images for reports, which take longer than the jobs of tests."""
    monkeypatch.setattr(mesh_report, "NUM_VIEWS", 2)
    monkeypatch.setattr(pose_report, "NUM_VIEWS", 1)
    monkeypatch.setattr(pose_report, "MAX_FRAMES", 2)
    monkeypatch.setattr(shape_report, "NUM_FRAMES", 2)
