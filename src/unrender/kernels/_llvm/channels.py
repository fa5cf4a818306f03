"""The channels of voxels, read and written side by side.

Loops over the channels of an array are not compiled to vectors, for the compiler does not know how many there are. Here
they come as a tuple, which says so; grids lie in memory without gaps.
"""

import llvmlite.ir as ir
from numba.core import types
from numba.cpython.unsafe.tuple import tuple_setitem as tuple_setitem
from numba.extending import intrinsic

FUSED = ("contract",)


@intrinsic
def mix(typing_context, grid, rows, shares, nothing):
    """Return Σ share · voxel over eight rows of a grid, as a tuple like `nothing`, a zero for each channel."""

    def generate(context, builder, signature, arguments):
        kind, total = ir.VectorType(context.get_value_type(nothing.dtype), nothing.count), None
        for place, share in _corners(context, builder, signature, arguments, kind):
            part = builder.fmul(builder.load(place, align=nothing.dtype.bitwidth // 8), share, flags=FUSED)
            total = part if total is None else builder.fadd(total, part, flags=FUSED)
        mixed = ir.Constant(context.get_value_type(nothing), ir.Undefined)
        for c in range(nothing.count):
            mixed = builder.insert_value(mixed, builder.extract_element(total, _number(c)), c)
        return mixed

    return nothing(grid, rows, shares, nothing), generate


@intrinsic
def add(typing_context, grid, rows, shares, values):
    """Add share · values to eight rows of a grid, one after another."""

    def generate(context, builder, signature, arguments):
        kind, align = (
            ir.VectorType(context.get_value_type(values.dtype), values.count),
            values.dtype.bitwidth // 8,
        )
        added = ir.Constant(kind, ir.Undefined)
        for c in range(values.count):
            added = builder.insert_element(added, builder.extract_value(arguments[3], c), _number(c))
        for place, share in _corners(context, builder, signature, arguments, kind):
            part = builder.fmul(added, share, flags=FUSED)
            builder.store(
                builder.fadd(builder.load(place, align=align), part, flags=FUSED), place, align=align
            )
        return context.get_dummy_value()

    return types.void(grid, rows, shares, values), generate


def _corners(context, builder, signature, arguments, kind):
    """Give where each row lies, and its share in every lane of a vector."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    for i in range(len(signature.args[1])):
        row = builder.extract_value(arguments[1], i)
        place = builder.gep(data, [builder.mul(row, ir.Constant(row.type, kind.count))])
        empty = ir.Constant(kind, ir.Undefined)
        share = builder.insert_element(empty, builder.extract_value(arguments[2], i), _number(0))
        yield builder.bitcast(place, kind.as_pointer()), builder.shuffle_vector(share, empty, lanes)


def _number(value):
    return ir.Constant(ir.IntType(32), value)
