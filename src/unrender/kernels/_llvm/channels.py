"""Vectorized loads and stores of the channels of voxels.

Loops over the channels of an array do not vectorize, since their number is unknown at compile time. Here channels are
tuples, whose length is part of the type. Grids have to be contiguous.
"""

import llvmlite.ir as ir
from numba.core import types
from numba.cpython.unsafe.tuple import tuple_setitem as tuple_setitem
from numba.extending import intrinsic

FUSED = ("contract",)


@intrinsic
def mix(typing_context, grid, rows, weights, zeros):
    """Return Σ weight · voxel over eight rows of a grid, as a tuple like `zeros`, which has a zero for each channel."""

    def generate(context, builder, signature, arguments):
        kind, total = ir.VectorType(context.get_value_type(zeros.dtype), zeros.count), None
        for pointer, weight in _corners(context, builder, signature, arguments, kind):
            part = builder.fmul(builder.load(pointer, align=zeros.dtype.bitwidth // 8), weight, flags=FUSED)
            total = part if total is None else builder.fadd(total, part, flags=FUSED)
        mixed = ir.Constant(context.get_value_type(zeros), ir.Undefined)
        for c in range(zeros.count):
            mixed = builder.insert_value(mixed, builder.extract_element(total, _number(c)), c)
        return mixed

    return zeros(grid, rows, weights, zeros), generate


@intrinsic
def add(typing_context, grid, rows, weights, values):
    """Add weight · values to eight rows of a grid, one after another."""

    def generate(context, builder, signature, arguments):
        kind, align = (
            ir.VectorType(context.get_value_type(values.dtype), values.count),
            values.dtype.bitwidth // 8,
        )
        added = ir.Constant(kind, ir.Undefined)
        for c in range(values.count):
            added = builder.insert_element(added, builder.extract_value(arguments[3], c), _number(c))
        for pointer, weight in _corners(context, builder, signature, arguments, kind):
            part = builder.fmul(added, weight, flags=FUSED)
            builder.store(
                builder.fadd(builder.load(pointer, align=align), part, flags=FUSED), pointer, align=align
            )
        return context.get_dummy_value()

    return types.void(grid, rows, weights, values), generate


def _corners(context, builder, signature, arguments, kind):
    """Yield the address of each row, and its weight in all lanes of a vector."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    for i in range(len(signature.args[1])):
        row = builder.extract_value(arguments[1], i)
        pointer = builder.gep(data, [builder.mul(row, ir.Constant(row.type, kind.count))])
        empty = ir.Constant(kind, ir.Undefined)
        weight = builder.insert_element(empty, builder.extract_value(arguments[2], i), _number(0))
        yield builder.bitcast(pointer, kind.as_pointer()), builder.shuffle_vector(weight, empty, lanes)


def _number(value):
    return ir.Constant(ir.IntType(32), value)
