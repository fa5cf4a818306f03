"""Code that emits LLVM or relies on numba's internals, which may change between versions of numba.

All other kernels use the public interface of numba. `tests/kernels/test_llvm.py` tests each part on its own.
"""
