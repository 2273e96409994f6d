"""The loop of a role's process: read, decide, send; and look after what was sent before."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from assay.chain.errors import AnswerError, FeeCapError, FundsError, RevertedError
from assay.chain.sender import Outcome, Sender, Sent
from assay.errors import AssayError
from assay.market.connection import Market
from assay.market.groups import GroupContract
from assay.market.parameters import COIN
from assay.market.payments import balance_of, credited
from assay.market.reader import MarketReader
from assay.market.types import RoundState
from assay.roles.bench import Workbench
from assay.roles.cases import case_view
from assay.roles.context import Action, Context, Player, Purse, Send, Work
from assay.roles.disputes import own_cases
from assay.roles.jobs import Jobs
from assay.roles.metrics import Metrics
from assay.roles.summary import Summary
from assay.state import DiskError, StateError, StateFolder

logger = logging.getLogger(__name__)

PURSE_BLOCKS = 20
"""Blocks after which the ledger is asked again though nothing happened."""
LONGEST_PAUSE = 30.0
"""Seconds between two looks at the chain at most, while something fails."""
RETRIES = 3
"""How often a transaction that was mined and reverted is sent again."""


class Node:
    """One account's roles on one chain."""

    def __init__(
        self,
        market: Market,
        sender: Sender,
        state: StateFolder,
        bench: Workbench,
        players: Sequence[Player],
        metrics: Metrics,
        pause: float = 1.0,
        group: GroupContract | None = None,
    ) -> None:
        self.market, self.sender, self.state, self.bench = market, sender, state, bench
        self.players, self.metrics, self.pause = players, metrics, pause
        self.group = group
        self.reader = MarketReader(market)
        self.jobs = Jobs()
        self.summary = Summary(sender.address, [player.name for player in players])
        self._refused: dict[str, str] = {}
        self._refusals: Counter[str] = Counter()
        self._troubles: dict[str, str] = {}
        self._deadlines: dict[int, tuple[int, int]] = {}  # of others' cases: after how many moves, and when
        self._actions: dict[str, Send] = {}  # what the transactions that are not final are for
        self._reopen: list[int] = []  # blocks after which the journal is to be looked through again
        self._earned = self._free = self._purse_block = 0
        self._purse: Purse | None = None  # until the next event
        self._count_anew = False
        self._running = 0

    def secret(self, name: str) -> bytes:
        """32 random bytes, drawn once for a name and on disk before they are used."""
        return bytes.fromhex(self.state.put_once(f"secret:{name}", secrets.token_hex(32)))

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Work until `stop()`. An endpoint that fails, a full disk and whatever else goes wrong is waited for: stakes
        depend on this process."""
        logger.info(
            "started",
            extra={"account": self.sender.address, "roles": self.summary.roles, "state": str(self.state.folder)},
        )
        dirty, failed = True, 0
        try:
            while not stop():
                done = self.step(dirty)
                dirty, failed = done is not False, 0 if done is not None else failed + 1
                time.sleep(self.pause if not failed else min(LONGEST_PAUSE, max(1.0, self.pause) * 2.0 ** (failed - 1)))
        finally:
            self.jobs.close()

    def step(self, dirty: bool = True) -> bool | None:
        """`turn`, and None where it fails: whatever was to be done is done by a later one."""
        try:
            acted = self.turn(dirty)
        except Exception as error:
            # The journal may be damaged or another program's: going on could lose a secret.
            if isinstance(error, StateError) and not isinstance(error, DiskError):
                raise
            self._trouble("turn", error)
            self._count_anew = True  # events that were read may not have been looked at
            return None
        self._recover("turn")
        return acted

    def _trouble(self, where: str, error: Exception) -> None:
        """Tell of an error, once while it stays the same."""
        code = error.code if isinstance(error, AssayError) else type(error).__name__
        self.metrics.trouble(code)
        if self._troubles.get(where) == f"{code} {error}":
            return
        self._troubles[where] = f"{code} {error}"
        details = {"where": where, "code": code}
        if isinstance(error, (AssayError, OSError)):
            logger.warning("%s; this is waited for", error, extra=details)
        else:
            logger.error(
                "an error nobody foresaw: %r. It is tried again, everything else goes on. Run `assay doctor`, and "
                "report the trace below",
                error, extra=details, exc_info=error,
            )  # fmt: skip

    def _recover(self, where: str) -> None:
        if self._troubles.pop(where, None) is not None:
            logger.info("works again", extra={"where": where})

    def closing_summary(self) -> dict[str, Any]:
        """What was done since the start, as JSON; earnings are those of the tasks concerned, from their beginnings."""
        me, view = self.sender.address, self.reader.view
        tasks = {task.id for task in view.tasks.values() if task.solver == me}
        tasks |= {each.task_id for each in view.rounds.values() if each.verifier == me or me in each.answers}
        tasks |= {case.task_id for case in view.claims.cases.values() if me in (case.challenger, case.claimant)}
        tasks = (tasks | set(self.summary.by_task)) & set(view.tasks)
        return self.summary.as_json({task: balance_of(me, self.reader.history(task)) for task in tasks})

    def turn(self, dirty: bool = True) -> bool:
        """One look at the chain. True if the next look must decide again even if the chain has not moved."""
        finished = self.sender.advance()
        for sent in finished:
            self._note(sent)
        before = self.reader.view.block
        try:
            events = self.reader.poll()
        finally:
            if self.reader.rolled_back_to is not None:
                self._reopen.append(self.reader.rolled_back_to)
        self.market.chain.as_of = self.reader.view.block
        changed = bool(events) or self.reader.view.block != before or bool(self._reopen)
        if self._reopen:
            logger.warning("the chain was reorganised", extra={"block": min(self._reopen)})
            self.sender.reopen_after(min(self._reopen))
            self._reopen.clear()
            self._deadlines.clear()
            self._count_anew = True
        if self._count_anew:
            self._earned, self._purse = credited(self.sender.address, self.reader.events("Stakes")), None
            self._count_anew = False
        elif events:
            self._earned, self._purse = self._earned + credited(self.sender.address, events), None
        self.jobs.sweep()
        running = self.jobs.running
        if not (changed or dirty or finished or running != self._running):
            return False
        self._running = running
        acted = self._decide()
        self._measure()
        if not acted and not self.jobs.running and not self.sender.pending():
            logger.debug("waiting", extra={"block": self.reader.view.block})
            return False
        return acted

    def context(self) -> Context:
        """What the players see now."""
        me, reader = self.sender.address, self.reader
        if self._purse is None or reader.view.block >= self._purse_block + PURSE_BLOCKS:
            self._purse, self._purse_block = self._read_purse(), reader.view.block
        cases, deadlines = {}, self._deadlines_of_all()
        parties = [me] if self.group is None else [me, self.group.address]
        for case in (case for party in parties for case in own_cases(reader.view, party)):
            found_case = case_view(reader, case.id)
            if found_case is not None:
                cases[case.id] = found_case
                deadlines[case.id] = self.market.court.deadline(case.id)
        for stage_case in reader.view.stages.open_cases_of(me):
            found_case = case_view(reader, stage_case.id, self.market.stage_court)
            if found_case is not None:
                cases[stage_case.id] = found_case
                deadlines[stage_case.id] = self.market.stage_court.deadline(stage_case.id)
        seeds = {}
        for found in reader.view.rounds_holding(me):
            if found.verifier == me and found.state is RoundState.COMMITTED and found.lottery_block < reader.view.block:
                seed = self.market.seeds.lottery(found.lottery_block, found.id)
                if any(seed):
                    seeds[found.id] = seed
        return Context(
            self.market, me, reader.view, self._purse, self.jobs, self.bench, self.secret, cases, deadlines,
            seeds, None if self.group is None else self.group.view(), self._refusals,
        )  # fmt: skip

    def _deadlines_of_all(self) -> dict[int, int]:
        """When the side in turn runs out of time in every open case, asked once for every move."""
        known, self._deadlines = self._deadlines, {}
        for case in self.reader.view.claims.open_cases():
            moves, deadline = known.get(case.id, (-1, 0))
            if moves != case.moves:
                deadline = self.market.court.deadline(case.id)
            self._deadlines[case.id] = case.moves, deadline
        return {number: deadline for number, (_, deadline) in self._deadlines.items()}

    def _read_purse(self) -> Purse:
        """Ask the ledger. What it holds changes with events only, but for the number of active whistleblowers."""
        me, stakes = self.sender.address, self.market.stakes
        seats, serving = stakes.seats(me), sum(found.verifier == me for found in self.reader.view.rounds_holding(me))
        # What backs seats on the roll is kept for draws: another role of the account must not spend it.
        self._free = stakes.free(me)
        spare = max(0, self._free - max(0, seats - serving) * self.market.parameters.seat)
        return Purse(spare, stakes.locked(me), stakes.credit(me), seats, stakes.pool(), stakes.active_whistleblowers())

    def _decide(self) -> bool:
        """Carry out what the players decide. True if anything was begun or sent, or waits to be tried again."""
        context = self.context()
        acted = False
        for player in self.players:
            for action in self._planned(player, context):
                if isinstance(action, Work):
                    begun = self.jobs.start(action.key, action.run)
                    acted = acted or begun or self.jobs.is_waiting(action.key)
                else:
                    acted = self._send(action) or acted
        return acted

    def _planned(self, player: Player, context: Context) -> Sequence[Action]:
        """What a player decides; nothing where it fails, so that the other roles go on."""
        try:
            actions = player.plan(context)
        except Exception as error:
            self._trouble(player.name, error)
            return ()
        self._recover(player.name)
        return actions

    def _send(self, action: Send) -> bool:
        key, failed = self.sender.attempt(action.key)
        if failed > RETRIES:
            self._refusals[action.serves or action.key] += 1
            return False
        known = self.sender.find(key)
        if known is not None:
            self._check_final(known)
            return False
        try:
            sent = self.sender.submit(key, action.call)
        except (RevertedError, FeeCapError, FundsError, AnswerError) as error:
            said = error.code if isinstance(error, FundsError) else str(error)  # its amounts change with every block
            if self._refused.get(action.key) != said:
                logger.warning("%s", error, extra={"key": action.key, "code": error.code})
                self._refused[action.key] = said
            self._refusals[action.serves or action.key] += 1
            return False
        self._actions[key] = action
        details = {"transaction": sent.hash, "nonce": sent.nonce, "key": key}
        logger.info("%s", action.name, extra=_about(action) | details)
        for final in self.sender.advance():
            self._note(final)
        return True

    def _check_final(self, sent: Sent) -> None:
        """What is final but still asked for, though its block was read, may have been dropped unseen: look again."""
        if sent.block is None or sent.block > self.reader.view.block:
            return
        if not self.sender.is_mined(sent):
            logger.warning("a transaction is no longer on the chain", extra={"key": sent.key, "transaction": sent.hash})
            self.sender.reopen_after(sent.block - 1)

    def _note(self, sent: Sent) -> None:
        self.metrics.count(sent.outcome.value, sent.gas_used or 0)
        action = self._actions.pop(sent.key, None)
        self.summary.finished(sent, None if action is None else action.task)
        level = logging.INFO if sent.outcome is Outcome.SUCCEEDED else logging.WARNING
        details = {"transaction": sent.hash, "gas": sent.gas_used, "block": sent.block, "key": sent.key}
        about = {"action": sent.key.partition(":")[0]} if action is None else {"action": action.name} | _about(action)
        logger.log(level, "%s", sent.outcome.value, extra=about | details)

    def _measure(self) -> None:
        purse, me, view, parameters = (
            self._purse or Purse(),
            self.sender.address,
            self.reader.view,
            self.market.parameters,
        )
        answers = sum(me in found.answers for found in view.rounds_holding(me))
        cases = sum(case.challenger == me for case in own_cases(view, me))
        figures = self.metrics
        figures.credit.set(purse.credit / COIN)
        figures.earned.set(self._earned / COIN)
        figures.free.set(self._free / COIN)
        figures.locked.set(purse.locked / COIN)
        figures.bonds.set((answers * parameters.answer_bond + cases * parameters.case_bond) / COIN)
        figures.block.set(view.block)
        figures.replay_speed.set(self.bench.replay_speed)
        figures.queue.set(self.jobs.running + len(self.sender.pending()))


def _about(action: Send) -> dict[str, Any]:
    """What a transaction is about, for logs."""
    task = {} if action.task is None else {"task": f"{action.task:#x}"}
    return task if action.segment is None else {**task, "segment": action.segment}
