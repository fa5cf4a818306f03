"""Depth maps of fields: measured, evaluated, fused."""
