"""Radiance fields from posed images."""
