"""Self-contained HTML reports, and the images in them."""
