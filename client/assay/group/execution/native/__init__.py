"""A group's step in PyTorch's own kernels: the recorded graph of a tolerant task, divided among members."""
