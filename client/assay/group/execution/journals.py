"""What members of a group have of its checkpoints, and bringing all that keep them to the newest that any of them has.

A `CheckpointFolder` of a keeper holds the whole proof, in the format of any run, so that the group survives the loss of
all keepers but one without a disk that everybody can reach.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.commitments import tree
from assay.group.errors import GroupMessageError, MemberFailedError
from assay.program.operator import Array, Program
from assay.training.canonical import aligned
from assay.training.checkpoint import CheckpointFolder
from assay.training.errors import CheckpointError

_RESTORE_TAG = 2_000_000

TRAINED = "trained"
"""Key at the meeting place: a segment has been trained since it was opened."""


class Journals:
    """One member's part in the group's checkpoints during one generation: the first `copies` members are keepers."""

    def __init__(
        self, store: Store, generation: int, members: Sequence[str], program: Program, folder: CheckpointFolder,
        copies: int,
    ) -> None:  # fmt: skip
        self.store, self.generation, self.members = store, generation, members
        self.program, self.folder = program, folder
        self.rank = dist.get_rank()
        self.keepers = tuple(range(min(copies, len(members))))

    @property
    def is_keeper(self) -> bool:
        """Whether this member holds the whole proof."""
        return self.rank in self.keepers

    def catch_up(self, initial: Sequence[Array]) -> tuple[list[bytes], int]:
        """Agree on the newest checkpoint that a member has, and bring the keepers up to it.

        Returns the roots of all checkpoints up to it, and the rank of a member that has it.
        """
        if self.is_keeper and not self.folder.entries():
            self.folder.write(0, initial)
        journal = [root.hex() for root in self._journal()]
        self.store.set(f"journal/{self.generation}/{self.members[self.rank]}", json.dumps(journal))
        journals = []
        for name in self.members:
            content = self.store.get(f"journal/{self.generation}/{name}")
            with readable(name, "journal"):
                journals.append([root_of(text) for text in json.loads(content)])
        lengths = [self._agreed_length(roots) for roots in journals]
        source = max(range(len(journals)), key=lambda rank: (lengths[rank], -rank))
        roots = journals[source][: lengths[source]]
        index = len(roots) - 1
        for keeper in self.keepers:
            for missing in range(lengths[keeper], index + 1):
                if self.rank == source:
                    self._send_all(self.folder.read(missing, roots[missing]), range(len(self.program.state)), keeper)
                elif self.rank == keeper:
                    state = self._receive(range(len(self.program.state)), source)
                    self._keep(missing, [state[number] for number in range(len(state))], roots[missing])
        return roots, source

    def _keep(self, index: int, state: Sequence[Array], root: bytes) -> None:
        written = self.folder.write(index, state)
        if written != root:
            raise MemberFailedError(f"checkpoint {index} has root {written.hex()} on disk, not {root.hex()}")

    def _journal(self) -> list[bytes]:
        """Roots of the checkpoints on this member's disk, up to the newest that can still be read."""
        roots = [entry.root for entry in self.folder.entries()]
        while len(roots) > 1:
            try:
                self.folder.read(len(roots) - 1, roots[-1])
            except CheckpointError:
                roots.pop()
            else:
                break
        return roots

    def _agreed_length(self, roots: Sequence[bytes]) -> int:
        """How many checkpoints of a journal are those that the group agreed on; the rest is not trusted."""
        is_new = not self.store.check([TRAINED])
        for index, root in enumerate(roots):
            key = f"checkpoint/{index}"
            # What nobody recorded before anything was trained at this meeting place was made in an earlier session of
            # this group: record it. Afterwards all are told of a checkpoint before anybody keeps it.
            if is_new:
                recorded = self.store.compare_set(key, "", root.hex())
            else:
                recorded = self.store.get(key) if self.store.check([key]) else b""
            if recorded.decode() != root.hex():
                return index
        return len(roots)

    def _send_all(self, state: Sequence[Array], numbers: Sequence[int], target: int) -> None:
        wait_all([dist.isend(bytes_of(state[n]), dst=target, tag=_RESTORE_TAG + n) for n in numbers])

    def _receive(self, numbers: Sequence[int], source: int) -> dict[int, Array]:
        tensors = {number: aligned(self.program.state[number]) for number in numbers}
        wait_all([dist.irecv(bytes_of(array), src=source, tag=_RESTORE_TAG + n) for n, array in tensors.items()])
        return tensors


@contextmanager
def readable(name: str, what: str) -> Iterator[None]:
    """Raises GroupMessageError naming a member where what it left for the others is not what it should be."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GroupMessageError(f"{name!r} left no {what} that can be read ({error!r}); exclude it") from error


def root_of(text: str) -> bytes:
    """A root out of its hexadecimal digits. Raises ValueError or TypeError where it is none."""
    root = bytes.fromhex(text)
    if len(root) != tree.HASH_BYTES:
        raise ValueError(f"a root has {tree.HASH_BYTES} bytes, not {len(root)}")
    return root


def wait_all(works: Sequence[dist.Work | None]) -> None:
    """Wait for messages to leave or arrive."""
    for work in works:
        if work is not None:
            work.wait()


def bytes_of(array: npt.NDArray[Any]) -> torch.Tensor:
    """The memory of a contiguous array as bytes, to send or to receive into."""
    return torch.from_numpy(array.reshape(-1).view(np.uint8))
