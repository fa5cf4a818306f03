"""Poses of known objects."""
