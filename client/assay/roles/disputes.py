"""Cases of the court: opening them on claims that the own work contradicts, and the moves of both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from assay.chain.sender import Call
from assay.commitments.execution import ProfileLeaf, ReplayLeaf, claim_root
from assay.dispute.case import CaseView, Part, Phase
from assay.dispute.evidence import OpenEvidence, open_profile, open_replay
from assay.dispute.execution import Execution
from assay.dispute.hash_tree import LeafTree
from assay.dispute.moves import Move
from assay.dispute.player import challenger_move, claimant_move
from assay.market.claims import claim_id_of
from assay.market.court import CourtContract
from assay.market.records import CaseRecord
from assay.market.view import MarketView
from assay.roles.context import Action, Context, Send, Work
from assay.roles.subjects import (
    HashedLeaf,
    Subject,
    first_difference,
    hashed,
    profiles_on_chain,
    replays_on_chain,
    subject_of_case,
)

# ---- The court ------------------------------------------------------------------------------------------------------


def own_cases(view: MarketView, me: str) -> list[CaseRecord]:
    """Open cases in which an account is a party."""
    return [case for case in view.claims.open_cases() if me in (case.claimant, case.challenger)]


def in_turn(view: CaseView) -> str:
    """The party whose clock runs."""
    return view.challenger if view.cursor.phase is Phase.CHOOSE else view.claimant


def is_turn(view: CaseView, me: str) -> bool:
    """Whether a case waits for this party. The last move is anybody's."""
    return view.cursor.phase is Phase.PROVE or me == in_turn(view)


def court_moves(context: Context) -> Iterator[Action]:
    """The moves that are due in the own cases, and timeouts of silent opponents."""
    for case in own_cases(context.view, context.me):
        about = subject_of_case(context.view, case)
        if about is None:
            continue
        subject, place = about
        execution = partial(context.bench.execution, subject, place)
        yield from moves_in(
            context, case.id, context.market.court, execution, case.task_id, subject.segments[place]
        )  # fmt: skip


def moves_in(
    context: Context, case_id: int, court: CourtContract, execution: Callable[[], Execution], task: int, segment: int
) -> Iterator[Action]:
    """The move that is due in a case of a court, or the timeout of a silent opponent. `execution` makes the own one."""
    view = context.cases.get(case_id)
    if view is None or view.cursor.phase is Phase.CLOSED:
        return
    name = f"{case_id:x}:{view.position.hex()}"
    if context.me != in_turn(view) and context.view.time > context.deadlines.get(case_id, 2**63):
        yield Send(f"case-timeout:{name}", court.timeout(case_id), task, segment)
        return
    if not is_turn(view, context.me):
        return
    key = f"move:{name}"
    move = context.results.result(key)
    if move is None:
        yield Work(key, lambda: next_move(context.me, view, execution()))
    elif isinstance(move, Move):
        yield Send(f"{key}:{move.function}", court.move(case_id, view.position, move), task, segment)


def next_move(me: str, view: CaseView, execution: Execution) -> Move | str:
    """A party's next move in a case, or a word why there is none."""
    play = claimant_move if me == view.claimant else challenger_move
    return play(view, execution) or "nothing"


# ---- Disputes -------------------------------------------------------------------------------------------------------


def claim_work(context: Context, subject: Subject) -> Work:
    """The work of finding the true claim about a subject."""
    return Work(subject.key, lambda: context.bench.claim(subject))


def dispute(context: Context, subject: Subject, line_id: int, only_if_it_passes: bool = False) -> Iterator[Action]:
    """Open a case on the claim that now holds in a line (of a round, or an accusation) if the own claim is another.

    `only_if_it_passes`: a solver has nothing to win by a claim according to which its proof fails as well.
    """
    view = context.view
    line = view.claims.lines.get(line_id)
    if line is None or line.is_closed or view.time > line.until or line.root not in line.leaves:
        return
    mine = context.results.result(subject.key)
    if mine is None:
        yield claim_work(context, subject)
        return
    own_root = claim_root(mine)
    if line.root == own_root or (only_if_it_passes and not context.bench.passes(subject, mine)):
        return
    claim_id = claim_id_of(line.id, line.root, line.claimant)
    if view.claims.is_challenged_by(claim_id, context.me):
        return
    task = subject.task
    if own_root not in line.published or claim_id not in view.claims.opened:
        yield Send(f"publish:{line.id:x}:{claim_id:x}", publication(context, subject, line.id, mine), task.id)
        return
    theirs = hashed(line.leaves[line.root], subject.segments)
    place, part = first_difference(mine, theirs)
    evidence = evidence_against(context, subject, theirs, place, part)
    bond = context.market.parameters.case_bond
    call = context.market.court.open(claim_id, place, part, own_root, evidence.as_tuple(), bond)
    yield Send(f"case:{claim_id:x}", call, task.id, subject.segments[place])


def publication(context: Context, subject: Subject, line_id: int, leaves: Sequence[HashedLeaf]) -> Call:
    """Put the leaves of an answer on chain, which opens the line's claim to the court."""
    claims = context.market.claims
    if subject.is_profile:
        return claims.publish_profile(line_id, profiles_on_chain(leaves))
    openings = context.bench.checkpoint_openings(subject.task, subject.segments)
    return claims.publish_replay(line_id, replays_on_chain(leaves), openings)


def evidence_against(
    context: Context, subject: Subject, theirs: Sequence[HashedLeaf], place: int, part: Part
) -> OpenEvidence:
    """What opens a case on a part of a leaf of somebody's claim."""
    header = subject.task.posting.header
    if subject.is_profile:
        return open_profile([leaf for leaf in theirs if isinstance(leaf, ProfileLeaf)], place, header)
    checkpoints = LeafTree(context.bench.manifest(subject.task).roots)
    replays = [leaf for leaf in theirs if isinstance(leaf, ReplayLeaf)]
    return open_replay(replays, place, subject.segments[place], part, checkpoints, header)
