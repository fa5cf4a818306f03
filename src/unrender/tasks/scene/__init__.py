"""Registration of photos and inspection of scenes."""
