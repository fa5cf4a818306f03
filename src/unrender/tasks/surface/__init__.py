"""Surface extraction."""
