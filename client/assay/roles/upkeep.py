"""What anybody may do so that no task hangs: draws, timeouts, endings; and the own money.

`patience` is how long (seconds, or blocks where a window is in blocks) a role leaves a call to those it concerns more.
"""

from __future__ import annotations

from collections.abc import Iterator

from assay.market.records import RoundRecord, ShareRecord, TaskRecord
from assay.market.types import RoundState, ShareState, TaskState
from assay.roles.context import Action, Context, Send


def upkeep(context: Context, patience: int) -> Iterator[Action]:
    """All of it, for every task."""
    for task in context.view.running():
        yield from upkeep_of(context, task, patience)
    yield from silent_parties(context, patience)
    yield from closing_accusations(context, patience)
    yield from releasing(context)
    yield from releasing_for_all(context, patience)


def upkeep_of(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """What a running task waits for."""
    if task.state in (TaskState.PROFILING, TaskState.VERIFYING):
        yield from draws(context, task, patience)
        yield from timeouts(context, task, patience)
        yield from giving_up(context, task, patience)
        yield from unserved(context, task, patience)
        yield from settling(context, task, patience)
    else:
        yield from reopening(context, task, patience)


def draws(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Draws that are due: whoever carries one out earns its bounty."""
    for share in task.shares.values():
        if share.state is ShareState.AWAITING and context.view.block > share.draw_block + patience:
            key = f"draw:{task.id:x}:{share.number}:{share.attempt}:{share.draw_block}"
            yield Send(key, context.market.verification.draw(task.id, share.number), task.id)


def timeouts(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Rounds whose verifier is silent beyond its time."""
    view = context.view
    for share in task.shares:
        found = view.current_round(task.id, share)
        if found is None:
            continue
        late = found.state in (RoundState.DRAWN, RoundState.SHOWN) and view.time > found.deadline + patience
        missed = found.state is RoundState.COMMITTED and view.block > found.show_until_block + patience
        if late or missed:
            key = f"timeout:{found.id:x}:{found.state.name}"
            yield Send(key, context.market.verification.timeout(found.id), task.id)


def giving_up(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """End a task for whose share nobody volunteered in time."""
    for share in task.shares.values():
        if share.state is ShareState.VOLUNTEERS and context.view.time > share.deadline + patience:
            call = context.market.verification.give_up(task.id, share.number)
            yield Send(f"give-up:{task.id:x}:{share.number}:{share.attempt}", call, task.id)
            return


def unserved(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Demands that the solver did not answer in time."""
    for demand in context.view.open_demands(task.id):
        if context.view.time > demand.deadline + patience:
            yield Send(f"not-served:{demand.id:x}", context.market.demands.not_served(demand.id), task.id)


def silent_parties(context: Context, patience: int, task_id: int | None = None) -> Iterator[Action]:
    """Cases of others, on a task or all, whose party in turn let its clock run out: where no party calls that, since
    they are accomplices, or gone, the claim would never stand and its task never end."""
    for case in context.view.claims.open_cases():
        if task_id not in (None, case.task_id) or context.me in (case.challenger, case.claimant):
            continue
        if context.view.time > context.deadlines.get(case.id, 2**63) + patience:
            call = context.market.court.timeout(case.id)
            yield Send(f"case-timeout:{case.id:x}:{case.moves}", call, case.task_id)


def reopening(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Take a task from a solver that is late; end one that nobody took."""
    view = context.view
    if task.state is TaskState.TAKEN and view.time > task.deadline + patience:
        yield Send(f"late:{task.id:x}:{task.relists}", context.market.tasks.late(task.id), task.id)
    open_until = task.open_until(context.market.parameters.hold_seconds)
    if task.state is TaskState.OPEN and view.time > open_until + patience:
        yield Send(f"expire:{task.id:x}:{task.relists}", context.market.tasks.expire(task.id), task.id)


def is_standing(context: Context, found: RoundRecord | None, patience: int) -> bool:
    """Whether a round's claim has been beyond dispute for so long."""
    if found is None or found.state is not RoundState.DISCLOSED:
        return False
    return context.view.claims.is_standing(found.id, context.view.time - patience)


def settling(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Settle a proof, or a profile, whose claims all stand."""
    view, settlement = context.view, context.market.settlement
    if any(not is_standing(context, view.current_round(task.id, share), patience) for share in task.checked_shares):
        return
    if task.state is TaskState.PROFILING:
        yield Send(f"settle-profile:{task.id:x}", settlement.settle_profile(task.id), task.id)
    elif not view.is_pending(task.id):
        yield Send(f"settle:{task.id:x}", settlement.settle(task.id), task.id)


def closing_accusations(context: Context, patience: int) -> Iterator[Action]:
    """Close accusations that nobody can dispute any more, or whose task is over; those concerned do at once."""
    view = context.view
    for line in view.claims.open_accusations():
        task = view.task(line.task_id)
        wait = 0 if context.me in (task.solver, line.claimant) else patience
        if not line.open_cases and (task.state.is_over or view.time > line.until + wait):
            call = context.market.claims.close_accusation(line.id)
            yield Send(f"close-accusation:{line.id:x}", call, line.task_id, line.segment)


def releasing(context: Context) -> Iterator[Action]:
    """Release the own rounds of tasks that have ended otherwise than by settling."""
    for found in context.view.rounds_holding(context.me):
        task = context.view.task(found.task_id)
        share = task.shares[found.share]
        if not task.state.is_over or share.state is not ShareState.WORKING or share.round_id != found.id:
            continue
        if found.state is not RoundState.DISCLOSED or is_standing(context, found, 0):
            yield _release(context, task, share)


def releasing_for_all(context: Context, patience: int) -> Iterator[Action]:
    """Release shares of ended tasks whoever they concern: fees go back to submitters, seats to absent verifiers.

    Those concerned come first, so this waits for `patience` seconds longer where a claim has a window, and for as many
    blocks where none has.
    """
    view = context.view
    for task in view.unreleased():
        for share in task.shares.values():
            found = view.rounds.get(share.round_id) if share.state is ShareState.WORKING else None
            if found is not None and found.state is RoundState.DISCLOSED:
                ready = is_standing(context, found, patience)
            else:
                ready = view.block > task.finished_block + patience
            if share.state is not ShareState.RELEASED and ready:
                yield _release(context, task, share)


def _release(context: Context, task: TaskRecord, share: ShareRecord) -> Send:
    call = context.market.settlement.release(task.id, share.number)
    return Send(f"release:{task.id:x}:{share.number}", call, task.id)


# ---- Money ----------------------------------------------------------------------------------------------------------


def deposit(context: Context, amount: int, serves: str | None = None) -> Send:
    """Add to the own stake. Named by the number of deposits on chain so far, so that a restart does not repeat it."""
    number = context.view.accounts.deposits[context.me]
    return Send(f"deposit:{number}", context.market.stakes.deposit(amount), serves=serves)


def withdrawal(context: Context, least: int) -> Iterator[Action]:
    """Pay out the credit once it is worth a transaction."""
    if context.purse.credit >= max(1, least):
        number = context.view.accounts.withdrawals[context.me]
        yield Send(f"withdraw:{number}", context.market.stakes.withdraw())
