"""Scenes: registered and inspected."""
