"""Bit operations."""

from numba.core import types
from numba.extending import intrinsic


@intrinsic
def float_from_bits(typing_context, bits):
    """Reinterpret 32 bits as a float."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@intrinsic
def count_ones(typing_context, bits):
    """Return the number of set bits of 64 (popcount)."""
    return types.uint64(types.uint64), lambda context, builder, signature, values: builder.ctpop(values[0])
