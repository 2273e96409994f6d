"""Averaging gradients between replicas in one fixed order, so that a repeat gives the same bits.

Each member owns one share of the vector: it receives that share from all others, adds them in the order of replicas
(a left fold from replica 0, whatever arrives first), divides, and sends the result to all. Every member therefore
sends and receives 2 (D - 1) / D of the vector, which is what the placement's cost model assumes.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from assay.group.compression.error_feedback import ErrorFeedback
from assay.group.compression.quantise import row_bytes
from assay.group.pipeline.pacing import STAMP_BYTES, LinkPacer

_SHARE_TAG, _RESULT_TAG = 1_000_001, 1_000_002


class ReplicaAverage:
    """Averages a flat float32 vector of fixed length over the members of `group`; compressed when `bits` is given.

    With compression every share and every result goes through error feedback; owners send the compressed result to
    themselves as well, so that all replicas continue from the same bits.
    """

    def __init__(self, length: int, group: dist.ProcessGroup, bits: int = 0, pacer: LinkPacer | None = None) -> None:
        self.group, self._pacer = group, pacer
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self.length = length
        self.share = -(-length // self.size)
        self.bits = bits
        self.sent_bytes = 0
        self._outgoing = [ErrorFeedback(self.share, bits) for _ in range(self.size)] if bits else []
        self._result = ErrorFeedback(self.share, bits) if bits else None

    def average(self, vector: torch.Tensor) -> torch.Tensor:
        """(length,) float32 to the average over replicas, the same bits on every member."""
        if self.size == 1:
            return vector
        padded = torch.nn.functional.pad(vector.detach().cpu(), (0, self.share * self.size - self.length))
        shares = list(torch.split(padded, self.share))
        messages = [self._encode(owner, shares[owner]) for owner in range(self.size)]
        received = self._exchange(messages, _SHARE_TAG)
        received[self.rank] = messages[self.rank]
        total = self._decode(received[0])
        for replica in range(1, self.size):
            total = total + self._decode(received[replica])
        mine = total / self.size
        result = self._result.encode(mine) if self._result is not None else mine.view(torch.uint8)
        results = self._exchange([result] * self.size, _RESULT_TAG)
        results[self.rank] = result
        return torch.cat([self._decode(message) for message in results])[: self.length].to(vector.device)

    def state(self) -> dict[str, torch.Tensor]:
        """Errors still to be sent, for a checkpoint; empty without compression."""
        if self._result is None:
            return {}
        return {"outgoing": torch.stack([feedback.error for feedback in self._outgoing]), "result": self._result.error}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a checkpoint's errors."""
        if self._result is None:
            return
        for feedback, error in zip(self._outgoing, state["outgoing"], strict=True):
            feedback.error = error.clone()
        self._result.error = state["result"].clone()

    def _encode(self, owner: int, share: torch.Tensor) -> torch.Tensor:
        return self._outgoing[owner].encode(share) if self.bits else share.contiguous().view(torch.uint8)

    def _decode(self, message: torch.Tensor) -> torch.Tensor:
        return self._outgoing[0].decode(message) if self.bits else message.clone().view(torch.float32)

    def _exchange(self, messages: list[torch.Tensor], tag: int) -> list[torch.Tensor]:
        """Send `messages[peer]` to each peer and receive one from each; all in flight at once."""
        size = row_bytes(self.share, self.bits) if self.bits else 4 * self.share
        size += STAMP_BYTES if self._pacer is not None else 0
        received = [torch.empty(size, dtype=torch.uint8) for _ in range(self.size)]
        works = []
        others = [peer for peer in range(self.size) if peer != self.rank]
        for peer in others:
            works.append(dist.irecv(received[peer], group=self.group, group_src=peer, tag=tag))
        for peer in others:
            stamped = messages[peer] if self._pacer is None else self._pacer.stamp(messages[peer])
            works.append(dist.isend(stamped, group=self.group, group_dst=peer, tag=tag))
            self.sent_bytes += messages[peer].numel()
        for work in works:
            if work is not None:
                work.wait()
        if self._pacer is not None:
            for peer in others:
                received[peer] = self._pacer.release(dist.get_global_rank(self.group, peer), received[peer])
        return received
