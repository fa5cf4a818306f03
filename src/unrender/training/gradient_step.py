"""One optimizer step from a loss, skipped where values are not finite."""

import torch
from torch import Tensor

from unrender.training.reduction import sum_gradients


def gradient_step(optimizer: torch.optim.Adam, loss: Tensor) -> Tensor:
    """Descend once; return whether the loss and its gradients are finite, as a 0-d bool tensor.

    If they are not, parameters and the optimizer's state stay as they are. Nothing waits for the device, so that the
    step can be captured in a CUDA graph. The optimizer has to be fused.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad()
    loss.backward()
    sum_gradients(parameters)
    sums = [parameter.grad.sum() for parameter in parameters if parameter.grad is not None]
    is_finite = torch.stack([loss.detach(), *sums]).isfinite().all()
    optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]  # read by fused optimizers
    optimizer.step()
    return is_finite
