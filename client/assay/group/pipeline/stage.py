"""torch's pipeline stage with encoded messages at its boundaries. All use of torch's private hooks is in this file.

Overridden (torch.distributed.pipelining.stage, checked against the versions in `TESTED_TORCH`): `get_fwd_recv_ops`,
`get_fwd_send_ops`, `get_bwd_recv_ops`, `get_bwd_send_ops`, `forward_one_chunk`, `backward_one_chunk`; read:
`fwd_cache`, `bwd_cache`, `args_recv_info`, `grad_recv_info`. The schedules are torch's own.

Receives of a whole step are posted before it begins, each under its own tag. Over gloo a send starts only when the peer
has announced its receive, so a receive posted on demand would cost a round trip of a slow link for every message.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage

from assay.group.compression.boundary import BoundaryCodec
from assay.group.errors import CompressionError
from assay.group.pipeline.pacing import STAMP_BYTES, LinkPacer

TESTED_TORCH = ("2.13",)

FORWARD, BACKWARD = "forward", "backward"


@dataclass
class WireCount:
    """Bytes and messages this member sent over its stage boundaries, by direction, and what float32 would have been."""

    sent: dict[str, int] = field(default_factory=lambda: {FORWARD: 0, BACKWARD: 0})
    uncompressed: dict[str, int] = field(default_factory=lambda: {FORWARD: 0, BACKWARD: 0})
    messages: int = 0


# Called with (direction, micro-batch, "sent" or "received", message) for every boundary message.
MessageObserver = Callable[[str, int, str, torch.Tensor], None]


class CompressedStage(PipelineStage):
    """A stage whose neighbours receive what a codec makes of its tensors. Boundaries carry one float32 tensor.

    `before`: this end of the boundary to the previous stage; `after`: to the next one; None at the pipeline's ends.
    Call `begin_step` before every step of the schedule.
    """

    def __init__(
        self,
        module: nn.Module,
        index: int,
        stages: int,
        microbatch: int,
        example_input: torch.Tensor,
        example_output: torch.Tensor,
        before: BoundaryCodec | None,
        after: BoundaryCodec | None,
        group: dist.ProcessGroup,
        device: torch.device,
        observer: MessageObserver | None = None,
        pacer: LinkPacer | None = None,
    ) -> None:
        # Static shapes: no exchange of pickled metadata with peers before the first step.
        super().__init__(
            module, index, stages, device, input_args=example_input, output_args=example_output, group=group
        )
        self._before, self._after = before, after
        self._microbatch = microbatch
        self._observer = observer
        self._pacer = pacer
        self._samples: list[torch.Tensor] = []
        self._arriving: dict[tuple[str, int], tuple[torch.Tensor, dist.Work]] = {}
        self.wire = WireCount()
        self.waited_seconds = 0.0

    def begin_step(self, samples: torch.Tensor, backward: bool = True) -> None:
        """Announce a step's sample numbers, (micro-batches * micro-batch size,), and post all its receives."""
        self._samples = list(torch.split(samples, self._microbatch))
        for codec in (self._before, self._after):
            if codec is not None:
                codec.begin_step(samples)
        for chunk, numbers in enumerate(self._samples):
            if self._before is not None:
                self._post(FORWARD, chunk, self._before.forward_bytes(numbers), self.group_rank - 1)
        for chunk, numbers in enumerate(self._samples):
            if self._after is not None and backward:
                self._post(BACKWARD, chunk, self._after.backward_bytes(numbers.numel()), self.group_rank + 1)

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        """Nothing to post: `begin_step` did."""
        return []

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """Nothing to post: `begin_step` did."""
        return []

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        """Wait for the chunk's message, decode it into the stage's input, run the stage."""
        if self._before is not None:
            message = self._arrived(FORWARD, fwd_chunk_id)
            values = self._before.decode_forward(message, self._samples[fwd_chunk_id])
            # A new leaf for this step's graph; the base class asks it for gradients.
            self.args_recv_info[fwd_chunk_id][0].buffer = values.to(self.device)
        return super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)

    def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> None:
        """Wait for the gradients of the chunk's output, decode them, run the stage's backward pass."""
        if self._after is not None and self.has_backward:
            message = self._arrived(BACKWARD, bwd_chunk_id)
            values = self._after.decode_backward(message, self._samples[bwd_chunk_id].numel())
            self.grad_recv_info[bwd_chunk_id][0].buffer = values.to(self.device)
        super().backward_one_chunk(bwd_chunk_id, *args, **kwargs)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        """Encode the chunk's activations for the next stage."""
        if self._after is None:
            return []
        outputs = self.fwd_cache[fwd_chunk_id][0]
        message = self._after.encode_forward(_only(outputs), self._samples[fwd_chunk_id])
        return [self._send(FORWARD, fwd_chunk_id, message, outputs[0].numel(), self.group_rank + 1)]

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """Encode the gradients of the chunk's input for the previous stage."""
        if self._before is None or not self.has_backward:
            return []
        gradients = self.bwd_cache.pop(bwd_chunk_id)
        message = self._before.encode_backward(_only(gradients))
        return [self._send(BACKWARD, bwd_chunk_id, message, _only(gradients).numel(), self.group_rank - 1)]

    def _post(self, direction: str, chunk: int, size: int, peer: int) -> None:
        size += STAMP_BYTES if self._pacer is not None else 0
        buffer = torch.empty(size, dtype=torch.uint8)  # gloo's messages lie in the processor's memory on any device
        work = dist.irecv(buffer, group=self.group, group_src=peer, tag=_tag(direction, chunk))
        if work is None:
            raise CompressionError("this process is not in its pipeline's group; build the group from the plan")
        self._arriving[direction, chunk] = (buffer, work)

    def _arrived(self, direction: str, chunk: int) -> torch.Tensor:
        if (direction, chunk) not in self._arriving:
            raise CompressionError(f"no {direction} receive was posted for micro-batch {chunk}; call begin_step first")
        buffer, work = self._arriving.pop((direction, chunk))
        started = time.monotonic()
        work.wait()
        if self._pacer is not None:
            peer = self.group_rank + (1 if direction == BACKWARD else -1)
            buffer = self._pacer.release(dist.get_global_rank(self._process_group(), peer), buffer)
        self.waited_seconds += time.monotonic() - started
        if self._observer is not None:
            self._observer(direction, chunk, "received", buffer)
        return buffer

    def _process_group(self) -> dist.ProcessGroup:
        if self.group is None:
            raise CompressionError("a stage needs its pipeline's process group; build it with PipelineWorker")
        return self.group

    def _send(self, direction: str, chunk: int, message: torch.Tensor, values: int, peer: int) -> dist.P2POp:
        self.wire.sent[direction] += message.numel()
        self.wire.uncompressed[direction] += 4 * values
        self.wire.messages += 1
        if self._observer is not None:
            self._observer(direction, chunk, "sent", message)
        if self._pacer is not None:
            message = self._pacer.stamp(message)
        return dist.P2POp(dist.isend, message.cpu(), group=self.group, tag=_tag(direction, chunk), group_peer=peer)


def _tag(direction: str, chunk: int) -> int:
    """Messages of one step differ in direction and chunk; steps follow each other in order on every link.

    Tag 0 is torch's own: its schedules talk before the first step.
    """
    return 1 + 2 * chunk + (direction == BACKWARD)


def _only(tensors: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
    if len(tensors) != 1 or tensors[0] is None:
        raise CompressionError(
            f"a stage boundary carries one tensor that needs gradients, this stage has {len(tensors)}; cut the model "
            "where a single tensor passes"
        )
    return tensors[0]
