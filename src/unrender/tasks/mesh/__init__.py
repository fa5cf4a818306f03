"""Meshes from point clouds."""
