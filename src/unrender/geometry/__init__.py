"""What exists in space: meshes, points, rotations, and the measures and changes of them."""
