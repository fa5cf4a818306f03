"""What emits LLVM or leans on numba's internals, each by itself: says whether a version of numba will do."""

import gc
import math

import numba
import numpy as np
import pytest

from unrender.kernels._llvm import bits, blocks, channels, compilation, exponential, prefetch, queue

kinds = pytest.mark.parametrize("kind", [np.float32, np.float64])


def random(kind, *shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(kind)


def test_bits():
    @numba.njit
    def read(number, mask):
        return bits.float_from_bits(number), bits.count_ones(mask)

    assert read(np.int32(0x40490FDB), np.uint64(0xF0F0)) == (np.float32(math.pi), 8)
    assert read(np.int32(0), np.uint64(2**64 - 1)) == (0, 64)


@kinds
def test_exponentials(kind):
    @numba.njit(error_model="numpy")
    def tabulate(x, found):
        for i in range(len(x)):
            taken, left = exponential.absorb(abs(x[i]))
            between = abs(x[i]) / x.dtype.type(100)
            found[i, 0], found[i, 1], found[i, 2] = exponential.exp(x[i]), taken, left
            found[i, 3], found[i, 4] = exponential.log1p(between), exponential.safe_exp(x[i])

    x = np.linspace(-86, 86, 173).astype(kind)
    found = np.empty((len(x), 5), kind)
    tabulate(x, found)
    exact = x.astype(float)
    expected = [
        np.exp(exact),
        -np.expm1(-abs(exact)),
        np.exp(-abs(exact)),
        np.log1p(abs(exact) / 100),
        np.exp(exact),
    ]
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-6 if kind == np.float32 else 1e-14)


def test_a_queue_gives_each_number_to_one_thread():
    @numba.njit(parallel=True)
    def count(counter, taken):
        for _ in numba.prange(len(taken)):
            taken[queue.next_task(counter)] += 1

    threads, counter = queue.new_queue()
    taken = np.zeros(1000, np.int64)
    count(counter, taken)
    assert threads == numba.get_num_threads()
    assert counter[0] == len(taken)
    assert (taken == 1).all()


@kinds
def test_memory_asked_for_early_stays_as_it_is(kind):
    @numba.njit
    def ask(values):
        for i in range(len(values)):
            prefetch.prefetch(values, np.uint64(i))

    values = random(kind, 100)
    before = values.copy()
    ask(values)
    assert np.array_equal(values, before)


@kinds
def test_channels_go_side_by_side(kind):
    @numba.njit
    def mix_and_add(grid, rows, shares, nothing, to_grid):
        mixed = channels.mix(grid, rows, shares, nothing)
        channels.add(to_grid, rows, shares, channels.tuple_setitem(mixed, 1, grid.dtype.type(7)))
        return mixed

    grid, shares = random(kind, 2, 3, 4, 3), tuple(random(kind, 8))
    rows, to_grid = (0, 5, 23, 7, 7, 1, 2, 11), np.zeros_like(grid)
    mixed = mix_and_add(grid, rows, shares, (kind(0),) * 3, to_grid)
    flat, expected = grid.reshape(-1, 3), np.zeros((24, 3), kind)
    np.testing.assert_allclose(mixed, sum(s * flat[r] for r, s in zip(rows, shares, strict=True)), rtol=1e-5)
    for row, share in zip(rows, shares, strict=True):
        expected[row] += share * np.array([mixed[0], 7, mixed[2]], kind)
    np.testing.assert_allclose(to_grid.reshape(-1, 3), expected, rtol=1e-5, atol=1e-6)


@kinds
def test_products_of_blocks(kind):
    @numba.njit
    def multiply(left, right, pitch, depth, least, product):
        blocks.multiply(left, 0, right, 0, pitch, depth, least, product, 0)

    @numba.njit
    def correlate(left, right, pitch, count, total):
        blocks.correlate(left, 0, right, 0, pitch, count, total, 0)

    lanes = blocks.VECTOR_BYTES // np.dtype(kind).itemsize
    width, depth = blocks.COLUMNS * lanes, 5
    left, right, product = (
        random(kind, depth, blocks.ROWS),
        random(kind, depth, width),
        np.empty((blocks.ROWS, width), kind),
    )
    multiply(left.ravel(), right.ravel(), width, depth, kind(-0.5), product.ravel())
    np.testing.assert_allclose(product, np.maximum(left.T @ right, kind(-0.5)), rtol=1e-4, atol=1e-5)
    one, other = random(kind, blocks.LEFT, width), random(kind, blocks.RIGHT, width)
    total = random(kind, blocks.LEFT, blocks.RIGHT)
    expected = total + one @ other.T
    correlate(one.ravel(), other.ravel(), width, width, total.ravel())
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-5)


def test_compilations_are_seen():
    seen = []
    compilation.on_compilation(lambda: seen.append(1))
    numba.njit(lambda x: x + 1)(1)
    assert seen


def test_garbage_collection_is_paused_during_compilation():
    enabled = []
    compilation.pause_garbage_collection()
    compilation.on_compilation(lambda: enabled.append(gc.isenabled()))
    numba.njit(lambda x: x + 1)(1)
    assert enabled == [False]
    assert gc.isenabled()
    with pytest.raises(numba.TypingError):
        numba.njit(lambda x: x + "1")(1)
    assert gc.isenabled()
