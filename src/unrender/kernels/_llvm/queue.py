"""Dynamic scheduling of compiled loops: each thread fetches its next task from a shared counter.

numba divides iterations statically; if tasks differ, or another process occupies a core, threads then wait for each
other. Results must not depend on which thread runs a task.
"""

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic


def new_queue():
    """Return the number of threads, and their shared task counter."""
    return numba.get_num_threads(), np.zeros(1, np.int64)


@intrinsic
def next_task(typing_context, counter):
    """Return counter[0], an int64, and increment it atomically."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate
