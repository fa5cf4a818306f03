"""Training of fields: the loop, its schedule and checkpoints, the step of any field, the region to model."""
