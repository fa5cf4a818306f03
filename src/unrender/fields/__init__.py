"""Learnable functions of space: (points, directions) → (density, color)."""
