"""Pose estimation of known objects in images and point clouds."""
