"""A numba intrinsic that prefetches memory."""

import llvmlite.ir as ir
from numba.core import types
from numba.extending import intrinsic


@intrinsic
def prefetch(typing_context, values, index):
    """Prefetch values[index] for writing."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(function, [address, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(values, types.uint64), generate
