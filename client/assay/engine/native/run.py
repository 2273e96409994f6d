"""Native training: the traced graph executed with PyTorch's own kernels, as fast as the user's own loop.

The graph is compiled once into a flat list of calls on numbered slots: views of the state are made once, every value is
let go after its last use, and the optimizer changes the state in place through PyTorch's fused kernels. Nothing is
generated or evaluated as code: calls are looked up by name, and only those the lowering knows exist.

Batches and dropout are the canonical run's own, bit for bit; everything else is as reproducible as the kernels are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from assay.engine.native.compiler import Compiler
from assay.engine.native.memory import Memory
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.sections import Precision


class NativeRun:
    """A native training run: `load` a state, `advance` through global steps, read `loss` and `copy_state`.

    `data` are the graph's data tensors (float32 or int32); they are moved to the device whole. Raises `GraphError` for
    data of other types or shapes, and for a graph that calls what is not allowed.
    """

    def __init__(
        self,
        graph: Graph,
        data: Sequence[Array],
        seed: int,
        device: str | torch.device = "cpu",
        precision: Precision = Precision.FP32,
    ) -> None:
        self._memory = Memory(graph, data, seed, torch.device(device), precision)
        self._calls = Compiler(graph, self._memory).compile()

    def load(self, state: Sequence[Array]) -> None:
        """Take a state (arrays in the graph's order) as the current one; the arrays are copied."""
        self._memory.load(state)

    def advance(self, number: int) -> None:
        """Execute global step `number` on the current state."""
        memory = self._memory
        memory.step = number
        environment = memory.environment
        with native_settings(memory.precision, memory.device):
            for call in self._calls:
                call(environment)

    def loss(self) -> float | None:
        """The loss of the step just executed (waits for the device)."""
        return None if self._memory.loss is None else float(self._memory.loss)

    def copy_state(self) -> list[Array]:
        """A copy of the current state as arrays, in the graph's order."""
        return [tensor.detach().cpu().numpy().copy() for tensor in self._memory.state]


@contextlib.contextmanager
def native_settings(precision: Precision, device: torch.device) -> Iterator[None]:
    """No autograd, and on CUDA tf32 products exactly where the precision says so."""
    with torch.no_grad() if device.type == "cuda" else torch.inference_mode(), tf32_products(precision, device):
        yield


@contextlib.contextmanager
def tf32_products(precision: Precision, device: torch.device) -> Iterator[None]:
    """On CUDA, tf32 products and convolutions exactly where the precision says so."""
    if device.type != "cuda":
        yield
        return
    tf32 = precision is not Precision.FP32
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
