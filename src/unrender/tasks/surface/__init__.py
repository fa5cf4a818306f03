"""Surfaces of fields."""
