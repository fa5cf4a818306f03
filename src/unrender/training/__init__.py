"""What all trainings share: the region to model, exposure, checkpoints."""
