"""Claims about the small program, honest ones and ones with a lie at a place, and who plays them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import small_program

from assay.bench.arena import Arena, Player, PostedClaim
from assay.commitments.execution import ProfileLeaf, ReplayLeaf
from assay.dispute import player
from assay.dispute.case import CaseView, Part
from assay.dispute.evidence import OpenEvidence, open_profile, open_replay, open_training
from assay.dispute.execution import LocalExecution, word_of
from assay.dispute.hash_tree import ChunkTree, HashTree, LeafTree, TensorTree, root
from assay.dispute.moves import Move
from assay.program.encoding import encode_header, program_root
from assay.program.interpreter import SectionRun
from assay.program.operator import Array, Role
from assay.program.reference import StepContext

TASK_SEED, DRAW_SEED = 11, 77
INTERVAL, STEPS = 5, 16
SEGMENTS = 4  # of 5, 5, 5 and 1 steps
REPLAY, PROFILE, TRAINING = 0, 1, 2

PROGRAM = small_program.program()
HEADER = encode_header(PROGRAM)
DATA = small_program.data_tensors()
THRESHOLD = np.linspace(0.5, 2.0, len(PROGRAM.state), dtype=np.float32)


@dataclass(frozen=True)
class OutputLie:
    """A high bit of one element of an operator's output is wrong at a step; what follows is computed from it."""

    role: Role
    step: int
    operator: int
    element: int


@dataclass(frozen=True)
class StateLie:
    """One bit of one tensor of the state after a step is wrong, though the operators' outputs are right."""

    role: Role
    step: int
    tensor: int
    element: int


@dataclass(frozen=True)
class Lies:
    """All that is wrong in an execution. `sums` = (operator, first wrong term): partial sums of any element of it."""

    output: OutputLie | None = None
    state: StateLie | None = None
    sums: tuple[int, int] | None = None
    trace: tuple[int, int] | None = None  # step, value
    fill: bool = False  # bytes behind the last element of every output that the output lie is in
    padding: bool = False  # of the segment's trace tree


class LyingRun(SectionRun):
    """An interpreter that gets one element wrong."""

    lie: OutputLie

    def _evaluate(self, operator):  # type: ignore[no-untyped-def]
        value = super()._evaluate(operator)
        if len(self.outputs) == self.lie.operator:
            value = np.array(value)
            value.reshape(-1).view(np.uint32)[self.lie.element] ^= 1 << 22
        return value


@dataclass(frozen=True, eq=False)
class LyingExecution(LocalExecution):
    """An execution that lies, consistently as far as it goes."""

    lies: Lies = field(default_factory=Lies)

    def _run_outputs(self, role: Role, step: int) -> Sequence[Array]:
        lie = self.lies.output
        if lie is None or (lie.role, lie.step) != (role, step) or self.lies.fill:
            return super()._run_outputs(role, step)
        run = LyingRun(self.program, self.program.section(role), self.inputs(role, step))
        run.lie = lie
        return run.run()

    def arrays(self, role: Role, step: int) -> Sequence[Array]:
        known = len(self._states.get(role, ()))
        arrays = super().arrays(role, step)
        lie = self.lies.state
        if lie is not None and lie.role == role and known <= lie.step < len(self._states.get(role, ())):
            del self._states[role][lie.step + 1 :]
            self._states[role][lie.step] = small_program.altered(self._states[role][lie.step], lie.tensor, lie.element)
            return super().arrays(role, step)
        return arrays

    def sums(self, role: Role, step: int, operator: int, element: int) -> ChunkTree:
        honest = super().sums(role, step, operator, element)
        assert isinstance(honest, TensorTree)
        values = honest.values.copy()
        if self.lies.sums is not None and self.lies.sums[0] == operator:
            values.view(np.uint32)[self.lies.sums[1] :] ^= 1
            values.view(np.uint32)[-1] = word_of(self.run_outputs(role, step)[operator], element)
        return TensorTree(values)

    def output(self, role: Role, step: int, operator: int) -> ChunkTree:
        lie = self.lies.output
        if self.lies.fill and lie is not None and (lie.role, lie.step, lie.operator) == (role, step, operator):
            return DirtyTree(self.run_outputs(role, step)[operator])
        return super().output(role, step, operator)

    def _outputs(self, role: Role, step: int) -> HashTree:
        operators = len(self.program.section(role).operators)
        return LeafTree([root(self.output(role, step, number)) for number in range(operators)])

    def trace_chunk(self, role: Role, step: int) -> bytes:
        chunk = super().trace_chunk(role, step)
        if self.lies.trace is not None and self.lies.trace[0] == step:
            at = 4 * self.lies.trace[1]
            return chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
        return chunk

    def trace(self, role: Role) -> HashTree:
        honest = super().trace(role)
        assert isinstance(honest, LeafTree)
        return LeafTree([*honest.leaves, b"\x07" * 32]) if self.lies.padding else honest


class DirtyTree(TensorTree):
    """A tensor whose last chunk is not filled with zero bytes."""

    def chunk(self, index: int) -> bytes:
        chunk = super().chunk(index)
        return chunk[:-1] + b"\x05" if (index + 1) * 256 > self.values.size else chunk


@cache
def checkpoints() -> tuple[tuple[Array, ...], ...]:
    """The states an honest solver registers."""
    states = [tuple(small_program.start_state())]
    for segment in range(SEGMENTS):
        steps = segment_steps(segment)
        run = LocalExecution(PROGRAM, StepContext(TASK_SEED, segment * INTERVAL), steps, states[-1], DATA)
        states.append(tuple(run.arrays(Role.STEP, steps - 1)))
    return tuple(states)


def segment_steps(segment: int) -> int:
    """Steps of a segment; the last is shorter."""
    return min(INTERVAL, STEPS - segment * INTERVAL)


@cache
def state_root(segment: int) -> bytes:
    """Root of the honest state before a segment."""
    return root(LeafTree([root(TensorTree(array)) for array in checkpoints()[segment]]))


def checkpoint_tree() -> LeafTree:
    """The solver's checkpoint tree: honest."""
    return LeafTree([state_root(number) for number in range(SEGMENTS + 1)])


def compared(segment: int) -> Sequence[Array]:
    return checkpoints()[segment + 1]


@cache
def honest(segment: int) -> LyingExecution:
    """The honest run of a segment, shared by the tests of a process."""
    return make_execution(segment, Lies(), THRESHOLD)


def execution(segment: int, lies: Lies | None = None, threshold: Array = THRESHOLD) -> LyingExecution:
    """A run of a segment from the solver's checkpoint, with lies or without."""
    if lies is None and threshold is THRESHOLD:
        return honest(segment)
    return make_execution(segment, lies or Lies(), threshold)


def make_execution(segment: int, lies: Lies, threshold: Array) -> LyingExecution:
    return LyingExecution(
        PROGRAM,
        StepContext(TASK_SEED, segment * INTERVAL),
        segment_steps(segment),
        checkpoints()[segment],
        DATA,
        DRAW_SEED,
        compared(segment),
        threshold,
        lies=lies,
    )


@dataclass(frozen=True)
class ClaimSetup:
    """A claim on the chain, what it was made of, and the evidence that opens a case about its leaf."""

    claim_id: int
    leaf: int
    execution: LyingExecution
    leaves: Sequence[ReplayLeaf] | Sequence[ProfileLeaf]
    segment: int
    kind: int = REPLAY

    def evidence(self, part: Part) -> OpenEvidence:
        if self.kind == REPLAY:
            leaves = [leaf for leaf in self.leaves if isinstance(leaf, ReplayLeaf)]
            return open_replay(leaves, self.leaf, self.segment, part, checkpoint_tree(), HEADER)
        if self.kind == PROFILE:
            return open_profile([leaf for leaf in self.leaves if isinstance(leaf, ProfileLeaf)], self.leaf, HEADER)
        raise AssertionError(self.kind)


def base_claim(claimant: str, kind: int, claim_root: bytes, leaves: int, exact: bool = False) -> PostedClaim:
    """A claim of the small task."""
    return PostedClaim(
        kind=kind,
        claimant=claimant,
        root=claim_root,
        leaves=leaves,
        program_root=program_root(PROGRAM),
        data_root=root(LeafTree([root(TensorTree(array)) for array in DATA])),
        initial_root=state_root(0),
        checkpoint_root=checkpoint_tree_root(),
        threshold_root=root(TensorTree(THRESHOLD)),
        segments=SEGMENTS,
        interval=INTERVAL,
        steps=STEPS,
        task_seed=TASK_SEED,
        draw_seed=DRAW_SEED,
        exact=exact,
    )


@cache
def checkpoint_tree_root() -> bytes:
    return root(checkpoint_tree())


def replay_leaf(segment: int, run: LyingExecution, distance: int | None = None, end: bytes | None = None) -> ReplayLeaf:
    """The leaf that an execution leads to, with a distance or end state put in its place if given."""
    if distance is None:
        distance = word_of(run.run_outputs(Role.DISTANCE, 0)[-1], 0)
    found = root(run.state(Role.STEP, run.steps - 1))
    return ReplayLeaf(segment, end or found, distance, root(run.trace(Role.STEP)))


_ids = iter(range(1, 10**9))


def post_replay(
    arena: Arena,
    claimant: str,
    segment: int,
    lies: Lies | None = None,
    distance: int | None = None,
    end: bytes | None = None,
    exact: bool = False,
    names: int | None = None,
) -> ClaimSetup:
    """Post a replay claim of segments (0, `segment`), the second with lies. `names`: the number its leaf gives."""
    run = execution(segment, lies)
    other = ReplayLeaf(0, state_root(1), 0, b"\x01" * 32)
    leaf = replay_leaf(segment, run, 0 if exact and distance is None else distance, end)
    if names is not None:
        leaf = ReplayLeaf(names, leaf.end_root, leaf.distance_bits, leaf.trace_root)
    leaves = [other, leaf]
    claim_id = next(_ids)
    claim = base_claim(claimant, REPLAY, root(LeafTree([item.leaf() for item in leaves])), 2, exact)
    arena.transact(claimant, arena.claims.functions.post(claim_id, claim.as_tuple(), [0, segment]))
    return ClaimSetup(claim_id, 1, run, leaves, segment)


def profile_execution(segment: int, threshold: Array, lies: Lies | None = None) -> LyingExecution:
    """A profile's run of a segment: it starts where the clean run before it ended, which is the honest checkpoint."""
    return execution(segment, lies, threshold)


def post_profile(
    arena: Arena,
    claimant: str,
    leaf: int,
    lies: Lies | None = None,
    threshold_root: bytes | None = None,
    separation: int | None = None,
    noisy: bytes | None = None,
) -> ClaimSetup:
    """Post a profile claim of segments 0..leaf, the last of them with lies or with fields put in its place."""
    threshold: Array = np.zeros(len(PROGRAM.state), np.float32)
    leaves: list[ProfileLeaf] = []
    run = profile_execution(0, threshold)
    for segment in range(leaf + 1):
        run = profile_execution(segment, threshold, lies if segment == leaf else None)
        outputs = run.run_outputs(Role.DEVIATION, 0)
        last = segment == leaf
        leaves.append(
            ProfileLeaf(
                segment,
                root(run.state(Role.STEP, run.steps - 1)),
                (noisy if last else None) or root(run.state(Role.NOISY_STEP, run.steps - 1)),
                (threshold_root if last else None) or root(TensorTree(outputs[-2])),
                separation if last and separation is not None else word_of(outputs[-1], 0),
                root(run.trace(Role.NOISY_STEP)),
            )
        )
        threshold = outputs[-2]
    claim_id = next(_ids)
    claim = base_claim(claimant, PROFILE, root(LeafTree([item.leaf() for item in leaves])), len(leaves))
    segments = list(range(leaf + 1))
    arena.transact(claimant, arena.claims.functions.post(claim_id, claim.as_tuple(), segments))
    return ClaimSetup(claim_id, leaf, run, leaves, leaf, PROFILE)


def post_training(arena: Arena, claimant: str, tree: LeafTree) -> int:
    """Post a solver's checkpoint tree as a claim and return its id."""
    claim_id = next(_ids)
    claim = base_claim(claimant, TRAINING, root(tree), len(tree.leaves), exact=True)
    arena.transact(claimant, arena.claims.functions.post(claim_id, claim.as_tuple(), []))
    return claim_id


def training_evidence(tree: LeafTree, number: int) -> OpenEvidence:
    return open_training(tree, number, HEADER)


def claimant_of(run: LocalExecution) -> Player:
    """The claimant's player over its execution. It never makes the last move if that would lose its case."""

    def move(view: CaseView) -> Move | None:
        return player.claimant_move(view, run)

    return move


def challenger_of(run: LocalExecution) -> Player:
    """The challenger's player over its execution."""

    def move(view: CaseView) -> Move | None:
        return player.challenger_move(view, run)

    return move
