"""Work shared among the threads of a compiled loop: each takes the next piece when it is done with one.

numba gives every thread an equal share beforehand; where pieces differ, or another program holds a core, one thread
then waits for the other. Which thread does a piece must not matter to the result.
"""

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic


def new_queue():
    """Return how many threads there are, and the counter that they share."""
    return numba.get_num_threads(), np.zeros(1, np.int64)


@intrinsic
def take(typing_context, counter):
    """Return counter[0], an int64, and raise it by one, as one step for all threads."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate
