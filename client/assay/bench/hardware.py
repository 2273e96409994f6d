"""The device that a benchmark trains on."""

from __future__ import annotations

import torch

from assay.errors import MissingDependencyError

CPU = "cpu"


def hardware_of(device: str) -> str:
    """What a device ("cpu" or "cuda") is: `cpu`, or the GPU's name. Raises MissingDependencyError without one."""
    if device != "cuda":
        return CPU
    if not torch.cuda.is_available():
        raise MissingDependencyError(
            f"PyTorch {torch.__version__} finds no CUDA device: install the driver and a CUDA build of PyTorch, "
            "or leave --device out; see `assay doctor`"
        )
    return torch.cuda.get_device_name()


def wait_for(device: str) -> None:
    """Return when all that was asked of a device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
