"""The openings that the last move of a case takes, and those that open a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.commitments import tree
from assay.commitments.execution import ProfileLeaf, ReplayLeaf
from assay.dispute import moves
from assay.dispute.case import CaseView, Nodes, Part, Tree, TreePlace
from assay.dispute.execution import Execution, context_of
from assay.dispute.hash_tree import ChunkTree, HashTree, LeafTree, siblings
from assay.program.encoding import encode_header, encode_operator, program_tree, state_entry_bytes, state_table_leaves
from assay.program.operator import Body, Operator, Program, Role, Source
from assay.program.reference import loop_indices, position

ROOTLESS = (Source.THRESHOLD,)
"""Sources that are one tensor and not a tree of tensors."""


def record_opening(program: Program, role: Role, operator: int) -> moves.RecordOpening:
    """The record of an operator with its way up the program tree."""
    section = program.section(role)
    record = section.operators[operator]
    return encode_operator(record), record.work, program_tree(section).proof(operator)


def chunk_opening(
    tensor: ChunkTree, element: int, above: Sequence[bytes] = (), known: Nodes | None = None
) -> moves.Opening:
    """The chunk that holds an element, its siblings in the tensor, and those above the tensor."""
    index = element >> 8
    return tensor.chunk(index), [*siblings(tensor, index, known), *above]


def operand_opening(
    view: CaseView, execution: Execution, role: Role, source: Source, index: int, element: int
) -> moves.Opening:
    """One element that the disputed operator reads, opened under the root the court holds for its source."""
    step = view.cursor.step
    tensor = execution.tensor(role, step, source, index)
    if source in ROOTLESS:
        return chunk_opening(tensor, element)
    known = view.known.get(TreePlace(Tree.OPERATORS, role, step)) if source == Source.OPERATOR else None
    above = siblings(execution.tensors(role, step, source), index, known)
    after = None
    if source == Source.STATE and role in (Role.STEP, Role.NOISY_STEP):
        after = step - 1
    elif source == Source.PENULTIMATE:
        after = execution.steps - 2
    if after is not None and after >= 0:
        above += segment_siblings(view, execution, after)
    return chunk_opening(tensor, element, above)


def segment_siblings(view: CaseView, execution: Execution, step: int) -> list[bytes]:
    """Siblings of a leaf of the claimant's segment tree; a segment of one step has none."""
    role = view.run_role
    return siblings(execution.segment(role), step, view.known.get(TreePlace(Tree.SEGMENT, role)))


def operands_of(
    view: CaseView, execution: Execution, role: Role, operator: Operator, term: int, leader: int
) -> list[moves.Opening]:
    """Openings of what the operator reads at the case's element and a term. `leader` is the term that led before it
    (fold_argmax)."""
    element = view.cursor.element
    outer = loop_indices(element, operator.extents)
    indices = outer + loop_indices(term, operator.reduced)
    reads = [(operand, indices) for operand in operator.operands]
    if operator.body == Body.FOLD_ARGMAX and term > 0:
        reads.append((operator.operands[0], outer + loop_indices(leader, operator.reduced)))
    openings: list[moves.Opening] = []
    row = 0
    for number, (operand, place) in reversed(list(enumerate(reads))):
        opening = moves.NOTHING
        where = position(operand, place)
        if operator.body == Body.GATHER and number == 0 and where is not None:
            where = where + operator.p0 * row if 0 <= row < operator.p1 else None
        word = operand.fill if where is None else 0
        if operand.source == Source.IMMEDIATE:
            word = operand.index
        elif operand.source == Source.STEP and where is not None:
            word = context_of(execution, role, view.cursor.step).step
        elif operand.source == Source.INDEX and where is not None:
            word = where
        elif where is not None:
            opening = operand_opening(view, execution, role, operand.source, operand.index, where)
            word = int.from_bytes(opening[0][4 * (where & 255) : 4 * (where & 255) + 4], "little")
        row = word - (1 << 32) if word >= 1 << 31 else word
        openings.append(opening)
    return openings[::-1]


def previous_sum(view: CaseView, execution: Execution, term: int) -> moves.Opening:
    """The partial sum before the disputed one, under the claimant's tree of partial sums."""
    place = view.place
    tree_of_sums = execution.sums(place.role, place.step, place.operator, place.element)
    index = (term - 1) >> 8
    # In the disputed chunk the claimant's own bytes are what hashes to its root.
    chunk = view.shown if index == term >> 8 else tree_of_sums.chunk(index)
    return chunk, siblings(tree_of_sums, index, view.known.get(place))


def prove(view: CaseView, execution: Execution) -> moves.Move:
    """The last move of a case about an operator."""
    program, cursor, role = execution.program, view.cursor, view.role
    operator = program.section(role).operators[cursor.operator]
    term = cursor.index if cursor.terms > 1 else 0
    previous, leader = moves.NOTHING, 0
    if term > 0:
        previous = previous_sum(view, execution, term)
        at = 4 * ((term - 1) & 255)
        leader = int.from_bytes(previous[0][at : at + 4], "little")
    operands = operands_of(view, execution, role, operator, term, leader)
    opened = record_opening(program, role, cursor.operator)
    return moves.prove(view.facts.as_tuple(), encode_header(program), opened, operands, previous)


def prove_next_state(view: CaseView, execution: Execution) -> moves.Move:
    """The last move of a case about a tensor of the next state."""
    program, role, step, number = execution.program, view.role, view.cursor.step, view.cursor.index
    section = program.section(role)
    entry, descriptor = section.next_state[number], program.state[number]
    text = state_entry_bytes(number, entry, descriptor)
    table = LeafTree(state_table_leaves(section, program.state))
    if entry.operator is None:
        source, index = execution.tensors(role, step, Source.STATE), number
        above = segment_siblings(view, execution, step - 1) if step > 0 else []
        known = None
    else:
        source, index = execution.outputs(role, step), entry.operator
        above, known = [], view.known.get(TreePlace(Tree.OPERATORS, role, step))
    proof = [*siblings(source, index, known), *above]
    fields = (text[0], int.from_bytes(text[1:5], "big"), text[5], int.from_bytes(text[6:10], "big"))
    evidence = (*fields, siblings(table, number), source.node(0, index), proof)
    return moves.prove_next_state(view.facts.as_tuple(), encode_header(program), evidence)


def state_after_claimed(view: CaseView, execution: Execution) -> tuple[bytes, list[bytes]]:
    """The claimant's state root after the disputed step, with its siblings under its segment tree."""
    step = view.cursor.step
    if view.steps == 1:
        return view.claimed, []
    known = view.known[TreePlace(Tree.SEGMENT, view.run_role)]
    return known[(0, step)], segment_siblings(view, execution, step)


@dataclass(frozen=True)
class OpenEvidence:
    """What opens a case; fields as in the contract's `OpenEvidence`."""

    leaf: bytes
    leaf_proof: Sequence[bytes]
    previous: bytes
    previous_proof: Sequence[bytes]
    compared: bytes
    compared_proof: Sequence[bytes]
    header: bytes

    def as_tuple(self) -> tuple[bytes, list[bytes], bytes, list[bytes], bytes, list[bytes], bytes]:
        """For the contract's ABI."""
        return (
            self.leaf,
            list(self.leaf_proof),
            self.previous,
            list(self.previous_proof),
            self.compared,
            list(self.compared_proof),
            self.header,
        )


def open_replay(
    leaves: Sequence[ReplayLeaf], number: int, segment: int, part: Part, checkpoints: HashTree, header: bytes
) -> OpenEvidence:
    """Evidence against leaf `number`, about `segment`, of a replay claim, given the solver's checkpoint tree."""
    claim = LeafTree([leaf.leaf() for leaf in leaves])
    compares = part == Part.DISTANCE
    return OpenEvidence(
        leaves[number].encode(),
        siblings(claim, number),
        checkpoints.node(0, segment),
        siblings(checkpoints, segment),
        checkpoints.node(0, segment + 1) if compares else tree.ZERO_HASH,
        siblings(checkpoints, segment + 1) if compares else [],
        header,
    )


def open_profile(leaves: Sequence[ProfileLeaf], number: int, header: bytes) -> OpenEvidence:
    """Evidence against a leaf of a profile claim."""
    claim = LeafTree([leaf.leaf() for leaf in leaves])
    previous = leaves[number - 1].encode() if number else b""
    proof = siblings(claim, number - 1) if number else []
    return OpenEvidence(leaves[number].encode(), siblings(claim, number), previous, proof, tree.ZERO_HASH, [], header)


def open_training(checkpoints: HashTree, number: int, header: bytes) -> OpenEvidence:
    """Evidence against leaf `number` (from 1) of a solver's checkpoint tree."""
    return OpenEvidence(
        checkpoints.node(0, number),
        siblings(checkpoints, number),
        checkpoints.node(0, number - 1),
        siblings(checkpoints, number - 1),
        tree.ZERO_HASH,
        [],
        header,
    )
