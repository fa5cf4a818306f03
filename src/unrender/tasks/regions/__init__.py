"""Flat regions of surfaces, where robots can grip."""
