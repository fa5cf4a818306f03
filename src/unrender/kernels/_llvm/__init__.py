"""All that emits LLVM or leans on numba's internals, which may change with a version of numba.

Elsewhere kernels use what `numba` itself exports. `tests/kernels/test_llvm.py` runs everything here by itself.
"""
