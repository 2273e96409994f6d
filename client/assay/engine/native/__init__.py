"""Native training: PyTorch's own kernels on the recorded graph."""
