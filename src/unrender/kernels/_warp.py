"""Infrastructure of the NVIDIA Warp kernels: instances by precision, launches on torch's stream, fixed-point sums.

Kernels are compiled when first launched, once on each machine: Warp caches them in the folder it reads from
``WARP_CACHE_PATH`` when it is initialized (default: the user's cache folder). The variable must not
change afterwards, or loaded and new modules come from different folders. Processes may share it. Where that folder
cannot be written to, each process compiles into one of its own.

On the CPU device, which tests use, the same source runs in one thread. Launches need contiguous tensors, on one
device, of the kernel's types; arrays of n axes take a tensor whose first axes are collapsed. Nothing here waits for the
device, so that launches can be captured in a CUDA graph; a kernel's first launch compiles it, and comes before.
"""

import atexit
import functools
import logging
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import warp as wp
from torch import Tensor

from unrender.errors import KernelError

wp.config.log_level = wp.LOG_WARNING
wp.config.enable_backward = False  # gradients are written by hand


def initialize() -> None:
    """Initialize Warp, with a temporary cache if its own cannot be written to."""
    try:
        wp.init()
        is_writable = os.access(wp.config.kernel_cache_dir, os.W_OK | os.X_OK)
    except OSError:  # the folder cannot be created
        is_writable = False
    if is_writable:
        return
    logging.getLogger("unrender").warning(
        "no writable folder for compiled GPU kernels: every process compiles its own; set WARP_CACHE_PATH to one"
    )
    wp.config.kernel_cache_dir = tempfile.mkdtemp(prefix="unrender-warp-")
    atexit.register(shutil.rmtree, wp.config.kernel_cache_dir, ignore_errors=True)
    wp.init()


initialize()

TORCH_TYPES = {
    wp.float16: torch.float16,
    wp.float32: torch.float32,
    wp.float64: torch.float64,
    wp.int8: torch.int8,
    wp.uint8: torch.uint8,
    wp.int16: torch.int16,
    wp.int32: torch.int32,
    wp.int64: torch.int64,
    wp.bool: torch.bool,
}
_descriptor = type(wp.from_torch(torch.empty(1), return_ctype=True))
_compile_lock = threading.RLock()
_streams: dict[tuple[int | None, int], Any] = {}


class Precision:
    """Warp types of one precision, for which kernels are instantiated."""

    def __init__(self, name: str, dtype: torch.dtype, exact: bool) -> None:
        self.scalar = wp.float64 if dtype == torch.float64 else wp.float32
        self.vec2, self.vec3, self.vec4 = (wp.types.vector(n, self.scalar) for n in (2, 3, 4))
        self.module = wp.get_module(f"unrender.{name}")
        self.module.options |= {"enable_backward": False, "fuse_fp": not exact}

    def kernel(self, function: Callable[..., None]) -> Any:
        """Make a Warp kernel of a function, in the module of this precision."""
        return wp.kernel(function, enable_backward=False, module=self.module)


Instance = Callable[..., SimpleNamespace]


def per_precision(name: str, *, exact: bool = False) -> Callable[[Instance], Instance]:
    """Decorate a function that defines kernels, so that they are defined once for each precision, when first used.

    The function takes a `Precision`, the decorated one a torch dtype; both may take further constants, such as a number
    of axes. Each instance is one Warp module. `exact` forbids fused multiply-adds, where swapping terms must give the
    same result or its exact opposite.
    """

    def decorate(define: Instance) -> Instance:
        @functools.cache
        def instance(dtype: torch.dtype, *constants: int) -> SimpleNamespace:
            full_name = ".".join((name, str(dtype).split(".")[-1], *map(str, constants)))
            with _compile_lock:
                return define(Precision(full_name, dtype, exact), *constants)

        return instance

    return decorate


@functools.cache
def _log_once() -> None:
    logging.getLogger("unrender").info("loading GPU kernels: compiled once on each machine, then cached")


class _Recorded:
    """A launch of one kernel on one device, whose arguments are replaced before each use."""

    def __init__(self, kernel: Any, device: torch.device) -> None:
        where = "cpu" if device.type == "cpu" else f"cuda:{device.index}"
        if device.type == "cuda":
            _log_once()
        with _compile_lock:
            self.command = wp.Launch(kernel, wp.get_device(where))
        self.device = device
        self.size: int | tuple[int, ...] | None = None
        self.slots = [_slot(self.command, i, argument, device) for i, argument in enumerate(kernel.adj.args)]
        self.key = kernel.key

    def __call__(self, size: int | tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        if len(arguments) != len(self.slots):
            raise TypeError(f"{self.key} takes {len(self.slots)} arguments, got {len(arguments)}")
        for put, argument in zip(self.slots, arguments, strict=True):
            put(argument)
        if size != self.size:
            self.command.set_dim(size)
            self.size = size
        self.command.launch(_stream(self.device) if self.device.type == "cuda" else None)


def _slot(command: Any, index: int, argument: Any, device: torch.device) -> Callable[[Any], None]:
    """Return a function that sets an argument of a recorded launch."""
    if isinstance(argument.type, wp.array):
        array = _ArraySlot(argument.type, argument.label, device)
        command.set_param_at_index_from_ctype(index, array.descriptor)
        return array.put
    python = int if issubclass(argument.type, (wp.int32, wp.int64, wp.bool)) else float
    last: list[Any] = [None]

    def put(value: Any) -> None:
        if value != last[0]:
            command.set_param_at_index_from_ctype(index, python(value))
            last[0] = value

    return put


class _ArraySlot:
    """An array argument: its descriptor is reused; usually only the address changes."""

    def __init__(self, kind: Any, label: str, device: torch.device) -> None:
        self.inner = len(getattr(kind.dtype, "_shape_", ()))
        scalar = getattr(kind.dtype, "_wp_scalar_type_", kind.dtype)
        self.dtype, self.width = TORCH_TYPES[scalar], math.prod(getattr(kind.dtype, "_shape_", ()))
        self.axes, self.label, self.device = kind.ndim, label, device
        self.descriptor = _descriptor(0, 0, kind.ndim, (0,) * kind.ndim, (0,) * kind.ndim)
        self.shape: torch.Size | None = None

    def put(self, tensor: Tensor | None) -> None:
        """Describe a tensor; None is an array without memory."""
        if tensor is None:
            self.descriptor.data, self.shape = 0, None
            for i in range(self.axes):
                self.descriptor.shape[i] = 0
            return
        if tensor.dtype != self.dtype or tensor.device != self.device or not tensor.is_contiguous():
            raise TypeError(
                f"`{self.label}` should be contiguous {self.dtype} on {self.device}, "
                f"got {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}, strides {tensor.stride()}"
            )
        if tensor.shape != self.shape:
            self._describe(tensor.shape)
        self.descriptor.data = tensor.data_ptr()

    def _describe(self, shape: torch.Size) -> None:
        count, step = math.prod(shape) // self.width, self.dtype.itemsize * self.width
        last = len(shape) - self.inner
        rest = tuple(shape[last - self.axes + 1 : last]) if self.axes > 1 else ()
        axes = (count // max(math.prod(rest), 1), *rest)
        strides = [step * math.prod(axes[i + 1 :]) for i in range(self.axes)]
        if max(axes) >= 2**31 or strides[0] >= 2**31:
            raise KernelError(f"`{self.label}` is too large for one launch: {tuple(shape)}")
        for i, (length, stride) in enumerate(zip(axes, strides, strict=True)):
            self.descriptor.shape[i], self.descriptor.strides[i] = length, stride
        self.shape = shape


class _ThreadCommands(threading.local):
    """Recorded launches of one thread: their arguments are changed in place."""

    def __init__(self) -> None:
        self.commands: dict[tuple[Any, torch.device], _Recorded] = {}


_recorded = _ThreadCommands()


def launch(kernel: Any, size: int | tuple[int, ...], *arguments: Tensor | float | None) -> None:
    """Launch a kernel on torch's current stream of the device of its first tensor; do nothing if `size` is 0.

    None stands for an empty array.
    """
    if (size if isinstance(size, int) else math.prod(size)) == 0:
        return
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    commands = _recorded.commands
    command = commands.get((kernel, device))
    if command is None:
        command = commands[kernel, device] = _Recorded(kernel, device)
    command(size, arguments)


def _stream(device: torch.device) -> Any:
    handle = torch._C._cuda_getCurrentRawStream(device.index)  # without creating a stream object
    found = _streams.get((device.index, handle))
    if found is None:
        found = _streams[device.index, handle] = wp.Stream(f"cuda:{device.index}", cuda_stream=handle)
    return found


# Fixed-point sums over colliding writes. Sums of floating-point numbers depend on the order of the additions, which
# varies on a GPU; sums of integers do not. A sum of up to `count` terms is stored as an integer multiple of a power of
# two, the unit, chosen on the device from the largest term so that the sum fits into 62 bits. Nothing overflows, and
# each term is rounded by at most half a unit, 2^(log2 count − 61) of the largest term. If a term is NaN or infinite,
# the whole result is NaN.

INFINITE = wp.constant(wp.int64(0x7FF0000000000000))


@wp.func
def size_bits(term: wp.float64) -> wp.int64:
    """Return |term| as an integer with the same ordering; NaN is the largest."""
    return wp.cast(term, wp.int64) & wp.int64(0x7FFFFFFFFFFFFFFF)


@wp.func
def record_term(term: wp.float64, max_term: wp.array(dtype=wp.int64)) -> None:
    """Raise `max_term` [1], initially 0, to the magnitude of a term."""
    bits = size_bits(term)
    if bits > max_term[0]:  # rarely true: most terms need no atomic operation
        wp.atomic_max(max_term, 0, bits)


@wp.func
def unit_exponent(max_term: wp.int64, count_log2: int) -> int:
    """Return the exponent of the unit for terms up to `max_term` and 2^count_log2 of them."""
    exponent = int(max_term >> wp.int64(52)) - 1022
    return wp.max(exponent + count_log2 - 62, -1020)  # type: ignore[no-any-return]


@wp.func
def power_of_two(exponent: int) -> wp.float64:
    """Return 2^exponent, for −1022 to 1023, exactly."""
    return wp.cast(wp.int64(exponent + 1023) << wp.int64(52), wp.float64)


@wp.func
def in_units(term: wp.float64, exponent: int) -> wp.int64:
    """Round a term to units; 0 if it is not finite, which `from_units` detects by `max_term`."""
    if size_bits(term) >= INFINITE:
        return wp.int64(0)
    return wp.int64(wp.rint(term * power_of_two(-exponent)))


@wp.func
def from_units(total: wp.int64, max_term: wp.int64, exponent: int) -> wp.float64:
    """Turn a sum of units into a number; NaN where a term was NaN or infinite."""
    if max_term >= INFINITE:
        return wp.cast(wp.int64(0x7FF8000000000000), wp.float64)
    return wp.float64(total) * power_of_two(exponent)


def count_log2(count: int) -> int:
    """Return the base-2 logarithm of a number of terms, rounded up."""
    return max(count - 1, 0).bit_length()
