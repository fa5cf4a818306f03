"""unrender: rendering run backwards, from points and pictures to 3D."""
