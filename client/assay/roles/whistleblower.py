"""The whistleblower: joins rounds, replays, answers, and takes wrong claims to court."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from assay.commitments.execution import claim_root
from assay.dispute.case import Part
from assay.dispute.evidence import open_training
from assay.dispute.hash_tree import LeafTree
from assay.market.answers import answer_commitment
from assay.market.claims import claim_id_of, training_line_of
from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import MILLION, RoundState, Shown, TaskState
from assay.roles.common import court_moves, deposit, dispute, replay_key, replay_work, upkeep, withdrawal
from assay.roles.context import Action, Context, Send, Work


@dataclass(frozen=True)
class WhistleblowerOptions:
    """What a whistleblower does. `cost` is what one answer costs it, in wei; with 0 it joins whenever it can."""

    stake: int = 10**18
    cost: int = 0
    audits: int = 1  # segments checked of every exact task, beyond those answered
    least_withdrawal: int = 10**15


def expected_prize(context: Context, task: TaskRecord) -> int:
    """The jackpot a forced round of a task would have now (contracts/Jackpot.sol, reserve)."""
    parameters = context.market.parameters
    tax = task.posting.highest_reward * parameters.tax_rate // MILLION // max(1, task.posting.verifiers)
    most = parameters.seat * parameters.jackpot_rate // MILLION
    if parameters.forced_rate == 0:
        return 0
    return min(tax * MILLION // parameters.forced_rate, context.purse.pool // 3, most)


def payout_threshold(prize: int, forced_rate: int, cost: int) -> int:
    """The most whistleblowers with whom answering pays: J * rate / 2^(k-1) is at least the cost; no limit at cost 0."""
    if cost == 0:
        return 1 << 30
    number = 0
    while prize * forced_rate // MILLION >> number >= cost:
        number += 1
    return number


def shown_hash(shown: Shown) -> bytes:
    """What the contract keeps of what was shown: an answer is to exactly that."""
    hidden = (shown.hidden.secret, shown.hidden.first, shown.hidden.second)
    return keccak(
        encode(
            ["((bytes32,bytes32,bytes32),bytes32,uint8,bytes32,bytes32,bool)"],
            [(hidden, shown.seed, shown.index, shown.root, shown.thresholds, shown.passes)],
        )
    )


def collecting(context: Context) -> Iterator[Action]:
    """Collect bonds and prizes of resolved rounds."""
    for found in context.view.rounds_holding(context.me):
        if found.is_resolved and context.me in found.answers:
            call = context.market.answers.collect(found.id, context.me)
            yield Send(f"collect:{found.id:x}", call, found.task_id)


class Whistleblower:
    """Decisions of a whistleblower."""

    name = "whistleblower"

    def __init__(self, options: WhistleblowerOptions | None = None) -> None:
        self.options = options or WhistleblowerOptions()

    def plan(self, context: Context) -> Sequence[Action]:
        """What the whistleblower does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        if context.view.deposits[context.me] == 0:
            yield deposit(context, self.options.stake)
        for task in context.view.in_state(TaskState.VERIFYING):
            if task.posting.exact:
                for share in task.shares:
                    found = context.view.current_round(task.id, share)
                    if found is not None:
                        yield from self._watch(context, found, task)
                yield from self._audit(context, task)
        yield from collecting(context)
        yield from court_moves(context)
        yield from upkeep(context, 12)
        yield from withdrawal(context, self.options.least_withdrawal)

    def _watch(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        view, me = context.view, context.me
        if me in (found.verifier, task.solver):
            return
        if found.state is RoundState.COMMITTED and me not in found.answers:
            # Mined in the next block at the earliest, which must come before the lottery's.
            if view.block + 1 < found.lottery_block and self.pays(context, task):
                yield Send(f"join:{found.id:x}", context.market.answers.join(found.id), task.id)
        elif found.state is RoundState.SHOWN and me in found.answers:
            yield from self._answer(context, found, task)
        elif found.state is RoundState.DISCLOSED:
            yield from dispute(context, found, task)

    def pays(self, context: Context, task: TaskRecord) -> bool:
        """Whether joining pays by the number of active whistleblowers, and the bond is there."""
        if context.purse.free < context.market.parameters.answer_bond:
            return False
        prize = expected_prize(context, task)
        return context.purse.active < payout_threshold(prize, context.market.parameters.forced_rate, self.options.cost)

    def _answer(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        if found.shown is None:
            return
        leaves = context.results.result(replay_key(found))
        if leaves is None:
            yield replay_work(context, found, task)
            return
        me, time = context.me, context.view.time
        root = claim_root(leaves)
        shown = shown_hash(found.shown)
        salt = context.secret(f"answer:{found.id:x}:{shown.hex()}")
        if not found.has_committed(me):
            if time <= found.answers_until:
                commitment = answer_commitment(found.id, me, root, salt)
                call = context.market.answers.commit_answer(found.id, shown, commitment)
                yield Send(f"answer:{found.id:x}:{shown.hex()}", call, task.id)
        elif me not in found.roots and found.may_reveal(time) and time <= found.reveals_until:
            call = context.market.answers.reveal_answer(found.id, root, salt)
            yield Send(f"reveal:{found.id:x}:{shown.hex()}", call, task.id)

    # ---- Segments that nobody was drawn for -------------------------------------------------------------------------

    def audited_segments(self, context: Context, task: TaskRecord) -> list[int]:
        """Segments of a task that this whistleblower checks by itself: chosen at random, once."""
        word = int.from_bytes(context.secret(f"audit:{task.id:x}:{task.checkpoint_root.hex()}"), "big")
        return [(word >> (32 * i)) % task.segments for i in range(min(self.options.audits, 8))]

    def _audit(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        for segment in self.audited_segments(context, task):
            key = f"audit:{task.id:x}:{segment}"
            if context.results.failures(key) >= 3:
                continue
            verdict = context.results.result(key)
            if verdict is None:
                yield Work(key, lambda s=segment: self.check(context, task, s))  # type: ignore[misc]
            elif verdict == "wrong":
                yield from accuse_training(context, task, segment)

    def check(self, context: Context, task: TaskRecord, segment: int) -> str:
        """Replay a segment: `right`, or `wrong` if the solver's next checkpoint is another."""
        (leaf,) = context.bench.replay(task, [segment], 0)
        return "right" if leaf.end_root == context.bench.manifest(task).roots[segment + 1] else "wrong"


def accuse_training(context: Context, task: TaskRecord, segment: int) -> Iterator[Action]:
    """Dispute the solver's checkpoint after a segment (exact mode)."""
    if not task.solver:
        return
    claim_id = claim_id_of(training_line_of(task.id), task.checkpoint_root, task.solver)
    if any(case.challenger == context.me for case in context.view.cases_on(claim_id)):
        return
    if claim_id not in context.view.claims:
        call = context.market.claims.publish_training(task.id)
        yield Send(f"publish-training:{task.id:x}", call, task.id)
        return
    checkpoints = LeafTree(context.bench.manifest(task).roots)
    evidence = open_training(checkpoints, segment + 1, task.posting.header)
    bond = context.market.parameters.case_bond
    call = context.market.court.open(claim_id, segment + 1, Part.END, bytes(32), evidence.as_tuple(), bond)
    yield Send(f"accuse:{claim_id:x}", call, task.id, segment)
