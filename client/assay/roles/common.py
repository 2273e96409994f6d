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
from assay.market.records import CaseRecord, RoundRecord, TaskRecord
from assay.market.types import ClaimKind, RoundState, ShareState, TaskState
from assay.market.view import MarketView
from assay.roles.bench import committed, on_chain
from assay.roles.context import Action, Context, Send, Work


def draws(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Draws of a task that are due for `patience` blocks: whoever carries one out earns its bounty."""
    for share in task.shares.values():
        if share.state is ShareState.AWAITING and context.view.block > share.draw_block + patience:
            key = f"draw:{task.id:x}:{share.number}:{share.attempt}:{share.draw_block}"
            yield Send(key, context.market.verification.draw(task.id, share.number), task.id)


def timeouts(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Rounds of a task whose verifier has been silent for `patience` seconds (or blocks) beyond its time."""
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


def is_standing(context: Context, found: RoundRecord | None, patience: int) -> bool:
    """Whether a round's claim has been beyond dispute for `patience` seconds."""
    if found is None or found.state is not RoundState.DISCLOSED:
        return False
    return context.view.is_standing(found.id, context.view.time - patience)


def settling(context: Context, task: TaskRecord, patience: int) -> Iterator[Action]:
    """Settle a task whose claims have all stood for `patience` seconds."""
    view = context.view
    if any(not is_standing(context, view.current_round(task.id, share), patience) for share in task.checked_shares):
        return
    if not view.is_pending(task.id):
        yield Send(f"settle:{task.id:x}", context.market.settlement.settle(task.id), task.id)


def releasing(context: Context) -> Iterator[Action]:
    """Release the own rounds of tasks that have ended otherwise than by settling."""
    for found in context.view.rounds_holding(context.me):
        task = context.view.task(found.task_id)
        share = task.shares[found.share]
        if not task.state.is_over or share.state is not ShareState.WORKING or share.round_id != found.id:
            continue
        if found.state is not RoundState.DISCLOSED or is_standing(context, found, 0):
            key = f"release:{task.id:x}:{share.number}"
            yield Send(key, context.market.settlement.release(task.id, share.number), task.id)


def upkeep(context: Context, patience: int) -> Iterator[Action]:
    """What anybody may do for the tasks under verification."""
    for task in context.view.in_state(TaskState.VERIFYING):
        yield from draws(context, task, patience)
        yield from timeouts(context, task, patience)
        yield from settling(context, task, patience)
    yield from releasing(context)


def deposit(context: Context, amount: int) -> Send:
    """Add to the own stake. Named by the number of deposits on chain so far, so that a restart does not repeat it."""
    number = context.view.deposits[context.me]
    return Send(f"deposit:{number}", context.market.stakes.deposit(amount))


def withdrawal(context: Context, least: int) -> Iterator[Action]:
    """Pay out the credit once it is worth a transaction."""
    if context.purse.credit >= max(1, least):
        number = context.view.withdrawals[context.me]
        yield Send(f"withdraw:{number}", context.market.stakes.withdraw())


# ---- The court ------------------------------------------------------------------------------------------------------


def subject_of(view: MarketView, case: CaseRecord) -> tuple[TaskRecord, int, int] | None:
    """Task, segment and draw seed that a case is about."""
    claim = view.claims.get(case.claim_id)
    if claim is None:
        return None
    task = view.task(case.task_id)
    if claim.kind is ClaimKind.TRAINING:
        return task, case.leaf - 1, 0
    found = view.rounds.get(claim.line)
    return None if found is None else (task, found.segments[case.leaf], found.draw_seed)


def own_cases(view: MarketView, me: str) -> list[CaseRecord]:
    """Open cases in which an account is a party."""
    return [case for case in view.open_cases() if me in (case.claimant, case.challenger)]


def is_turn(view: CaseView, me: str) -> bool:
    """Whether a case waits for this party. The last move is anybody's."""
    if view.cursor.phase is Phase.PROVE:
        return True
    return me == (view.challenger if view.cursor.phase is Phase.CHOOSE else view.claimant)


def court_moves(context: Context) -> Iterator[Action]:
    """The moves that are due in the own cases, and timeouts of silent opponents."""
    for case in own_cases(context.view, context.me):
        view, subject = context.cases.get(case.id), subject_of(context.view, case)
        if view is None or subject is None or view.cursor.phase is Phase.CLOSED:
            continue
        task, segment, draw_seed = subject
        name = f"{case.id:x}:{view.position.hex()}"
        if not is_turn(view, context.me):
            if context.view.time > context.deadlines.get(case.id, 2**63):
                yield Send(f"case-timeout:{name}", context.market.court.timeout(case.id), task.id, segment)
            continue
        key = f"move:{name}"
        move = context.results.result(key)
        if move is None:
            yield Work(key, lambda t=task, s=segment, d=draw_seed, v=view: next_move(context, t, s, d, v))  # type: ignore[misc]
        elif isinstance(move, Move):
            call = context.market.court.move(case.id, view.position, move)
            yield Send(f"{key}:{move.function}", call, task.id, segment)


def next_move(context: Context, task: TaskRecord, segment: int, draw_seed: int, view: CaseView) -> Move | str:
    """The next move in a case, or a word why there is none."""
    execution = context.bench.execution(task, segment, draw_seed)
    play = claimant_move if context.me == view.claimant else challenger_move
    return play(view, execution) or "nothing"


# ---- Disputes -------------------------------------------------------------------------------------------------------


def dispute(context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
    """Open a case on the claim that now holds in a round if the own replay says something else."""
    line = context.view.lines.get(found.id)
    if line is None or found.state is not RoundState.DISCLOSED or context.view.time > line.until:
        return
    mine = context.results.result(replay_key(found))
    if mine is None:
        yield replay_work(context, found, task)
        return
    own_root = claim_root(mine)
    if line.root == own_root or line.root not in line.leaves:
        return
    claim_id = claim_id_of(line.id, line.root, line.claimant)
    if any(case.challenger == context.me for case in context.view.cases_on(claim_id)):
        return
    if own_root not in line.published or claim_id not in context.view.claims:
        openings = context.bench.checkpoint_openings(task, found.segments)
        call = context.market.claims.publish_replay(line.id, [on_chain(leaf) for leaf in mine], openings)
        yield Send(f"publish:{line.id:x}:{claim_id:x}", call, task.id)
        return
    theirs = committed(line.leaves[line.root], found.segments)
    place = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    if mine[place].end_root != theirs[place].end_root:
        part = Part.END
    elif mine[place].distance_bits != theirs[place].distance_bits:
        part = Part.DISTANCE
    else:
        part = Part.TRACE
    checkpoints = LeafTree(context.bench.manifest(task).roots)
    evidence = open_replay(theirs, place, found.segments[place], part, checkpoints, task.posting.header)
    bond = context.market.parameters.case_bond
    call = context.market.court.open(claim_id, place, part, own_root, evidence.as_tuple(), bond)
    yield Send(f"case:{claim_id:x}", call, task.id, found.segments[place])


def replay_key(found: RoundRecord) -> str:
    """Name of the work of replaying a round's segments."""
    return f"replay:{found.id:x}:{found.draw_seed:x}"


def replay_work(context: Context, found: RoundRecord, task: TaskRecord) -> Work:
    """The work itself."""
    return Work(replay_key(found), lambda: context.bench.replay(task, found.segments, found.draw_seed))


def checkpoint_proofs(roots: list[bytes] | tuple[bytes, ...]) -> tuple[list[bytes], list[bytes]]:
    """Siblings of the first and of the last checkpoint."""
    levels = tree.levels(roots)
    return tree.proof_of(levels, 0), tree.proof_of(levels, len(roots) - 1)
