"""Interactive pictures in the browser."""
