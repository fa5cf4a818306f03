"""One optimizer step from a loss or from gradients, skipped where values are not finite."""

import torch
from torch import Tensor


def gradient_step(optimizer: torch.optim.Adam, loss: Tensor) -> Tensor:
    """Descend once; return whether the loss and its gradients are finite, as a 0-d bool tensor.

    If they are not, parameters and the optimizer's state stay as they are. Nothing waits for the device, so that the
    step can be captured in a CUDA graph. The optimizer has to be fused.
    """
    optimizer.zero_grad()
    backpropagate(loss)
    gradients = [parameter.grad for parameter in parameters_of(optimizer) if parameter.grad is not None]
    is_finite = torch.stack([loss.detach(), *(gradient.sum() for gradient in gradients)]).isfinite().all()
    step_if(optimizer, is_finite)
    return is_finite


def backpropagate(loss: Tensor) -> None:
    """Compute gradients in the calling thread.

    On a GPU, autograd does so in a thread of its own otherwise, and changing threads takes longer than a small step.
    """
    with torch.autograd.set_multithreading_enabled(False):
        loss.backward()


def step_if(optimizer: torch.optim.Adam, is_finite: Tensor) -> None:
    """Take the step of a fused optimizer if gradients are finite, without waiting for the device."""
    optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]  # read by fused optimizers
    optimizer.step()


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters that an optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
