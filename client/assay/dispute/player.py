"""The player: from a case's state and one's own execution to the next move. Pure; the sender is elsewhere."""

from __future__ import annotations

from assay.arithmetic.binary32 import WORD_MASK
from assay.commitments.tensor import chunks_of
from assay.dispute import evidence, moves
from assay.dispute.case import DEVIATION_PARTS, FIRST_LEVELS, LEVELS, CaseView, Part, Phase, Tree, TreePlace
from assay.dispute.errors import DisputeError
from assay.dispute.execution import Execution, trace_position
from assay.dispute.hash_tree import ChunkTree, HashTree, below, root
from assay.program.encoding import encode_header


def tree_of(view: CaseView, execution: Execution, place: TreePlace) -> HashTree:
    """One's own tree for a place of the case."""
    if place.tree == Tree.SEGMENT:
        return execution.segment(place.role)
    if place.tree == Tree.TRACE:
        return execution.trace(place.role)
    if place.tree == Tree.OPERATORS:
        return execution.outputs(place.role, place.step)
    if place.tree == Tree.NEXT_STATE:
        return execution.state(place.role, place.step)
    return chunks_in(execution, place)


def chunks_in(execution: Execution, place: TreePlace) -> ChunkTree:
    """One's own tensor for a place of the case: an operator's output, or the partial sums of an element."""
    if place.tree == Tree.TENSOR:
        return execution.output(place.role, place.step, place.operator)
    return execution.sums(place.role, place.step, place.operator, place.element)


def chunk_of(view: CaseView, execution: Execution) -> bytes:
    """One's own bytes for the disputed chunk."""
    place = view.place
    if place.tree == Tree.TRACE:
        return execution.trace_chunk(place.role, view.cursor.step)
    return chunks_in(execution, place).chunk(view.cursor.index)


# ---- The claimant ---------------------------------------------------------------------------------------------------


def claimant_move(view: CaseView, execution: Execution) -> moves.Move | None:
    """The claimant's next move, given the execution that its claim was made of; None when it is not its turn."""
    phase = view.cursor.phase
    if phase == Phase.EXPAND:
        return _expand(view, execution)
    if phase == Phase.REVEAL:
        return _reveal(view, execution)
    if phase == Phase.PROVE:
        return prove(view, execution)
    return None


def _expand(view: CaseView, execution: Execution) -> moves.Move:
    place = view.place
    own = tree_of(view, execution, place)
    if place.tree == Tree.SEGMENT and view.part in DEVIATION_PARTS:
        # Only bound here; what is shown next is the deviation section's own tree.
        return moves.expand(root(own), b"")
    shown = own
    if place.tree == Tree.SEGMENT and view.part == Part.TRACE:
        shown = execution.trace(place.role)
    if place.tree == Tree.SUMS and own.depth == 0:
        # A single chunk is a reveal of its own.
        return moves.expand(root(own), b"")
    return moves.expand(root(own), below(shown, shown.depth, 0, min(shown.depth, FIRST_LEVELS)))


def _reveal(view: CaseView, execution: Execution) -> moves.Move:
    cursor = view.cursor
    if cursor.levels == 0:
        return moves.reveal(chunk_of(view, execution))
    own = tree_of(view, execution, view.place)
    return moves.reveal(below(own, cursor.levels, cursor.index, min(cursor.levels, LEVELS)))


def prove(view: CaseView, execution: Execution) -> moves.Move:
    """The last move, whoever makes it."""
    if view.cursor.tree == Tree.NEXT_STATE:
        return evidence.prove_next_state(view, execution)
    return evidence.prove(view, execution)


# ---- The challenger -------------------------------------------------------------------------------------------------


def challenger_move(view: CaseView, execution: Execution) -> moves.Move | None:
    """The challenger's next move, given its own execution; None when it has nothing to do.

    It goes to the leftmost thing it disagrees with. Where a whole tree agrees with its own, what the tree was bound
    to is false, and it goes to the leaf that shows it. It also proves, when the claimant leaves that to it.
    """
    if view.cursor.phase == Phase.PROVE:
        return prove(view, execution)
    if view.cursor.phase != Phase.CHOOSE:
        return None
    if _denies_segment_tree(view, execution):
        return moves.choose_segment_tree(view.facts.as_tuple(), encode_header(execution.program))
    if view.cursor.levels == 0 and view.cursor.tree != Tree.OPERATORS:
        return _choose_element(view, execution)
    return _choose_node(view, execution)


def _denies_segment_tree(view: CaseView, execution: Execution) -> bool:
    """Whether the segment tree that a trace or deviation was expanded with is not one's own."""
    if view.segment_root is None:
        return False
    at_top = (view.part == Part.TRACE and view.cursor.tree == Tree.TRACE) or (
        view.part in DEVIATION_PARTS and view.cursor.tree == Tree.OPERATORS
    )
    return at_top and view.segment_root != root(execution.segment(view.run_role))


def _choose_node(view: CaseView, execution: Execution) -> moves.Move:
    cursor, place = view.cursor, view.place
    own = tree_of(view, execution, place)
    height = cursor.levels - cursor.shown
    first = cursor.index << cursor.shown
    shown = [view.shown[at : at + 32] for at in range(0, len(view.shown), 32)]
    differing = [i for i, value in enumerate(shown) if value != own.node(height, first + i)]
    if differing:
        chosen = differing[0]
    else:
        target = _telling_leaf(view, execution)
        if target is None:
            return moves.choose_next_state(*evidence.state_after_claimed(view, execution))
        chosen = (target >> height) - first
        if not 0 <= chosen < len(shown):
            raise DisputeError(
                f"case {view.case_id:#x}: nothing shown in {place} differs from the own execution, "
                f"and leaf {target} is not below it: check that the execution is of this task and segment"
            )
    proof = _siblings_shown(view, chosen)
    if cursor.tree == Tree.OPERATORS and height == 0 and first + chosen < view.operators:
        record = evidence.record_opening(execution.program, view.role, first + chosen)
        return moves.choose_operator(chosen, shown[chosen], proof, record)
    return moves.choose(chosen, shown[chosen], proof)


def _siblings_shown(view: CaseView, chosen: int) -> list[bytes]:
    """Siblings of a shown node under the disputed one, from the claimant's own hashes."""
    cursor, known = view.cursor, view.known[view.place]
    first = cursor.index << cursor.shown
    bottom = cursor.levels - cursor.shown
    return [known[(bottom + level, ((first + chosen) >> level) ^ 1)] for level in range(cursor.shown)]


def _telling_leaf(view: CaseView, execution: Execution) -> int | None:
    """The leaf to go to in a tree equal to one's own, whose binding is false; None: the state after the step."""
    tree = view.cursor.tree
    if tree == Tree.SEGMENT:
        return view.steps - 1
    if tree == Tree.SUMS:
        return chunks_of(view.cursor.terms) - 1
    if tree == Tree.TENSOR:
        return _traced(view, execution)[1] >> 8
    if tree == Tree.OPERATORS:
        if view.part in (Part.END, Part.NOISY_END):
            return None
        if view.part == Part.TRACE:
            return _traced(view, execution)[0]
        return view.operators - (2 if view.part == Part.THRESHOLD else 1)
    raise DisputeError(
        f"case {view.case_id:#x}: the claimant's {tree.name.lower()} tree is the own one: there is nothing to dispute"
    )


def _traced(view: CaseView, execution: Execution) -> tuple[int, int]:
    """Operator and element that the disputed trace value is of."""
    operators = execution.program.section(view.role).operators
    return trace_position(view.draw_seed, view.first_step + view.cursor.step, view.trace_place, operators)


def _choose_element(view: CaseView, execution: Execution) -> moves.Move:
    cursor = view.cursor
    own = chunk_of(view, execution)
    if cursor.tree == Tree.TENSOR and view.part == Part.TRACE and view.shown == own:
        return moves.choose_element(_traced(view, execution)[1] & 255, view.shown)
    for place in range(len(own) // 4):
        if view.shown[4 * place : 4 * place + 4] != own[4 * place : 4 * place + 4]:
            return moves.choose_element(place, view.shown)
    if cursor.tree == Tree.SUMS:
        return moves.choose_element((cursor.terms - 1) & 255, view.shown)
    raise DisputeError(
        f"case {view.case_id:#x}: the chunk shown is the own one, so there is nothing to dispute: "
        f"check value {cursor.value & WORD_MASK:#010x} of operator {cursor.operator}"
    )
