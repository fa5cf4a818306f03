"""A device that is not there: tensors that say they are on it, compute on the CPU, and refuse to mix with CPU tensors.

    with pretended_gpu() as gpu:
        mesh = on_gpu(mesh)                # a tensor or a TensorStruct
        render_silhouette(mesh, camera)    # raises WrongDeviceError where a value was made on the CPU
    gpu.waits                              # how often the host asked for a value

The device is torch's "meta": one that any build knows, with autograd; kernels use their references there.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
WAITING = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "equal", "is_nonzero"}


class WrongDeviceError(RuntimeError):
    """Tensors of both devices came to one operation."""


class Pretended(Tensor):
    """A tensor on the pretended device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "Pretended":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
        )
        made.held = real
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {}, Counter())

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Pretended({self.held!r})"

    def tolist(self) -> Any:
        return self.to("cpu").tolist()


class _Mode(TorchDispatchMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {}, self.waits)


class _Constants(TorchFunctionMode):
    """Makes tensors of Python's numbers there, which torch does without values for its own "meta"."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            if torch.device(kwargs.get("device") or "cpu") == DEVICE:
                wants = kwargs.pop("requires_grad", False)
                return Pretended(function(*args, **{**kwargs, "device": "cpu"})).requires_grad_(wants)
        elif function is Tensor.new_tensor and isinstance(args[0], Pretended):
            return Pretended(torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}))
        return function(*args, **kwargs)


def _run(function: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str]) -> Any:
    values, _ = tree_flatten((args, kwargs))
    tensors = [value for value in values if isinstance(value, Tensor)]
    pretended = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    target = kwargs.get("device")
    if not pretended and (target is None or torch.device(target) != DEVICE):
        return function(*args, **kwargs)
    name = function._schema.name.removeprefix("aten::")
    strange = [t for t in tensors if not isinstance(t, Pretended) and t.dim() > 0]
    if pretended and strange and name not in ("copy_", "_to_copy"):
        shapes = ", ".join(str(list(tensor.shape)) for tensor in strange)
        raise WrongDeviceError(f"{name}: a value of shape {shapes} is on the CPU, others are on the GPU")
    masks = [t for t in args[1] if t is not None and t.dtype == torch.bool] if name == "index" else []
    if name in WAITING or masks:
        waits[name] += 1
    real_args, real_kwargs = tree_map(lambda t: t.held if isinstance(t, Pretended) else t, (args, kwargs))
    leaves = target is not None and torch.device(target).type == "cpu"
    if leaves:
        waits["to the host"] += 1
    if target is not None and not leaves:
        real_kwargs["device"] = torch.device("cpu")
    result = function(*real_args, **real_kwargs)
    if leaves:
        return result
    if name.endswith("_") and args and isinstance(args[0], Pretended):
        return args[0]
    return tree_map(lambda t: Pretended(t) if isinstance(t, Tensor) else t, result)


class PretendedGpu:
    """What happened on the pretended device."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Make the pretended device there."""
    gpu = PretendedGpu()
    with _Constants(), _Mode(gpu.waits):
        yield gpu


def on_gpu(value: Any) -> Any:
    """Move a tensor, or a value made of tensors, to the pretended device."""
    if isinstance(value, Tensor):
        return Pretended(value.detach().clone()).requires_grad_(value.requires_grad)
    return value.map(on_gpu)


def held(value: Tensor) -> Tensor:
    """Return the values of a tensor on the pretended device."""
    assert isinstance(value, Pretended), f"{value} should be on the GPU"
    return value.held
