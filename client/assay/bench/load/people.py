"""Who takes part: honest roles, and those that lie, are absent, or step back. Each dishonest one is the honest role
with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay.demo.dishonest import FalseAccuser, LazyBench, LyingBench
from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import Posting, RoundState
from assay.roles.bench import Workbench
from assay.roles.context import Action, Context, Player, Send
from assay.roles.solver import Solver
from assay.roles.upkeep import upkeep
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.tasks.bundle import Bundle

COIN = 10**18
STAKE = 60 * COIN
"""Of those that are slashed again and again, so that they stay."""


class SharingBench(Workbench):
    """A workbench that reads the files of a kind of task once: the tasks of a load are all alike, and lowering each of
    them anew for each role would measure the lowering."""

    known: ClassVar[dict[bytes, Bundle]] = {}

    def bundle(self, task: TaskRecord) -> Bundle:
        key = task.program_root + task.posting.data_root + task.posting.initial_root
        if key not in self.known:
            self.known[key] = super().bundle(task)
        return self.known[key]


class LyingSharingBench(LyingBench, SharingBench):
    """Replays and executions that go wrong once."""


class LazySharingBench(LazyBench, SharingBench):
    """Noise instead of training."""


class AbsentSolver(Solver):
    """Takes tasks and never registers a proof."""

    def _train(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        return iter(())


class AbsentVerifier(Verifier):
    """Takes seats and never answers a draw."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        return iter(())


class SteppingBackVerifier(Verifier):
    """Steps back whenever it is drawn."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        if found.state is RoundState.DRAWN and context.view.time <= found.deadline:
            yield Send(f"step-back:{found.id:x}", context.market.verification.step_back(found.id), task.id)


class AbsentWhistleblower(Whistleblower):
    """Joins and never answers."""

    def _answer(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        return iter(())


class Submitter:
    """Posts tasks, one after another, while not too many run. `postings` are taken in turn."""

    name = "submitter"

    def __init__(self, tasks: int, at_once: int, postings: Sequence[tuple[Posting, int]]) -> None:
        self.tasks, self.at_once, self.postings = tasks, at_once, postings

    def plan(self, context: Context) -> Sequence[Action]:
        """The next posting, named by the number of those on chain, so that it is posted once."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        view = context.view
        posted = sum(task.submitter == context.me for task in view.tasks.values())
        if posted < self.tasks and sum(1 for _ in view.running()) < self.at_once:
            posting, escrow = self.postings[posted % len(self.postings)]
            yield Send(f"submit:{posted}", context.market.tasks.submit(posting, escrow))
        yield from upkeep(context, 30)


class Sweeper:
    """Somebody with nothing at stake who does what anybody may: bonds of absent whistleblowers are collected, too."""

    name = "sweeper"

    def plan(self, context: Context) -> Sequence[Action]:
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        view = context.view
        yield from upkeep(context, 60)
        for task in view.tasks.values():
            for found in (view.rounds[number] for number in task.rounds):
                if not found.is_resolved:
                    continue
                for account in found.answers:
                    if found in view.rounds_holding(account):
                        call = context.market.answers.collect(found.id, account)
                        yield Send(f"collect:{found.id:x}:{account}", call, task.id)


@dataclass(frozen=True)
class Part:
    """A kind of participant: how many there are of it in a small and in a large market."""

    name: str
    make: Callable[[], Player]
    few: int
    many: int
    bench: type[Workbench] = SharingBench


CAST = (
    Part("honest solver", Solver, 1, 3),
    Part("lazy solver", Solver, 1, 1, LazySharingBench),
    Part("absent solver", AbsentSolver, 0, 1),
    Part("honest verifier", lambda: Verifier(VerifierOptions(seats=2, stake=6 * COIN)), 2, 4),
    Part("lying verifier", lambda: Verifier(VerifierOptions(stake=STAKE)), 1, 1, LyingSharingBench),
    Part("absent verifier", lambda: AbsentVerifier(VerifierOptions(stake=STAKE)), 0, 1),
    Part("verifier that steps back", lambda: SteppingBackVerifier(VerifierOptions(stake=STAKE)), 0, 1),
    Part("honest whistleblower", lambda: Whistleblower(WhistleblowerOptions(stake=4 * COIN, audits=2)), 1, 3),
    Part("absent whistleblower", lambda: AbsentWhistleblower(WhistleblowerOptions(stake=4 * COIN, audits=0)), 0, 1),
    Part("false accuser", FalseAccuser, 0, 1, LyingSharingBench),
)
HONEST = ("honest solver", "honest verifier", "honest whistleblower")
