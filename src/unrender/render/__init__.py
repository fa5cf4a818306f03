"""Geometry and a camera make pictures."""
