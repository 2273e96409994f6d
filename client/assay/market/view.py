"""A picture of the market made from its events, in memory: what is open, drawn, claimed and disputed at this moment.

`MarketView.apply` takes events in chain order; everything it says is a function of them. Records are immutable: one
handed out stays as it was while the view goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from assay.market import events as e
from assay.market.account_view import AccountView
from assay.market.claim_view import ClaimView
from assay.market.claims import training_line_of
from assay.market.errors import UnknownTaskError
from assay.market.logs import Logged
from assay.market.presence_view import PresenceView
from assay.market.records import DemandRecord, RoundRecord, ShareRecord, TaskRecord
from assay.market.stage_view import StageView
from assay.market.types import AnswerState, RoundState, ShareState, TaskState


class MarketView:
    """Tasks, the rounds that work on their shares, and demands, by their numbers; and what else is known, in parts:
    `claims` and the cases on them, `accounts`, and what members of groups hold against each other (`stages`,
    `presence`).

    `block` and `time` are those of the newest block read (`MarketReader` sets them).
    """

    def __init__(self) -> None:
        self.block = 0
        self.time = 0
        self.tasks: dict[int, TaskRecord] = {}
        self.rounds: dict[int, RoundRecord] = {}
        self.demands: dict[int, DemandRecord] = {}
        self.claims = ClaimView(self.rounds)
        self.accounts = AccountView()
        self.stages = StageView()
        self.presence = PresenceView()
        # Dictionaries without values, for their order.
        self._running: dict[int, None] = {}
        self._unreleased: dict[int, None] = {}
        self._held: dict[str, dict[int, None]] = {}

    # -- questions -----------------------------------------------------------------------------------------------

    def task(self, task_id: int) -> TaskRecord:
        """A task. Raises `UnknownTaskError`."""
        found = self.tasks.get(task_id)
        if found is None:
            raise UnknownTaskError(f"there is no task {task_id:#x} in this deployment: see `assay task list`")
        return found

    def find_task(self, prefix: str) -> TaskRecord:
        """The only task whose number begins with these hexadecimal digits. Raises `UnknownTaskError`."""
        digits = prefix.lower().removeprefix("0x")
        if digits and set(digits) <= set("0123456789abcdef"):
            found = [task for number, task in self.tasks.items() if f"{number:064x}".startswith(digits)]
            if len(found) == 1:
                return found[0]
            if len(found) > 1:
                raise UnknownTaskError(f"{len(found)} tasks begin with {prefix}: give more digits")
        raise UnknownTaskError(f"there is no task {prefix} in this deployment: see `assay task list`")

    def running(self) -> Iterator[TaskRecord]:
        """Tasks that are not over, oldest first."""
        return (self.tasks[number] for number in self._running)

    def in_state(self, state: TaskState) -> Iterator[TaskRecord]:
        """Running tasks in one state."""
        return (task for task in self.running() if task.state is state)

    def unreleased(self) -> list[TaskRecord]:
        """Tasks that are over and still hold fees or seats in shares that nobody has released."""
        return [self.tasks[number] for number in self._unreleased]

    def rounds_of(self, task_id: int) -> list[RoundRecord]:
        """All rounds of a task, the void ones too, by share and attempt."""
        found = [self.rounds[number] for number in self.task(task_id).rounds]
        return sorted(found, key=lambda each: (each.share, each.attempt))

    def rounds_holding(self, account: str) -> list[RoundRecord]:
        """Rounds that hold something of an account: a seat or the bond of an answer. Not those paid out."""
        return [self.rounds[number] for number in self._held.get(account, ())]

    def current_round(self, task_id: int, share: int) -> RoundRecord | None:
        """The round at work on a share, or None."""
        record = self.task(task_id).shares.get(share)
        return self.rounds.get(record.round_id) if record is not None else None

    def open_demands(self, task_id: int) -> list[DemandRecord]:
        """Demands for chunks of a task's files that nobody has answered, nor closed, in the order they were made."""
        return [demand for number in self.task(task_id).demands if (demand := self.demands[number]).is_open]

    def is_pending(self, task_id: int) -> bool:
        """Whether something that could fail the task is undecided: a case on its training claim, an accusation, a
        demand (Settlement.settle)."""
        task, lines = self.task(task_id), self.claims.lines
        return (
            bool(self.open_demands(task_id))
            or any(not lines[line].is_closed for line in task.accusations)
            or any(lines[line].open_cases for line in (training_line_of(task_id),) if line in lines)
        )

    # -- events --------------------------------------------------------------------------------------------------

    def apply(self, logged: Logged) -> int | None:
        """Take one event in; returns the task it is about, if it is about one."""
        handler = _HANDLERS.get(type(logged.event))
        task_id = None if handler is None else handler(self, logged.event, logged)
        claimed = self.claims.apply(logged)  # after the rounds: a claim that is disclosed is read from its round
        self.accounts.apply(logged)
        self.stages.apply(logged.event)
        self.presence.apply(logged.event)
        return claimed if task_id is None else task_id

    def _change_task(self, task_id: int, **changes: Any) -> int:
        if task_id in self.tasks:
            task = self.tasks[task_id] = replace(self.tasks[task_id], **changes)
            if task.state.is_over:
                self._running.pop(task_id, None)
                if all(share.state is ShareState.RELEASED for share in task.shares.values()):
                    self._unreleased.pop(task_id, None)
                else:
                    self._unreleased[task_id] = None
        return task_id

    def _change_share(self, task_id: int, number: int, **changes: Any) -> None:
        task = self.tasks.get(task_id)
        if task is None:
            return
        share = task.shares.get(number) or ShareRecord(number, ShareState.NONE)
        self._change_task(task_id, shares={**task.shares, number: replace(share, **changes)})

    def _change_round(self, round_id: int, **changes: Any) -> int | None:
        found = self.rounds.get(round_id)
        if found is None:
            return None
        self.rounds[round_id] = replace(found, **changes)
        return found.task_id

    # Market

    def _submitted(self, event: e.TaskSubmitted, logged: Logged) -> int:
        posting = event.posting
        self.tasks[event.task_id] = TaskRecord(
            event.task_id, event.submitter, posting, event.program_root, event.segments, event.replay_work,
            event.profile_work, TaskState.OPEN if posting.exact else TaskState.PROFILING, logged.block,
            lowest_reward=posting.lowest_reward, highest_reward=posting.highest_reward,
        )  # fmt: skip
        self._running[event.task_id] = None
        return event.task_id

    def _opened(self, event: e.TaskOpened, _logged: Logged) -> int:
        known = self.tasks.get(event.task_id)
        again = known is not None and known.relists > 0
        return self._change_task(
            event.task_id,
            state=TaskState.OPEN,
            threshold_root=event.threshold_root,
            lowest_reward=event.lowest_reward,
            highest_reward=event.highest_reward,
            since=event.since,
            **({"price": event.highest_reward} if again else {}),
        )

    def _taken(self, event: e.TaskTaken, logged: Logged) -> int:
        task = self.tasks.get(event.task_id)
        seconds = task.posting.train_seconds if task is not None else 0
        return self._change_task(
            event.task_id, state=TaskState.TAKEN, solver=event.solver, price=event.price, stake=event.stake,
            deadline=event.deadline, since=event.deadline - seconds,
        )  # fmt: skip

    def _stepped_down(self, event: e.SolverSteppedDown, _logged: Logged) -> int:
        task = self.tasks.get(event.task_id)
        relists = 0 if task is None else task.relists + 1
        former = () if task is None else (*task.former_solvers, event.solver)
        return self._change_task(
            event.task_id, solver="", stake=0, deadline=0, relists=relists, former_solvers=former
        )  # fmt: skip

    def _registered(self, event: e.ProofRegistered, _logged: Logged) -> int:
        return self._change_task(
            event.task_id, state=TaskState.VERIFYING, checkpoint_root=event.checkpoint_root,
            final_root=event.final_root, proof_locations=event.locations,
        )  # fmt: skip

    def _finished(self, event: e.TaskFinished, logged: Logged) -> int:
        return self._change_task(
            event.task_id, state=event.state, finder=event.finder, finder_share=event.finder_share,
            finished_block=logged.block,
        )  # fmt: skip

    # Verification

    def _draw_due(self, event: e.DrawDue, _logged: Logged) -> int:
        self._change_share(
            event.task_id, event.share, state=ShareState.AWAITING, attempt=event.attempt, draw_block=event.draw_block
        )
        return event.task_id

    def _drawn(self, event: e.Drawn, _logged: Logged) -> int:
        self.rounds[event.round_id] = RoundRecord(
            event.round_id, event.task_id, event.share, event.attempt, event.verifier, event.draw_seed,
            event.segments, RoundState.DRAWN, event.deadline,
        )  # fmt: skip
        self._change_share(
            event.task_id, event.share, state=ShareState.WORKING, attempt=event.attempt, round_id=event.round_id
        )
        self._hold(event.verifier, event.round_id)
        task = self.tasks.get(event.task_id)
        return self._change_task(event.task_id, rounds=(*(task.rounds if task else ()), event.round_id))

    def _hold(self, account: str, round_id: int) -> None:
        self._held.setdefault(account, {})[round_id] = None

    def _let_go(self, account: str, round_id: int) -> None:
        self._held.get(account, {}).pop(round_id, None)

    def _nobody(self, event: e.NobodyDrawn, _logged: Logged) -> int:
        return event.task_id

    def _volunteers(self, event: e.VolunteersWanted, _logged: Logged) -> int:
        task = self.tasks.get(event.task_id)
        share = task.shares.get(event.share) if task is not None else None
        attempt = share.attempt + 1 if share is not None else 0
        self._change_share(
            event.task_id, event.share, state=ShareState.VOLUNTEERS, deadline=event.deadline, attempt=attempt
        )
        return event.task_id

    def _committed(self, event: e.RoundCommitted, _logged: Logged) -> int | None:
        return self._change_round(
            event.round_id, state=RoundState.COMMITTED, hidden=event.hidden, lottery_block=event.lottery_block,
            show_until_block=event.show_until_block,
        )  # fmt: skip

    def _shown(self, event: e.ReplayShown | e.ProfileShown, _logged: Logged) -> int | None:
        return self._change_round(
            event.round_id, state=RoundState.SHOWN, shown=event.shown, leaves=event.leaves,
            answers_until=event.answers_until, reveals_until=event.reveals_until, deadline=event.disclose_until,
        )  # fmt: skip

    def _disclosed(self, event: e.RoundDisclosed, _logged: Logged) -> int | None:
        return self._change_round(
            event.round_id, state=RoundState.DISCLOSED, forced=event.forced, secret=event.secret,
            true_trace=event.true_trace,
        )  # fmt: skip

    def _voided(self, event: e.RoundVoided, _logged: Logged) -> int | None:
        self._let_go(event.verifier, event.round_id)
        return self._change_round(event.round_id, state=RoundState.VOID, fault=event.fault)

    # Answers

    def _answer(self, round_id: int, account: str, state: AnswerState, root: bytes | None = None) -> int | None:
        found = self.rounds.get(round_id)
        if found is None:
            return None
        roots = found.roots if root is None else {**found.roots, account: root}
        return self._change_round(round_id, answers={**found.answers, account: state}, roots=roots)

    def _joined(self, event: e.Joined, _logged: Logged) -> int | None:
        self._hold(event.whistleblower, event.round_id)
        return self._answer(event.round_id, event.whistleblower, AnswerState.JOINED)

    def _answer_committed(self, event: e.AnswerCommitted, _logged: Logged) -> int | None:
        return self._answer(event.round_id, event.whistleblower, AnswerState.COMMITTED)

    def _answer_revealed(self, event: e.AnswerRevealed, _logged: Logged) -> int | None:
        return self._answer(event.round_id, event.whistleblower, AnswerState.REVEALED, event.root)

    def _collected(self, event: e.AnswerCollected, _logged: Logged) -> int | None:
        self._let_go(event.whistleblower, event.round_id)
        return self._answer(event.round_id, event.whistleblower, AnswerState.COLLECTED)

    def _resolved(self, event: e.AnswersResolved, _logged: Logged) -> int | None:
        return self._change_round(event.round_id, is_resolved=True, prize=event.each)

    def _reserved(self, event: e.JackpotReserved, _logged: Logged) -> int | None:
        return self._change_round(event.round_id, jackpot=event.amount)

    def _fixed(self, event: e.JackpotFixed, _logged: Logged) -> int | None:
        found = self.rounds.get(event.round_id)
        return None if found is None else found.task_id

    # Claims, Demands, Settlement

    def _accused(self, event: e.Accused, _logged: Logged) -> int:
        task = self.tasks.get(event.task_id)
        known = task.accusations if task is not None else ()
        return self._change_task(event.task_id, accusations=(*known, event.line))

    def _demanded(self, event: e.ChunkDemanded, _logged: Logged) -> int:
        self.demands[event.demand_id] = DemandRecord(
            event.demand_id, event.task_id, event.asker, event.place, event.deadline
        )
        task = self.tasks.get(event.task_id)
        known = task.demands if task is not None else ()
        return self._change_task(event.task_id, demands=(*known, event.demand_id))

    def _demand_closed(self, event: e.ChunkServed | e.ChunkNotServed, _logged: Logged) -> int:
        known = self.demands.get(event.demand_id)
        if known is not None:
            self.demands[event.demand_id] = replace(known, is_open=False)
        return event.task_id

    def _released(self, event: e.ShareReleased, _logged: Logged) -> int:
        self._change_share(event.task_id, event.share, state=ShareState.RELEASED)
        self._let_go(event.verifier, event.round_id)
        return event.task_id


_HANDLERS: dict[type[Any], Callable[[MarketView, Any, Logged], int | None]] = {
    e.TaskSubmitted: MarketView._submitted,
    e.TaskOpened: MarketView._opened,
    e.TaskTaken: MarketView._taken,
    e.SolverSteppedDown: MarketView._stepped_down,
    e.ProofRegistered: MarketView._registered,
    e.TaskFinished: MarketView._finished,
    e.DrawDue: MarketView._draw_due,
    e.Drawn: MarketView._drawn,
    e.NobodyDrawn: MarketView._nobody,
    e.VolunteersWanted: MarketView._volunteers,
    e.RoundCommitted: MarketView._committed,
    e.ReplayShown: MarketView._shown,
    e.ProfileShown: MarketView._shown,
    e.RoundDisclosed: MarketView._disclosed,
    e.RoundVoided: MarketView._voided,
    e.Joined: MarketView._joined,
    e.AnswerCommitted: MarketView._answer_committed,
    e.AnswerRevealed: MarketView._answer_revealed,
    e.AnswerCollected: MarketView._collected,
    e.AnswersResolved: MarketView._resolved,
    e.JackpotReserved: MarketView._reserved,
    e.JackpotFixed: MarketView._fixed,
    e.Accused: MarketView._accused,
    e.ChunkDemanded: MarketView._demanded,
    e.ChunkServed: MarketView._demand_closed,
    e.ChunkNotServed: MarketView._demand_closed,
    e.ShareReleased: MarketView._released,
}
