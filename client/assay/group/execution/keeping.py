"""Checkpoints of a group: every member hashes its own tensors; keepers collect all of them, in the format of any run.

The state root is one tree over the tensors' roots in the program's order, whoever holds them, so it is the root of the
same run on one machine. The first `copies` members are keepers: each has a `CheckpointFolder` with the whole proof, so
that the group survives the loss of all keepers but one without a disk that everybody can reach.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.commitments import tensor, tree
from assay.engine.device import contiguous
from assay.group.errors import GroupMessageError, MemberFailedError
from assay.group.execution.partition import Partition
from assay.program.operator import Array, Program
from assay.training.canonical import aligned
from assay.training.checkpoint import CheckpointFolder

_TENSOR_TAG = 1_000_000
_RESTORE_TAG = 2_000_000


class Keeping:
    """One member's part in the group's checkpoints during one generation. Rank and stage number are the same."""

    def __init__(
        self,
        store: Store,
        generation: int,
        members: Sequence[str],
        program: Program,
        partition: Partition,
        folder: CheckpointFolder,
        copies: int,
    ) -> None:
        self.store, self.generation, self.members = store, generation, members
        self.program, self.partition, self.folder = program, partition, folder
        self.rank = dist.get_rank()
        self.keepers = tuple(range(min(copies, len(members))))

    @property
    def is_keeper(self) -> bool:
        """Whether this member holds the whole proof."""
        return self.rank in self.keepers

    def begin(self, initial: Sequence[Array], held: Sequence[int]) -> tuple[list[bytes], dict[int, Array]]:
        """Agree on the newest checkpoint that a member has, bring the keepers up to it, and fetch the `held` tensors.

        Returns the roots of all checkpoints up to it, and the tensors by number.
        """
        if self.is_keeper and not self.folder.entries():
            self.folder.write(0, initial)
        journal = [entry.root.hex() for entry in self.folder.entries()]
        self.store.set(f"journal/{self.generation}/{self.members[self.rank]}", json.dumps(journal))
        journals = [
            [bytes.fromhex(root) for root in json.loads(self.store.get(f"journal/{self.generation}/{name}"))]
            for name in self.members
        ]
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
        return roots, self._restore(index, source, roots[index], initial, held)

    def checkpoint(self, index: int, state: Mapping[int, Array]) -> bytes:
        """Hash this member's tensors, collect everybody's roots, and bring the keepers the tensors.

        Returns the state root, the same on every member. Raises GroupMessageError naming a member whose tensors are
        not what it said.
        """
        mine = {number: tensor.root(array) for number, array in state.items()}
        prefix = f"roots/{self.generation}/{index}"
        encoded = {str(number): root.hex() for number, root in mine.items()}
        self.store.set(f"{prefix}/{self.members[self.rank]}", json.dumps(encoded))
        roots: dict[int, bytes] = {}
        for stage, name in enumerate(self.members):
            given = json.loads(self.store.get(f"{prefix}/{name}"))
            if sorted(map(int, given)) != list(self.partition.parts[stage].state):
                raise GroupMessageError(f"{name!r} hashed other tensors than the plan gives it; exclude it")
            roots.update((int(number), bytes.fromhex(root)) for number, root in given.items())
        root = tree.root([roots[number] for number in range(len(self.program.state))])
        agreed = self.store.compare_set(f"checkpoint/{index}", "", root.hex()).decode()
        if agreed != root.hex():
            raise GroupMessageError(
                f"checkpoint {index} has root {root.hex()} here and {agreed} elsewhere in the group; audit the segment"
            )
        self._collect(index, state, roots, root)
        return root

    def _collect(self, index: int, state: Mapping[int, Array], roots: Mapping[int, bytes], root: bytes) -> None:
        """Bring all tensors to the keepers, which compare, write and journal them."""
        works = []
        for keeper in self.keepers:
            if keeper != self.rank:
                works += [
                    dist.isend(_bytes_of(array), dst=keeper, tag=_TENSOR_TAG + number)
                    for number, array in sorted(state.items())
                ]
        if self.is_keeper:
            whole = dict(state)
            arriving = []
            for stage, part in enumerate(self.partition.parts):
                for number in part.state if stage != self.rank else ():
                    whole[number] = aligned(self.program.state[number])
                    work = dist.irecv(_bytes_of(whole[number]), src=stage, tag=_TENSOR_TAG + number)
                    arriving.append((stage, number, work))
            for _, _, work in arriving:
                if work is not None:
                    work.wait()
            for stage, number, _ in arriving:
                if tensor.root(whole[number]) != roots[number]:
                    raise GroupMessageError(
                        f"{self.members[stage]!r} sent another state tensor {number} than it hashed; exclude it"
                    )
            self._keep(index, [whole[number] for number in range(len(self.program.state))], root)
        for work in works:
            if work is not None:
                work.wait()

    def _keep(self, index: int, state: Sequence[Array], root: bytes) -> None:
        written = self.folder.write(index, state)
        if written != root:
            raise MemberFailedError(f"checkpoint {index} has root {written.hex()} on disk, not {root.hex()}")

    def _agreed_length(self, roots: Sequence[bytes]) -> int:
        """How many checkpoints of a journal are those that the group agreed on; the rest is not trusted."""
        for index, root in enumerate(roots):
            key = f"checkpoint/{index}"
            # What nobody recorded was made in an earlier session of this group: record it.
            if self.store.compare_set(key, "", root.hex()).decode() != root.hex():
                return index
        return len(roots)

    def _restore(
        self, index: int, source: int, root: bytes, initial: Sequence[Array], held: Sequence[int]
    ) -> dict[int, Array]:
        if index == 0:
            return {number: initial[number] for number in held}
        wanted = [set(part.state) | set(part.copies) for part in self.partition.parts]
        if self.rank != source:
            return self._receive(held, source)
        state = self.folder.read(index, root)
        for rank, numbers in enumerate(wanted):
            if rank != source:
                self._send_all(state, sorted(numbers), rank)
        return {number: state[number] for number in held}

    def _send_all(self, state: Sequence[Array], numbers: Sequence[int], target: int) -> None:
        works = [dist.isend(_bytes_of(state[number]), dst=target, tag=_RESTORE_TAG + number) for number in numbers]
        for work in works:
            if work is not None:
                work.wait()

    def _receive(self, numbers: Sequence[int], source: int) -> dict[int, Array]:
        tensors = {number: aligned(self.program.state[number]) for number in numbers}
        works = [
            dist.irecv(_bytes_of(array), src=source, tag=_RESTORE_TAG + number) for number, array in tensors.items()
        ]
        for work in works:
            if work is not None:
                work.wait()
        return tensors


def _bytes_of(array: Array) -> torch.Tensor:
    """The memory of a contiguous array as bytes."""
    return torch.from_numpy(contiguous(array).reshape(-1).view(np.uint8))
