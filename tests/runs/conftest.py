"""Ctrl-C in tests of commands and runs."""

from interrupts import default_interrupts

__all__ = ["default_interrupts"]
