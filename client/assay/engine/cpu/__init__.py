"""Kernels of the canonical arithmetic `binary32-1` for CPUs.

Every kernel computes each output element as one strictly sequential fold, so its bits depend neither on the number of
threads nor on the vector width. Modules: `isa` (vector width, threads), `vector` (LLVM building blocks), `launch`
(compiling, caching and running kernels), `tile` and `packing` (inner loops), `matmul`, `convolution`, and `loops`
(kernels generated for folds and elementwise chains).
"""
