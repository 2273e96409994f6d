"""Checkpoints of a group: every member hashes its own tensors; keepers collect all of them, in the format of any run.

The state root is one tree over the tensors' roots in the program's order, whoever holds them, so it is the root of the
same run on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.commitments import tensor, tree
from assay.group.errors import GroupMessageError
from assay.group.execution.journals import TRAINED, Journals, bytes_of, readable, root_of, wait_all
from assay.group.execution.partition import Partition
from assay.program.operator import Array, Program
from assay.training.canonical import aligned
from assay.training.checkpoint import CheckpointFolder

_TENSOR_TAG = 1_000_000
_COPY_TAG = 2_500_000


class Keeping(Journals):
    """One member's part in the checkpoints of a group that is divided into stages. Ranks are the stages' numbers."""

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
        super().__init__(store, generation, members, program, folder, copies)
        self.partition = partition
        self.tensor_roots: list[bytes] = []
        self.stated: list[dict[int, bytes]] = []

    def begin(self, initial: Sequence[Array], held: Sequence[int]) -> tuple[list[bytes], dict[int, Array]]:
        """Agree on the newest checkpoint that a member has, bring the keepers up to it, and fetch the `held` tensors.

        Returns the roots of all checkpoints up to it, and the tensors by number. Afterwards `tensor_roots` are the
        roots of all tensors of the newest.
        """
        roots, source = self.catch_up(initial)
        return roots, self._restore(len(roots) - 1, source, roots[-1], initial, held)

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
        content = self.store.get(key)
        with readable(self.members[source], "roots of tensors"):
            self.tensor_roots = [root_of(text) for text in json.loads(content)]
        tensors = self._receive(held, source)
        if (
            len(self.tensor_roots) != len(initial)
            or tree.root(self.tensor_roots) != root
            or any(tensor.root(array) != self.tensor_roots[number] for number, array in tensors.items())
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
            content = self.store.get(f"{prefix}/{name}")
            with readable(name, "roots"):
                given = {int(number): root_of(root) for number, root in json.loads(content).items()}
            if sorted(given) != list(self.partition.parts[stage].state):
                raise GroupMessageError(f"{name!r} hashed other tensors than the plan gives it; exclude it")
            self.stated.append(given)
        return tree.root(self.agreed_roots)

    def collect(self, index: int, state: Mapping[int, Array], root: bytes) -> None:
        """Bring the tensors of an agreed checkpoint to the keepers, which compare, write and journal them.

        Raises GroupMessageError naming a member whose tensors are not what it hashed.
        """
        agreed = self.store.compare_set(f"agreed/{self.generation}/{index}", "", root.hex()).decode()
        if agreed != root.hex():
            raise GroupMessageError(
                f"checkpoint {index} has root {root.hex()} here and {agreed} elsewhere in the group; audit the segment"
            )
        # Of a generation that was lost before any keeper that is left had it there may be another.
        self.store.set(f"checkpoint/{index}", root.hex())
        self.store.set(TRAINED, "trained")
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
            content = self.store.get(f"{prefix}/{name}") if rank != self.rank else b"[]"
            with readable(name, "list of copies"):
                asked = [int(number) for number in json.loads(content)]
                if len(set(asked)) != len(asked):
                    raise ValueError("a copy is asked for twice")
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
