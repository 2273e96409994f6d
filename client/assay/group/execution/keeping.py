"""Checkpoints of a group: every member hashes its own tensors; keepers collect all of them, in the format of any run.

The state root is one tree over the tensors' roots in the program's order, whoever holds them, so it is the root of the
same run on one machine. The first `copies` members are keepers: each has a `CheckpointFolder` with the whole proof, so
that the group survives the loss of all keepers but one without a disk that everybody can reach.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.commitments import tensor, tree
from assay.group.errors import GroupMessageError, MemberFailedError
from assay.group.execution.partition import Partition
from assay.program.operator import Array, Program
from assay.training.canonical import aligned
from assay.training.checkpoint import CheckpointFolder
from assay.training.errors import CheckpointError

_TENSOR_TAG = 1_000_000
_RESTORE_TAG = 2_000_000
_COPY_TAG = 2_500_000


class Keeping:
    """One member's part in the group's checkpoints during one generation. Rank and stage number are the same.

    `repeatable`: whether a segment that is trained again, by other members, ends with the same bits.
    """

    def __init__(
        self,
        store: Store,
        generation: int,
        members: Sequence[str],
        program: Program,
        partition: Partition,
        folder: CheckpointFolder,
        copies: int,
        repeatable: bool = True,
    ) -> None:
        self.store, self.generation, self.members = store, generation, members
        self.program, self.partition, self.folder = program, partition, folder
        self.repeatable = repeatable
        self.rank = dist.get_rank()
        self.tensor_roots: list[bytes] = []
        self.stated: list[dict[int, bytes]] = []
        self.keepers = tuple(range(min(copies, len(members))))

    @property
    def is_keeper(self) -> bool:
        """Whether this member holds the whole proof."""
        return self.rank in self.keepers

    def begin(self, initial: Sequence[Array], held: Sequence[int]) -> tuple[list[bytes], dict[int, Array]]:
        """Agree on the newest checkpoint that a member has, bring the keepers up to it, and fetch the `held` tensors.

        Returns the roots of all checkpoints up to it, and the tensors by number. Afterwards `tensor_roots` are the
        roots of all tensors of the newest.
        """
        if self.is_keeper and not self.folder.entries():
            self.folder.write(0, initial)
        journal = [root.hex() for root in self._journal()]
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

    def _restore(
        self, index: int, source: int, root: bytes, initial: Sequence[Array], held: Sequence[int]
    ) -> dict[int, Array]:
        """The `held` tensors of a checkpoint, which the source has and sends to all others."""
        if index == 0:
            self.tensor_roots = [tensor.root(array) for array in initial]
            return {number: initial[number] for number in held}
        key = f"tensors/{self.generation}"
        if self.rank == source:
            state = self.folder.read(index, root)
            self.tensor_roots = [tensor.root(array) for array in state]
            self.store.set(key, json.dumps([each.hex() for each in self.tensor_roots]))
            for rank, part in enumerate(self.partition.parts):
                if rank != source:
                    self._send_all(state, sorted({*part.state, *part.copies}), rank)
            return {number: state[number] for number in held}
        self.tensor_roots = [bytes.fromhex(each) for each in json.loads(self.store.get(key))]
        tensors = self._receive(held, source)
        if tree.root(self.tensor_roots) != root or any(
            tensor.root(array) != self.tensor_roots[number] for number, array in tensors.items()
        ):
            raise GroupMessageError(
                f"{self.members[source]!r} sent other tensors than those of checkpoint {index}; exclude it"
            )
        return tensors

    def agree(self, index: int, mine: Mapping[int, bytes]) -> bytes:
        """Exchange the roots of all tensors with everybody, `mine` those that this member answers for; returns the
        state root.

        Afterwards `stated` are the roots each member gave, by rank. Raises GroupMessageError naming a member that
        gave those of other tensors than its own.
        """
        prefix = f"roots/{self.generation}/{index}"
        encoded = {str(number): root.hex() for number, root in mine.items()}
        self.store.set(f"{prefix}/{self.members[self.rank]}", json.dumps(encoded))
        self.stated = []
        for stage, name in enumerate(self.members):
            given = json.loads(self.store.get(f"{prefix}/{name}"))
            if sorted(map(int, given)) != list(self.partition.parts[stage].state):
                raise GroupMessageError(f"{name!r} hashed other tensors than the plan gives it; exclude it")
            self.stated.append({int(number): bytes.fromhex(root) for number, root in given.items()})
        return tree.root(self.agreed_roots)

    def collect(self, index: int, state: Mapping[int, Array], root: bytes) -> None:
        """Bring the tensors of an agreed checkpoint to the keepers, which compare, write and journal them.

        Raises GroupMessageError naming a member whose tensors are not what it hashed.
        """
        agreed = self.store.compare_set(f"checkpoint/{index}", "", root.hex()).decode()
        if agreed != root.hex() and not self.repeatable:
            # Of a generation that was lost before any keeper that is left had it.
            self.store.set(f"checkpoint/{index}", root.hex())
        elif agreed != root.hex():
            raise GroupMessageError(
                f"checkpoint {index} has root {root.hex()} here and {agreed} elsewhere in the group; audit the segment"
            )
        roots = self.agreed_roots
        works = []
        for keeper in self.keepers:
            if keeper != self.rank:
                works += [
                    dist.isend(bytes_of(array), dst=keeper, tag=_TENSOR_TAG + number)
                    for number, array in sorted(state.items())
                ]
        if self.is_keeper:
            whole = dict(state)
            arriving = []
            for stage, part in enumerate(self.partition.parts):
                for number in part.state if stage != self.rank else ():
                    whole[number] = aligned(self.program.state[number])
                    work = dist.irecv(bytes_of(whole[number]), src=stage, tag=_TENSOR_TAG + number)
                    arriving.append((stage, number, work))
            wait_all([work for _, _, work in arriving])
            for stage, number, _ in arriving:
                if tensor.root(whole[number]) != roots[number]:
                    raise GroupMessageError(
                        f"{self.members[stage]!r} sent another state tensor {number} than it hashed; exclude it"
                    )
            self._keep(index, [whole[number] for number in range(len(self.program.state))], root)
        wait_all(works)
        self.tensor_roots = roots

    def strayed_copies(self, index: int, held: Mapping[int, Array]) -> dict[int, Array]:
        """This member's copies of what others answer for, where they are not what the newest checkpoint has; as the
        owners have them. `held`: all tensors of this member, which gives others what strayed of theirs.

        Devices that round otherwise update copies of a parameter apart, by little in a segment. Every segment starts
        from its checkpoint for all, so nothing adds up. Raises GroupMessageError naming an owner that sends others
        than it hashed.
        """
        copies = self.partition.parts[self.rank].copies
        mine = [number for number in copies if tensor.root(held[number]) != self.tensor_roots[number]]
        prefix = f"strayed/{self.generation}/{index}"
        self.store.set(f"{prefix}/{self.members[self.rank]}", json.dumps(mine))
        owned = frozenset(self.partition.parts[self.rank].state)
        works = []
        for rank, name in enumerate(self.members):
            asked = json.loads(self.store.get(f"{prefix}/{name}")) if rank != self.rank else []
            works += [
                dist.isend(bytes_of(held[number]), dst=rank, tag=_COPY_TAG + number)
                for number in asked
                if number in owned
            ]
        found = {number: aligned(self.program.state[number]) for number in mine}
        owner = self.partition.owner
        wait_all([dist.irecv(bytes_of(a), src=owner[number], tag=_COPY_TAG + number) for number, a in found.items()])
        wait_all(works)
        for number, array in found.items():
            if tensor.root(array) != self.tensor_roots[number]:
                raise GroupMessageError(
                    f"{self.members[owner[number]]!r} sent another state tensor {number} than it hashed; exclude it"
                )
        return found

    @property
    def agreed_roots(self) -> list[bytes]:
        """The roots of all state tensors that members gave last."""
        roots = {number: root for given in self.stated for number, root in given.items()}
        return [roots[number] for number in range(len(self.program.state))]

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
        for index, root in enumerate(roots):
            key = f"checkpoint/{index}"
            # What nobody recorded was made in an earlier session of this group: record it.
            if self.store.compare_set(key, "", root.hex()).decode() != root.hex():
                return index
        return len(roots)

    def _send_all(self, state: Sequence[Array], numbers: Sequence[int], target: int) -> None:
        wait_all([dist.isend(bytes_of(state[n]), dst=target, tag=_RESTORE_TAG + n) for n in numbers])

    def _receive(self, numbers: Sequence[int], source: int) -> dict[int, Array]:
        tensors = {number: aligned(self.program.state[number]) for number in numbers}
        wait_all([dist.irecv(bytes_of(array), src=source, tag=_RESTORE_TAG + n) for n, array in tensors.items()])
        return tensors


def wait_all(works: Sequence[dist.Work | None]) -> None:
    """Wait for messages to leave or arrive."""
    for work in works:
        if work is not None:
            work.wait()


def bytes_of(array: npt.NDArray[Any]) -> torch.Tensor:
    """The memory of a contiguous array as bytes, to send or to receive into."""
    return torch.from_numpy(array.reshape(-1).view(np.uint8))
