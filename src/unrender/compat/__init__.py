"""Interfaces of other libraries on top of unrender, for existing code."""
