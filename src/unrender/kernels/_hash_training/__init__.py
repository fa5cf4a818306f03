"""Kernels of a training step of hash fields on a GPU; `training.graph_step` runs them one after another.

Nothing here asks the host for a number: counts, learning rates and scales lie on the device, in two small tensors whose
places are named here. So a step can be captured in a CUDA graph.
"""

BAD, NUM_RAYS, NUM_SAMPLES, WANTED, UPDATES, DRAWS, GOOD_IN_A_ROW, BAD_IN_A_ROW, SKIPPED, DROPPED = range(10)
"""Whole numbers: whether this step met a number that is not finite; rays and samples of this step, and the samples it
would take; updates of the parameters and draws of rays so far; steps in a row that were good or bad; steps that were
skipped, and rays that found no room, so far."""
RATE, STEP, LOSS_SCALE, LOSS, MEAN_LOSS, FIRST_CORRECTION, SECOND_CORRECTION = range(7)
"""Others: the learning rate, how far samples are apart, what gradients are multiplied by, the loss of this step and its
moving mean, and Adam's 1 − βᵗ of this update."""
NUM_COUNTS, NUM_NUMBERS = 16, 16
