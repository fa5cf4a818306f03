"""Ctrl-C in tests of commands and runs, and reports that are made quickly."""

import pytest

from interrupts import default_interrupts

__all__ = ["default_interrupts", "quick_reports"]


@pytest.fixture(autouse=True)
def quick_reports(few_images: None) -> None:
    """Use `few_images` in all tests of commands."""
