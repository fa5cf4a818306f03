"""Kernels of a training step of hash fields on a GPU; `training.graph_step` launches them in sequence.

Nothing is read back by the host: counters, learning rates and scales are elements of two small device tensors, whose
indices are defined here. A step can therefore be captured in a CUDA graph.
"""

(
    NOT_FINITE,
    NUM_RAYS,
    NUM_CANDIDATES,
    REQUESTED_CANDIDATES,
    NUM_SAMPLES,
    REQUESTED_SAMPLES,
    UPDATES,
    BATCHES,
    FINITE_IN_A_ROW,
    SKIPPED_IN_A_ROW,
    SKIPPED,
    DROPPED_RAYS,
) = range(12)
"""Counters: whether a value of this step is not finite; its rays; its candidates (samples in occupied cells) and its
samples (visible candidates), each followed by the number with unlimited capacity; updates of the parameters and batches
of rays so far; consecutive steps that were finite or skipped; skipped steps and rays beyond the capacity so far."""
LEARNING_RATE, STEP, LOSS_SCALE, LOSS, MEAN_LOSS, FIRST_CORRECTION, SECOND_CORRECTION = range(7)
"""Scalars: distance between samples, factor of all gradients, loss of this step and its moving mean, and Adam's
1 − βᵗ for both moments."""
NUM_COUNTERS, NUM_SCALARS = 16, 16
