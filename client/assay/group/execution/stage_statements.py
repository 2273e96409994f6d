"""What members of a group sign about their stages in a segment, before they learn whether it is audited.

Each member states what it sent (the roots of its link tables) and signs, as the group's contract takes it (EIP-712):
"this program, over this data, from this state, ended in that one", of its stage as a program (`stage_program`); of a
tolerant task, "over this data, which say what I sent and how I ended", of the program that checks its stage
(`native.checking`). All of it follows from what everybody knows: the plan, the agreed states before and after the
segment, and what the senders stated. So everybody checks everybody's signature by hashing a few hashes, and accepts no
segment without all of them; whether a statement is *true* an audit finds out, and a court decides
(contracts/StageClaims.sol).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from torch._C._distributed_c10d import Store

from assay.commitments import tensor, tree
from assay.group.errors import GroupMessageError
from assay.group.execution.engines import StageEngine
from assay.group.execution.link_tables import LinkRecorder, empty_roots
from assay.group.execution.partition import Partition
from assay.group.execution.stage_program import Link, SegmentRoots, StageProgram
from assay.market.group_agreement import sign_statement, statement_signer
from assay.market.types import StageWork
from assay.training.task import TrainingTask

NOBODY = "0x" + 40 * "0"
"""The group's account where there is none on a chain: statements are signed and checked all the same."""


@dataclass(frozen=True)
class SignedStage:
    """What a member signed, with its signature, and the roots of the tables that it says it sent."""

    work: StageWork
    signature: bytes
    sent: Mapping[Link, bytes]


@dataclass(frozen=True)
class Signer:
    """Who signs, and for which group: task, chain, the group's account, the member's key and everybody's accounts.

    `record_seconds`: for how long a statement can be taken to court, and its member keeps what it needs to defend it;
    `clock_offset`: by how many seconds the chain's clock is ahead of this machine's.
    """

    task: int
    chain_id: int
    group: str
    private_key: str
    addresses: Mapping[str, str]
    record_seconds: int
    clock_offset: float = 0.0

    @property
    def now(self) -> float:
        """The time on the chain, as far as it is known here."""
        return time.time() + self.clock_offset

    @property
    def until(self) -> int:
        """The last second, on the chain's clock, in which what is signed now can be taken to court."""
        return int(self.now) + self.record_seconds

    def sign(self, work: StageWork) -> bytes:
        """The own signature (EIP-712, in the group's name) under a statement."""
        return sign_statement(work.statement(self.task), self.chain_id, work.group, Account.from_key(self.private_key))

    def check(self, work: StageWork, signature: bytes, name: str, what: str) -> None:
        """Raise GroupMessageError, naming the member and `what` it signed for, unless it signed this statement, for as
        long as was agreed."""
        if work.until < self.now + self.record_seconds / 2:
            raise GroupMessageError(
                f"{name!r} answers for {what} {work.segment} until {work.until} only, {self.record_seconds} seconds "
                "were agreed: set its clock right, or exclude it"
            )
        address = self.addresses[name]
        if statement_signer(work.statement(self.task), self.chain_id, work.group, signature) != address:
            raise GroupMessageError(
                f"what {name!r} signed about {what} {work.segment} is not what was agreed and sent, or not signed by "
                f"{address}; exclude the member"
            )

    @staticmethod
    def of(keys: Mapping[str, Any]) -> Signer:
        """Out of a session's orders."""
        return Signer(
            int(keys["task"]), int(keys.get("chain_id", 0)), str(keys.get("group") or NOBODY), keys["private_key"],
            keys["addresses"], int(keys.get("record_seconds", 86400)), float(keys.get("clock_offset", 0.0)),
        )  # fmt: skip


def read_signed(content: bytes, links: Sequence[Link], name: str) -> tuple[int, bytes, dict[Link, bytes]]:
    """What a member left of its statement: until when it stands, its signature, and the roots (32 bytes each) of the
    tables of `links` that it says it sent. Raises GroupMessageError where nothing of it can be read."""
    try:
        document = json.loads(content)
        until, signature = int(document["until"]), bytes.fromhex(document["signature"])
        sent = {link: bytes.fromhex(document["sent"][link.name]) for link in links}
        if not 0 <= until < 1 << 40 or any(len(root) != tree.HASH_BYTES for root in sent.values()):
            raise ValueError(f"a root or a time is out of range in {str(document)[:200]}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GroupMessageError(f"{name!r} signed nothing that can be read ({error}); exclude it") from error
    return until, signature, sent


class StageStatements:
    """One member's part in the statements of one generation. Stages and members have the same numbers.

    Its `recorder` has to see all messages of a segment.
    """

    def __init__(
        self, store: Store, signer: Signer, task: TrainingTask, engine: StageEngine, divided: Partition,
        members: Sequence[str], stage: int, generation: int,
    ) -> None:  # fmt: skip
        self.store, self.signer, self.task, self.members = store, signer, task, members
        self.stage, self.generation = stage, generation
        self.programs = [engine.stage_program(divided, number) for number in range(len(members))]
        own = self.programs[stage]
        self.recorder = LinkRecorder((*own.received, *own.sent), task.interval)
        self._data_roots = [tensor.root(part) for part in task.data]
        links = [link for made in self.programs for link in made.sent]
        self._empty = dict(zip(links, empty_roots(links, task.interval), strict=True))

    def state(
        self, segment: int, start_roots: Sequence[bytes], ends: Mapping[int, bytes],
        keep: Callable[[SignedStage], None],
    ) -> None:  # fmt: skip
        """Sign for the own stage and hand it to everybody, after `keep` has put what defends it on disk.

        `start_roots`: the agreed roots of all state tensors; `ends`: those of the tensors held here, after the segment.
        """
        own, roots = self.programs[self.stage], self.recorder.roots()
        until = self.signer.until
        work = self._work(own, segment, until, start_roots, ends, roots)
        signed = SignedStage(work, self.signer.sign(work), {link: roots[link] for link in own.sent})
        keep(signed)
        document = {
            "until": until,
            "sent": {link.name: root.hex() for link, root in signed.sent.items()},
            "signature": signed.signature.hex(),
        }
        self.store.set(self._key(segment, self.members[self.stage]), json.dumps(document))
        # Nobody shows a state, from which it follows whether the segment is audited, before all have signed.
        self.store.wait([self._key(segment, name) for name in self.members])

    def check(
        self, segment: int, start_roots: Sequence[bytes], end_roots: Sequence[bytes]
    ) -> tuple[SignedStage, ...]:  # fmt: skip
        """What all members signed. `start_roots`, `end_roots`: of all state tensors, as agreed.

        Raises GroupMessageError naming a member that signed something else than follows, or sent something else than
        it states.
        """
        given = [self._given(segment, number) for number in range(len(self.members))]
        tables = {link: root for _, _, sent in given for link, root in sent.items()}
        arrived = self.recorder.roots()
        for link in self.programs[self.stage].received:
            if tables[link] != arrived[link]:
                raise GroupMessageError(
                    f"{self.members[link.sender]!r} states that it sent {link.name} with root {tables[link].hex()[:16]}"
                    f", what arrived has root {arrived[link].hex()[:16]}; one of both is wrong, train the segment again"
                )
        ends, found = dict(enumerate(end_roots)), []
        for program, name, (until, signature, sent) in zip(self.programs, self.members, given, strict=True):
            work = self._work(program, segment, until, start_roots, ends, tables)
            self.signer.check(work, signature, name, "its stage in segment")
            found.append(SignedStage(work, signature, sent))
        return tuple(found)

    def _work(
        self, made: StageProgram, segment: int, until: int, start_roots: Sequence[bytes], ends: Mapping[int, bytes],
        tables: Mapping[Link, bytes],
    ) -> StageWork:  # fmt: skip
        """What a member signs about its stage, out of what everybody knows of it."""
        known = SegmentRoots(self._data_roots, start_roots, ends, tables, self._empty)
        return StageWork(self.signer.group, self.generation, segment, until, made.root, *made.roots(known))

    def _given(self, segment: int, stage: int) -> tuple[int, bytes, dict[Link, bytes]]:
        name = self.members[stage]
        return read_signed(self.store.get(self._key(segment, name)), self.programs[stage].sent, name)

    def _key(self, segment: int, name: str) -> str:
        return f"stage/{self.generation}/{segment}/{name}"
