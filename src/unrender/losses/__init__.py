"""Loss functions and error metrics for point clouds, meshes, depth and images."""
