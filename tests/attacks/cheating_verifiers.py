"""Dishonest verifiers. Each is the honest one with one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

from assay.commitments.execution import ReplayLeaf
from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import RoundState
from assay.roles.bench import Workbench
from assay.roles.context import Action, Context, Send
from assay.roles.subjects import HashedLeaf, Subject, hashed, subject_of_round
from assay.roles.verifier import HiddenClaims, Verifier, hidden_claims


class UnreplayedBench(Workbench):
    """Claims what the solver's roots say, with traces out of thin air."""

    def replay_segment(self, task: TaskRecord, segment: int, draw_seed: int) -> ReplayLeaf:
        trace = sha256(f"{segment}:{draw_seed}:guess".encode()).digest()
        return ReplayLeaf(segment, self.manifest(task).roots[segment + 1], 0, trace)


class SilentVerifier(Verifier):
    """Falls silent at one stage: `commit`, `show` or `disclose`."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not (isinstance(action, Send) and action.key.startswith(f"{self.stage}:")):
                yield action


class AbsentDefender(Verifier):
    """Claims, and makes no move in court."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith("move:"):
                yield action


class LeavingVerifier(Verifier):
    """Steps back from everything it is drawn for."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        if found.state is RoundState.DRAWN:
            yield Send(f"step-back:{found.id:x}", context.market.verification.step_back(found.id), task.id)


class ShowsTheTrueClaim(Verifier):
    """Shows its true claim whatever the lottery says."""

    def _show(self, context: Context, found: RoundRecord, task: TaskRecord, claims: HiddenClaims) -> Iterator[Action]:
        yield from super()._show(context, found, task, replace(claims, false=claims.true, order=1 - claims.order))


class CopyingBench(Workbench):
    """Claims for its own segments what a colleague has shown for other ones."""

    seen: tuple[HashedLeaf, ...] = ()

    def claim(self, subject: Subject) -> tuple[HashedLeaf, ...]:
        return tuple(replace(leaf, segment=segment) for leaf, segment in zip(self.seen, subject.segments, strict=True))


class CopyingVerifier(Verifier):
    """Waits for a colleague's claim and claims the same."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        assert isinstance(context.bench, CopyingBench)
        for number in task.rounds:
            other = context.view.rounds[number]
            if other.verifier != context.me and other.leaves and not context.bench.seen:
                context.bench.seen = hashed(other.leaves, other.segments)
        if context.bench.seen:
            yield from super()._serve(context, found, task)


class UnderivedVerifier(Verifier):
    """Its false claim is another than the one derived from its secret, so that an accomplice may know it beforehand."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        leaves = context.results.result(subject_of_round(context.view, found).key)
        if leaves is None:
            yield from super()._serve(context, found, task)
            return
        claims = hidden_claims(context.secret(f"round:{found.id:x}"), leaves, found)
        claims = replace(claims, false=tuple(replace(leaf, trace_root=b"\x07" * 32) for leaf in leaves))
        if found.state is RoundState.DRAWN:
            yield from self._commit(context, found, claims)
        elif found.state is RoundState.COMMITTED:
            yield from self._show(context, found, task, claims)
        elif found.state is RoundState.SHOWN:
            yield from self._disclose(context, found, claims)


class Staller(Verifier):
    """Defends its claim, every move in the last moment of its clock."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            key = action.key
            if key.startswith("move:") and isinstance(action, Send):
                deadline = context.deadlines.get(int(key.split(":")[1], 16), 0)
                if context.view.time + STALLED_SECONDS < deadline:
                    continue
            yield action


STALLED_SECONDS = 52
"""More than a tick and a second: the last look before a deadline."""
