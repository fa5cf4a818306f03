"""Depth maps of fields: measurement, evaluation and fusion."""
