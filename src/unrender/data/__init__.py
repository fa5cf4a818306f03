"""What training reads: scenes, their images and cameras, and depth supervision."""
