"""Volumes from posed images."""
