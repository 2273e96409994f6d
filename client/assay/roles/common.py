"""Decisions that several roles share: draws, timeouts, settling, money, and the moves of cases."""

from __future__ import annotations

from collections.abc import Iterator

from assay.commitments import tree
from assay.commitments.execution import claim_root
from assay.dispute.case import CaseView, Part, Phase
from assay.dispute.evidence import open_replay
from assay.dispute.hash_tree import LeafTree
from assay.dispute.moves import Move
from assay.dispute.player import challenger_move, claimant_move
from assay.market.claims import claim_id_of
from assay.market.types import ClaimKind, RoundState, TaskState
from assay.roles.bench import committed, on_chain
from assay.roles.context import Action, Context, Send, Work
from assay.roles.records import CaseRecord, MarketRecord, RoundRecord, TaskRecord


def draws(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Draws of a task that are due for `patience` blocks: whoever carries one out earns its bounty."""
    for share, due in task.draws.items():
        if context.moment.block > due.draw_block + patience:
            key = f"draw:{task.task_id:x}:{share}:{due.attempt}:{due.draw_block}"
            yield Send(key, context.access.verification.draw(task.task_id, share), task.task_id)


def timeouts(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Rounds of a task whose verifier has been silent for `patience` seconds (or blocks) beyond its time."""
    moment = context.moment
    for share in task.rounds:
        found = context.market.current_round(task, share)
        if found is None:
            continue
        late = found.state in (RoundState.DRAWN, RoundState.SHOWN) and moment.time > found.deadline + patience
        missed = found.state is RoundState.COMMITTED and moment.block > found.show_until_block + patience
        if late or missed:
            key = f"timeout:{found.round_id:x}:{found.state.name}"
            yield Send(key, context.access.verification.timeout(found.round_id), task.task_id)


def is_standing(context: Context, found: RoundRecord | None, patience: int) -> bool:
    """Whether a round's claim has been beyond dispute for `patience` seconds."""
    if found is None or found.state is not RoundState.DISCLOSED:
        return False
    line = context.market.lines.get(found.round_id)
    if line is None or context.moment.time <= line.until + patience:
        return False
    return not context.market.open_cases_of(found.round_id)


def settling(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Settle a task whose claims have all stood for `patience` seconds."""
    market = context.market
    shares = range(task.posting.verifiers)
    if any(not is_standing(context, market.current_round(task, share), patience) for share in shares):
        return
    pending = any(
        demand.task_id == task.task_id and demand.served is None for demand in market.demands.values()
    ) or any(
        market.training_lines.get(market.claims[case.claim_id].line) == task.task_id
        for case in market.cases.values()
        if case.challenger_won is None and case.claim_id in market.claims
    )
    if not pending:
        yield Send(f"settle:{task.task_id:x}", context.access.settlement.settle(task.task_id), task.task_id)


def releasing(context: Context, task: TaskRecord) -> Iterator[Action]:
    """Release the own rounds of a task that has ended otherwise than by settling."""
    for share in task.rounds:
        found = context.market.current_round(task, share)
        if found is None or found.released or found.state is RoundState.VOID:
            continue
        concerned = context.me == found.verifier or context.me in found.joined
        ready = found.state is not RoundState.DISCLOSED or is_standing(context, found, 0)
        if concerned and ready:
            key = f"release:{task.task_id:x}:{share}"
            yield Send(key, context.access.settlement.release(task.task_id, share), task.task_id)


def upkeep(context: Context, patience: int) -> Iterator[Action]:
    """What anybody may do for the tasks under verification."""
    for task in context.market.tasks.values():
        if task.state is TaskState.VERIFYING:
            yield from draws(context, task, patience)
            yield from timeouts(context, task, patience)
            yield from settling(context, task, patience)
        elif task.state.is_over:
            yield from releasing(context, task)


def deposit(context: Context, amount: int) -> Send:
    """Add to the own stake. Named by the number of deposits on chain so far, so that a restart does not repeat it."""
    number = context.market.deposits.get(int(context.me, 16), 0)
    return Send(f"deposit:{number}", context.access.stakes.deposit(amount))


def withdrawal(context: Context, least: int) -> Iterator[Action]:
    """Pay out the credit once it is worth a transaction."""
    if context.purse.credit >= max(1, least):
        number = context.market.withdrawals.get(context.me, 0)
        yield Send(f"withdraw:{number}", context.access.stakes.withdraw())


# ---- The court ------------------------------------------------------------------------------------------------------


def subject_of(context: Context, case: CaseRecord) -> tuple[TaskRecord, int, int] | None:
    """Task, segment and draw seed that a case is about."""
    claim = context.market.claims.get(case.claim_id)
    task = context.market.task_of_line(claim.line) if claim else None
    if claim is None or task is None:
        return None
    if claim.kind is ClaimKind.TRAINING:
        return task, case.leaf - 1, 0
    found = context.market.rounds.get(claim.line)
    return None if found is None else (task, found.segments[case.leaf], found.draw_seed)


def own_cases(market: MarketRecord, me: str) -> list[CaseRecord]:
    """Open cases in which an account is a party."""
    return [
        case for case in market.cases.values() if case.challenger_won is None and me in (case.claimant, case.challenger)
    ]


def is_turn(view: CaseView, me: str) -> bool:
    """Whether a case waits for this party. The last move is anybody's."""
    if view.cursor.phase is Phase.PROVE:
        return True
    return me == (view.challenger if view.cursor.phase is Phase.CHOOSE else view.claimant)


def court_moves(context: Context) -> Iterator[Action]:
    """The moves that are due in the own cases, and timeouts of silent opponents."""
    for case in own_cases(context.market, context.me):
        view, subject = context.cases.get(case.case_id), subject_of(context, case)
        if view is None or subject is None or view.cursor.phase is Phase.CLOSED:
            continue
        task, segment, draw_seed = subject
        name = f"{case.case_id:x}:{view.position.hex()}"
        if not is_turn(view, context.me):
            if context.moment.time > context.deadlines.get(case.case_id, 2**63):
                yield Send(f"case-timeout:{name}", context.access.court.timeout(case.case_id), task.task_id, segment)
            continue
        key = f"move:{name}"
        move = context.results.result(key)
        if move is None:
            yield Work(key, lambda t=task, s=segment, d=draw_seed, v=view: next_move(context, t, s, d, v))  # type: ignore[misc]
        elif isinstance(move, Move):
            call = context.access.court.move(case.case_id, view.position, move)
            yield Send(f"{key}:{move.function}", call, task.task_id, segment)


def next_move(context: Context, task: TaskRecord, segment: int, draw_seed: int, view: CaseView) -> Move | str:
    """The next move in a case, or a word why there is none."""
    execution = context.bench.execution(task, segment, draw_seed)
    play = claimant_move if context.me == view.claimant else challenger_move
    return play(view, execution) or "nothing"


# ---- Disputes -------------------------------------------------------------------------------------------------------


def dispute(context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
    """Open a case on the claim that now holds in a round if the own replay says something else."""
    line = context.market.lines.get(found.round_id)
    if line is None or found.state is not RoundState.DISCLOSED or context.moment.time > line.until:
        return
    mine = context.results.result(replay_key(found))
    if mine is None:
        yield replay_work(context, found, task)
        return
    own_root = claim_root(mine)
    if line.root == own_root or line.root not in line.leaves:
        return
    claim_id = claim_id_of(line.line, line.root, line.claimant)
    if any(c.claim_id == claim_id and c.challenger == context.me for c in context.market.cases.values()):
        return
    if own_root not in line.leaves or claim_id not in context.market.claims:
        openings = context.bench.checkpoint_openings(task, found.segments)
        call = context.access.claims.publish_replay(line.line, [on_chain(leaf) for leaf in mine], openings)
        yield Send(f"publish:{line.line:x}:{claim_id:x}", call, task.task_id)
        return
    theirs = [committed(leaf, s) for leaf, s in zip(line.leaves[line.root], found.segments, strict=True)]
    place = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    if mine[place].end_root != theirs[place].end_root:
        part = Part.END
    elif mine[place].distance_bits != theirs[place].distance_bits:
        part = Part.DISTANCE
    else:
        part = Part.TRACE
    checkpoints = LeafTree(context.bench.manifest(task).roots)
    evidence = open_replay(theirs, place, found.segments[place], part, checkpoints, task.posting.header)
    bond = context.access.parameters.case_bond
    call = context.access.court.open(claim_id, place, part, own_root, evidence.as_tuple(), bond)
    yield Send(f"case:{claim_id:x}", call, task.task_id, found.segments[place])


def replay_key(found: RoundRecord) -> str:
    """Name of the work of replaying a round's segments."""
    return f"replay:{found.round_id:x}:{found.draw_seed:x}"


def replay_work(context: Context, found: RoundRecord, task: TaskRecord) -> Work:
    """The work itself."""
    return Work(replay_key(found), lambda: context.bench.replay(task, found.segments, found.draw_seed))


def checkpoint_proofs(roots: list[bytes] | tuple[bytes, ...]) -> tuple[list[bytes], list[bytes]]:
    """Siblings of the first and of the last checkpoint."""
    levels = tree.levels(roots)
    return tree.proof_of(levels, 0), tree.proof_of(levels, len(roots) - 1)
