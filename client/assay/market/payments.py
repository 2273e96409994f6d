"""Who was paid what in a task, and by which rule: from the ledger's movements and what happened beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from assay.market import events as e
from assay.market.logs import Event, Logged
from assay.market.records import TaskRecord
from assay.market.types import PROFILE, Class, TaskState


@dataclass(frozen=True)
class Payment:
    """Coin that reached an account, the pool, or was set aside. `rule` says in words why."""

    block: int
    transaction: str
    source: str
    target: str
    account: str  # "" for the pool and for coin set aside
    amount: int
    rule: str


def payments(task: TaskRecord, history: Sequence[Logged]) -> list[Payment]:
    """Every movement of coin in the task's transactions, in chain order, with its rule."""
    by_transaction: dict[str, list[Event]] = {}
    for logged in history:
        by_transaction.setdefault(logged.transaction, []).append(logged.event)
    found = []
    for logged in history:
        event = logged.event
        if isinstance(event, e.CoinEntered):
            rule = {Class.ESCROW: "escrow of the task", Class.CASE: "bond of a case or accusation"}.get(
                event.class_, "price of a demanded chunk" if event.class_ is Class.DEMAND else "deposit"
            )
            found.append(
                Payment(logged.block, logged.transaction, "outside", event.class_.name.lower(), "", event.amount, rule)
            )
        elif isinstance(event, e.CoinMoved):
            rule = _rule(event, task, by_transaction[logged.transaction])
            account = f"0x{event.to_id:040x}" if event.to in OWNED else ""
            found.append(
                Payment(
                    logged.block,
                    logged.transaction,
                    event.from_.name.lower(),
                    event.to.name.lower(),
                    account,
                    event.amount,
                    rule,
                )
            )
    return found


OWNED = (Class.FREE, Class.LOCKED, Class.LEAVING, Class.CREDIT)
"""Buckets that belong to an account."""


def credited(account: str, history: Iterable[Logged]) -> int:
    """What others' buckets have paid into an account's credit, in wei."""
    number = int(account, 16)
    return sum(
        logged.event.amount
        for logged in history
        if isinstance(logged.event, e.CoinMoved)
        and (logged.event.to, logged.event.to_id) == (Class.CREDIT, number)
        and not (logged.event.from_ in OWNED and logged.event.from_id == number)
    )


def balance_of(account: str, history: Sequence[Logged]) -> int:
    """What an account has gained (or lost, if negative) by some events, in wei: what came into its buckets of the
    ledger less what left them, and less the bonds and prices it paid in. Deposits and withdrawals are not counted.

    Bonds that are still held count as paid.
    """
    number, sum_ = int(account, 16), 0
    events = [logged.event for logged in history]
    paid = {(event.class_, event.id): event.amount for event in events if isinstance(event, e.CoinEntered)}
    for event in events:
        if isinstance(event, e.CoinMoved):
            sum_ += event.amount * (event.to in OWNED and event.to_id == number)
            sum_ -= event.amount * (event.from_ in OWNED and event.from_id == number)
        else:
            sum_ -= sum(paid.get(bucket, 0) for bucket in _paid_by(account, event))
    return sum_


def _paid_by(account: str, event: Event) -> Iterator[tuple[Class, int]]:
    """The buckets that an account has filled from its wallet, as an event tells."""
    if isinstance(event, e.CaseOpened) and event.challenger == account:
        yield Class.CASE, event.case_id
    elif isinstance(event, e.Accused) and event.accuser == account:
        yield Class.CASE, event.line
    elif isinstance(event, e.ChunkDemanded) and event.asker == account:
        yield Class.DEMAND, event.demand_id
    elif isinstance(event, e.TaskSubmitted) and event.submitter == account:
        yield Class.ESCROW, event.task_id


def _rule(move: e.CoinMoved, task: TaskRecord, beside: Sequence[Event]) -> str:
    """Why coin moved: by its buckets, its owner, and what else happened in the transaction."""
    kinds = {type(each) for each in beside}
    is_submitter = move.to_id == int(task.submitter, 16)
    is_solver = bool(task.solver) and move.to_id == int(task.solver, 16)
    pair = (move.from_, move.to)
    if pair == (Class.ESCROW, Class.CREDIT):
        if e.Drawn in kinds:
            return "bounty for carrying out a draw"
        if is_submitter:
            return "refund to the submitter"
        if is_solver:
            return "compensation of the solver" if task.state is TaskState.VOID else "auction price"
        if task.finder and move.to_id == int(task.finder, 16) and move.amount == task.finder_share:
            return "share of whoever showed the fault"
        shares = [each for each in beside if isinstance(each, e.ShareReleased)]
        verifiers = {int(each.verifier, 16): each.share for each in shares if each.fee_paid}
        if move.to_id in verifiers:
            fee = task.posting.profiler_fee if verifiers[move.to_id] == PROFILE else task.posting.verifier_fee
            return "fee of the verifier" if move.amount == fee else "share of the solver's stake for the verifier"
        return "paid from escrow"
    rules = {
        (Class.ESCROW, Class.POOL): "jackpot tax, and what nobody earned",
        (Class.ESCROW, Class.ROUND): "share of the solver's stake for right answers",
        (Class.FREE, Class.LOCKED): "stake locked for the task",
        (Class.LEAVING, Class.LOCKED): "stake locked for the task",
        (Class.LOCKED, Class.FREE): "stake returned",
        (Class.LOCKED, Class.POOL): "forfeited stake",
        (Class.LOCKED, Class.ESCROW): "forfeited stake, for fees and finders",
        (Class.LOCKED, Class.CREDIT): "share of a forfeited stake",
        (Class.LOCKED, Class.ROUND): "charge for stepping back, or share of a forfeited seat",
        (Class.FREE, Class.ROUND): "bond of a whistleblower",
        (Class.ROUND, Class.FREE): "bond of a whistleblower returned",
        (Class.ROUND, Class.CREDIT): "prize of a right answer, or charges of those who stepped back",
        (Class.ROUND, Class.POOL): "forfeited bond of a whistleblower, or remainder",
        (Class.CASE, Class.CREDIT): "bond returned, or half of the loser's bond",
        (Class.CASE, Class.POOL): "rest of the loser's bond",
        (Class.DEMAND, Class.CREDIT): "price of a demanded chunk",
        (Class.POOL, Class.RESERVE): "jackpot reserved",
        (Class.RESERVE, Class.ROUND): "jackpot of the winners",
        (Class.RESERVE, Class.POOL): "jackpot not won",
        (Class.POOL, Class.CREDIT): "bounty for carrying out a further draw",
    }
    return rules.get(pair, "moved")
