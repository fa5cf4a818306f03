"""Register-blocked products of small matrices.

Emitted as LLVM vector instructions: loops over arrays compile to code that loads and stores a number every few
products, at a third of the speed.
"""

import llvmlite.binding
import llvmlite.ir as ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

_host = llvmlite.binding.get_host_cpu_features()
_features = _host.flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES  # NUMBA_CPU_FEATURES
_WIDE = "+avx512f" in _features.split(
    ","
)  # 32 registers of 64 bytes; elsewhere at least 16 of 32 bytes, or 32 of 16
VECTOR_BYTES = 64 if _WIDE else 32
COLUMNS = 3
"""Vectors of points per block."""
ROWS = 8 if _WIDE else 4
"""Outputs per block of `multiply`."""
LEFT, RIGHT = (4, 6) if _WIDE else (4, 2)
"""Rows of both operands per block of `correlate`."""
FUSED = ("contract",)


class _Memory:
    """An array that is loaded and stored at offsets in elements."""

    def __init__(self, context, builder, array_type, value):
        self.builder = builder
        self.scalar = context.get_value_type(array_type.dtype)
        self.lanes = VECTOR_BYTES * 8 // array_type.dtype.bitwidth
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.align = array_type.dtype.bitwidth // 8  # vectors may start at any element
        self.data = context.make_array(array_type)(context, builder, value).data

    def _pointer(self, offset, kind):
        return self.builder.bitcast(self.builder.gep(self.data, [offset]), kind.as_pointer())

    def load(self, offset, kind=None):
        return self.builder.load(self._pointer(offset, kind or self.vector), align=self.align)

    def store(self, value, offset):
        self.builder.store(value, self._pointer(offset, value.type), align=self.align)

    def broadcast(self, offset):
        """Load one element into all lanes."""
        return _broadcast(self.builder, self.load(offset, self.scalar), self.vector)


def _broadcast(builder, number, vector):
    empty = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, empty, mask)


def _sums(builder, kind, count):
    """Create `count` zero-initialized accumulators, which the compiler keeps in registers."""
    zero = ir.Constant(kind, [0.0] * kind.count)
    accumulators = [cgutils.alloca_once(builder, kind) for _ in range(count)]
    for accumulator in accumulators:
        builder.store(zero, accumulator)
    return accumulators


def _add_product(builder, accumulator, left, right):
    total = builder.fadd(builder.load(accumulator), builder.fmul(left, right, flags=FUSED), flags=FUSED)
    builder.store(total, accumulator)


@intrinsic
def multiply(typing_context, left, left_at, right, right_at, pitch, depth, minimum, product, product_at):
    """Compute a block of max(`left` · `right`, `minimum`): ROWS rows, COLUMNS vectors of points.

    `left` is packed: ROWS numbers for each of `depth` rows of `right`. Rows of `right` and `product` have the stride
    `pitch`.
    """

    def generate(context, builder, signature, arguments):
        left, left_at, right, right_at, pitch, depth, minimum, product, product_at = arguments
        left, right, product = (
            _Memory(context, builder, signature.args[i], value) for i, value in ((0, left), (2, right), (7, product))
        )  # fmt: skip
        step = [context.get_constant(types.intp, column * right.lanes) for column in range(COLUMNS)]
        sums = _sums(builder, right.vector, ROWS * COLUMNS)
        with cgutils.for_range(builder, depth) as loop:
            row = builder.add(right_at, builder.mul(loop.index, pitch))
            points = [right.load(builder.add(row, s)) for s in step]
            packed = builder.add(left_at, builder.mul(loop.index, context.get_constant(types.intp, ROWS)))
            for r in range(ROWS):
                weight = left.broadcast(builder.add(packed, context.get_constant(types.intp, r)))
                for column in range(COLUMNS):
                    _add_product(builder, sums[r * COLUMNS + column], weight, points[column])
        floor = _broadcast(builder, minimum, right.vector)
        for r in range(ROWS):
            row = builder.add(product_at, builder.mul(pitch, context.get_constant(types.intp, r)))
            for column in range(COLUMNS):
                value = builder.load(sums[r * COLUMNS + column])
                value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
                product.store(value, builder.add(row, step[column]))
        return context.get_dummy_value()

    real, size = left.dtype, types.intp
    return types.void(left, size, right, size, size, size, real, product, size), generate


@intrinsic
def correlate(typing_context, left, left_at, right, right_at, pitch, count, total, total_at):
    """Add Σ_points left[a] · right[b] to LEFT × RIGHT contiguous numbers of `total`.

    Rows have the stride `pitch`; the sum is over `count` points, a multiple of the number of lanes.
    """

    def generate(context, builder, signature, arguments):
        left, left_at, right, right_at, pitch, count, total, total_at = arguments
        left, right, total = (
            _Memory(context, builder, signature.args[i], value) for i, value in ((0, left), (2, right), (6, total))
        )  # fmt: skip
        row = [builder.mul(pitch, context.get_constant(types.intp, r)) for r in range(max(LEFT, RIGHT))]
        sums = _sums(builder, left.vector, LEFT * RIGHT)
        lanes = context.get_constant(types.intp, left.lanes)
        with cgutils.for_range(builder, builder.sdiv(count, lanes)) as loop:
            step = builder.mul(loop.index, lanes)
            first, second = builder.add(left_at, step), builder.add(right_at, step)
            others = [right.load(builder.add(second, row[b])) for b in range(RIGHT)]
            for a in range(LEFT):
                one = left.load(builder.add(first, row[a]))
                for b in range(RIGHT):
                    _add_product(builder, sums[a * RIGHT + b], one, others[b])
        _add_lanes(context, builder, [builder.load(accumulator) for accumulator in sums], total, total_at)
        return context.get_dummy_value()

    size = types.intp
    return types.void(left, size, right, size, size, size, total, size), generate


def _add_lanes(context, builder, vectors, total, total_at):
    """Add the horizontal sum of each vector to one number, eight vectors (or four) at a time."""
    group = min(8, vectors[0].type.count)
    for start in range(0, len(vectors), group):
        rows = vectors[start : start + group]
        while len(rows) > 1:
            rows = [_halve(builder, a, b) for a, b in zip(rows[::2], rows[1::2], strict=True)]
        (sums,) = rows
        while sums.type.count > group:
            sums = _halve(builder, sums, None)
        offset = builder.add(total_at, context.get_constant(types.intp, start))
        total.store(builder.fadd(total.load(offset, sums.type), sums), offset)


def _halve(builder, first, second):
    """Add neighboring lanes; the results of `first` come before those of `second`."""
    lanes = first.type.count * (1 if second is None else 2)
    second = ir.Constant(first.type, ir.Undefined) if second is None else second
    kind = ir.VectorType(ir.IntType(32), lanes // 2)
    even, odd = (
        builder.shuffle_vector(first, second, ir.Constant(kind, list(range(k, lanes, 2)))) for k in (0, 1)
    )
    return builder.fadd(even, odd)
