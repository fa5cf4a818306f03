"""Inner loops: tensors in, tensors out, one folder for each operation."""
