"""Where native training runs."""

from __future__ import annotations

from typing import ClassVar

import torch

from assay.errors import AssayError


class DeviceError(AssayError):
    """A device was asked for that this machine does not have."""

    code: ClassVar[str] = "device"


def native_device(wanted: str) -> str:
    """`wanted` is auto, cpu or cuda; returns cpu or cuda, for auto the GPU where there is one."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "compute.device is cuda, and PyTorch finds no CUDA device: set it to auto or cpu, or see `assay doctor`"
        )
    return wanted
