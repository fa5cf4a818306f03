"""Surface reconstruction from point clouds."""
