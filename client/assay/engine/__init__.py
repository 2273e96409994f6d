"""Execution of programs: the canonical arithmetic at speed, and PyTorch's own kernels."""
