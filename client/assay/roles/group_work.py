"""What the owners of a group's segments sign, how members give it to each other, and whom they have charged with it.

An agreement can say who answers for which segment. When training is done, each owner replays one of its segments and
signs for all of them (EIP-712, contracts/FORMAT.md): this segment, from this state, ended in that one. Whoever signed
for the segment that failed the task is charged before all others (Group.sol), so everybody keeps what others signed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eth_account.signers.local import LocalAccount

from assay.chain.sender import Call
from assay.commitments import tree
from assay.market.errors import GroupAgreementError
from assay.market.group_agreement import Statement, sign_statement, statement_signer, work_subject
from assay.market.groups import GroupContract
from assay.market.records import LineRecord, RoundRecord, TaskRecord
from assay.market.types import ClaimKind, ReplayLeaf
from assay.market.view import MarketView
from assay.roles.subjects import hashed, is_at_most_one
from assay.training.checkpoint import write_synced

POLL_SECONDS = 0.1


class Board(Protocol):
    """Where members leave things for each other: `torch.distributed`'s store is one."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True)
class Duty:
    """Who answers for what in a group: `accounts` of the members in the order of the agreement, `owners` their places
    for the segments in turn (nobody answers where it is empty)."""

    chain_id: int
    group: str
    accounts: tuple[str, ...]
    owners: tuple[int, ...]

    @property
    def owner_accounts(self) -> tuple[str, ...]:
        """The accounts that answer for the segments in turn."""
        return tuple(self.accounts[place] for place in self.owners)

    def owner_of(self, segment: int) -> str | None:
        """The account that answers for a segment."""
        return self.owner_accounts[segment % len(self.owners)] if self.owners else None

    def segments_of(self, account: str, segments: int) -> list[int]:
        """The segments that an account answers for."""
        return [segment for segment in range(segments) if self.owner_of(segment) == account]


def statement_of(task: int, segment: int, roots: Sequence[bytes]) -> Statement:
    """What an owner says about a segment: where it began and ended."""
    return Statement(task, 0, work_subject(segment, roots[segment]), roots[segment + 1])


def sign_segments(
    duty: Duty, task: int, segments: Sequence[int], roots: Sequence[bytes], signer: LocalAccount
) -> dict[int, bytes]:
    """An owner's signatures, by segment."""
    return {
        segment: sign_statement(statement_of(task, segment, roots), duty.chain_id, duty.group, signer)
        for segment in segments
    }


@dataclass(frozen=True)
class SignedWork:
    """A proof's roots, and what owners signed about its segments, by segment."""

    roots: tuple[bytes, ...]
    signatures: Mapping[int, bytes]

    def opened(self, segment: int) -> tuple[Any, ...]:
        """A segment's statement as the contract takes it, with its place in the proof (`Work`)."""
        levels = tree.levels(self.roots)
        start, end = self.roots[segment], self.roots[segment + 1]
        return 0, start, tree.proof_of(levels, segment), end, tree.proof_of(levels, segment + 1)

    def write(self, path: Path) -> None:
        """Put it on disk, atomically."""
        document = {
            "roots": [root.hex() for root in self.roots],
            "signatures": {str(segment): signature.hex() for segment, signature in sorted(self.signatures.items())},
        }
        write_synced(path, json.dumps(document) + "\n")

    @staticmethod
    def read(path: Path) -> SignedWork | None:
        """Read what `write` wrote; None where there is nothing. Raises `GroupAgreementError` where it is damaged."""
        if not path.exists():
            return None
        try:
            document = json.loads(path.read_text())
            roots = tuple(bytes.fromhex(root) for root in document["roots"])
            signatures = {int(segment): bytes.fromhex(text) for segment, text in document["signatures"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GroupAgreementError(f"{path} does not hold what members signed ({error}): copy another's") from error
        return SignedWork(roots, signatures)


def exchange(
    board: Board, duty: Duty, task: int, mine: Mapping[int, bytes], roots: Sequence[bytes], account: str,
    expected: Sequence[str], limit_seconds: float,
) -> SignedWork:  # fmt: skip
    """Leave the own signatures on the board and take those of the accounts `expected` to be here.

    Only signatures that are right are kept; whoever left none within the limit is missing.
    """
    segments = len(roots) - 1
    kept = dict(mine)
    board.set(_key(task, account), json.dumps({str(segment): text.hex() for segment, text in mine.items()}))
    ends = time.monotonic() + limit_seconds
    for other in expected:
        wanted = duty.segments_of(other, segments)
        if other == account or not wanted:
            continue
        while not board.check([_key(task, other)]) and time.monotonic() < ends:
            time.sleep(POLL_SECONDS)
        given = _signatures(board.get(_key(task, other))) if board.check([_key(task, other)]) else {}
        for segment in wanted:
            statement = statement_of(task, segment, roots)
            if statement_signer(statement, duty.chain_id, duty.group, given.get(segment, b"")) == other:
                kept[segment] = given[segment]
    return SignedWork(tuple(roots), kept)


def _key(task: int, account: str) -> str:
    return f"work/{task:x}/{account}"


def _signatures(content: bytes) -> dict[int, bytes]:
    """What a member left; nothing where it is malformed."""
    try:
        return {int(segment): bytes.fromhex(text) for segment, text in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


# ---- Having owners charged ------------------------------------------------------------------------------------------

Charge = Callable[[tuple[Any, ...], bytes], Call]


def charges(view: MarketView, group: GroupContract, task: TaskRecord, work: SignedWork) -> Iterator[tuple[int, Call]]:
    """The calls that charge the owners of the segments that failed a task, by segment, where they have signed."""
    for segment, charge in failures(view, group, task, work.roots):
        signature = work.signatures.get(segment)
        if signature is not None:
            yield segment, charge(work.opened(segment), signature)


def failures(
    view: MarketView, group: GroupContract, task: TaskRecord, roots: Sequence[bytes]
) -> Iterator[tuple[int, Charge]]:
    """The segments that a task failed by, with the call that says so."""
    for case in view.claims.cases.values():
        claim = view.claims.opened.get(case.claim_id)
        is_on_training = claim is not None and claim.kind is ClaimKind.TRAINING
        if case.task_id == task.id and case.challenger_won and is_on_training:
            yield case.leaf - 1, group.blame_case
    for number in task.accusations:
        line = view.claims.lines[number]
        if line.segment is not None and not line.has_fallen:
            yield line.segment, _accused(group, line)
    for found in view.rounds_of(task.id):
        standing = view.claims.lines.get(found.id)
        if found.is_profile or standing is None or standing.passes or standing.has_fallen:
            continue
        leaves = standing.leaves.get(standing.root, ())
        for place, (segment, leaf) in enumerate(zip(found.segments, leaves, strict=False)):
            if isinstance(leaf, ReplayLeaf) and _fails(leaf, roots[segment + 1], task.posting.exact):
                yield segment, _in_round(group, found, standing, place)


def _fails(leaf: ReplayLeaf, checkpoint: bytes, exact: bool) -> bool:
    return leaf.end != checkpoint and (exact or not is_at_most_one(leaf.distance))


def _accused(group: GroupContract, line: LineRecord) -> Charge:
    segment = line.segment
    assert segment is not None
    return lambda work, signature: group.blame_accusation(segment, line.claimant, work, signature)


def _in_round(group: GroupContract, found: RoundRecord, line: LineRecord, place: int) -> Charge:
    leaves = line.leaves[line.root]
    levels = tree.levels([leaf.leaf() for leaf in hashed(leaves, found.segments)])
    leaf, proof = leaves[place], tree.proof_of(levels, place)
    return lambda work, signature: group.blame_round(found.share, place, leaf, proof, work, signature)
