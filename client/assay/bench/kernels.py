"""Honest kernels that differ: on the processor thread counts, products with and without oneDNN, products of tf32 as a
GPU makes them; on a GPU its own, with and without cuDNN.

On one machine these stand for other makes of hardware: each adds in another order or rounds at other places. Vector
widths can be set for a whole process, outside: `ATEN_CPU_CAPABILITY=default`, `ONEDNN_MAX_CPU_ISA=SSE41`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from assay.engine.native.precision import PRODUCTS
from assay.program.sections import Precision

_TF32_DROPPED = 13  # of binary32's 23 fraction bits tf32 keeps 10
_ATTENTION_BACKWARD = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
_ATTENTION_READ = 4  # gradient, query, key and value are factors; the output and the logarithms of sums are not


@dataclass(frozen=True)
class Kernels:
    """One way to compute the same training step; `precision` None is the declared one."""

    name: str
    threads: int = 1
    onednn: bool = True
    precision: Precision | None = None
    device: str = "cpu"
    cudnn: bool = True


HONEST: tuple[Kernels, ...] = (
    Kernels("1 thread"),
    Kernels("2 threads", threads=2),
    Kernels("without oneDNN", onednn=False),
    Kernels("fp32 whatever is declared", precision=Precision.FP32),
)

HONEST_ON_CUDA: tuple[Kernels, ...] = (
    Kernels("GPU", device="cuda"),
    Kernels("GPU without cuDNN", device="cuda", cudnn=False),
    Kernels("GPU, fp32 whatever is declared", precision=Precision.FP32, device="cuda"),
)


def honest_kernels(device: str) -> tuple[Kernels, ...]:
    """The kernels of honest runs on a device ("cpu" or "cuda")."""
    return HONEST_ON_CUDA if device == "cuda" else HONEST


@contextmanager
def chosen(kernels: Kernels, declared: Precision) -> Iterator[Precision]:
    """PyTorch set to some kernels; gives the precision to train at."""
    precision = declared if kernels.precision is None else kernels.precision
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn.enabled
    torch.set_num_threads(kernels.threads)
    try:
        torch.backends.cudnn.enabled = kernels.cudnn
        with ExitStack() as stack:
            stack.enter_context(torch.backends.mkldnn.flags(enabled=kernels.onednn))
            if precision is Precision.TF32 and kernels.device == "cpu":  # a GPU has such products
                stack.enter_context(Tf32Products())  # type: ignore[no-untyped-call]
            yield precision
    finally:
        torch.backends.cudnn.enabled = cudnn
        torch.set_num_threads(before)


class Tf32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What products read is rounded to tf32 (nearest, ties to even), and they add in binary32, as tensor cores do.

    Inside the fused attention kernel the probabilities stay in binary32. A convolution's bias gradient is a sum, and
    no product.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if str(func).removesuffix(".default") not in PRODUCTS:
            return func(*args, **(kwargs or {}))
        read = len(args) if str(func) != _ATTENTION_BACKWARD else _ATTENTION_READ
        result = func(*(rounded_to_tf32(argument) for argument in args[:read]), *args[read:], **(kwargs or {}))
        if str(func) == "aten.convolution_backward.default" and result[2] is not None:
            gradient = args[0]
            return (*result[:2], gradient.sum([0, *range(2, gradient.dim())]))
        return result


def rounded_to_tf32(value: Any) -> Any:
    """A float32 tensor with 10 bits of fraction, strides kept; anything else as it is."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    bits = value.view(torch.int32)
    half = (1 << (_TF32_DROPPED - 1)) - 1
    bits = (bits + half + ((bits >> _TF32_DROPPED) & 1)) & ~((1 << _TF32_DROPPED) - 1)
    return bits.view(torch.float32)
