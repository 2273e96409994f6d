"""Whole cases on a chain: a lie of every kind at every depth, told by the claimant and by the challenger.

The same lie is played twice. Where the claim was made of it, the honest challenger wins; where the claim is honest and
the challenger believes the lie, the claimant wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import small_program
import world
from world import Lies, OutputLie, StateLie

from assay.arithmetic.permutation import permutation
from assay.bench.arena import Arena, Outcome, silent
from assay.dispute.case import Part
from assay.dispute.hash_tree import LeafTree, TensorTree, root
from assay.program.operator import Role

STEP, NOISY, DISTANCE, DEVIATION = Role.STEP, Role.NOISY_STEP, Role.DISTANCE, Role.DEVIATION


def number_of(body: str, role: Role = STEP, nth: int = 0) -> int:
    """Number of the nth operator with a body in a section of the small program."""
    operators = world.PROGRAM.section(role).operators
    return [number for number, operator in enumerate(operators) if operator.body.name == body][nth]


@dataclass(frozen=True)
class LieCase:
    """A lie, the part of the leaf it shows in, and the court's last move."""

    name: str
    part: Part
    lies: Lies
    segment: int = 1
    last: str = "prove"


def output(name: str, body: str, step: int = 2, element: int = 0, nth: int = 0, **rest: object) -> LieCase:
    """A false element of an operator of the clean run; shown by the end state."""
    # Partial sums that are right do not end in a false element: that alone decides, without an execution.
    rest.setdefault("last", "chooseElement" if body.startswith("FOLD") else "prove")
    return LieCase(name, Part.END, Lies(output=OutputLie(STEP, step, number_of(body, STEP, nth), element)), **rest)  # type: ignore[arg-type]


# A sample of the batch at step 2 of segment 1.
ROW = permutation(world.TASK_SEED, *divmod(7 * small_program.BATCH, small_program.SAMPLES), small_program.SAMPLES)

OUTPUT_CASES = [
    output("permuted row", "PERMUTE", element=1),
    output("gathered sample, second chunk of the data", "GATHER", element=79),
    output("gathered label", "GATHER", nth=1, element=2),
    output("product", "FOLD_FMA", element=159, step=4),
    output("mask", "LT", element=100),
    output("select", "SELECT", element=9),
    output("largest logit", "FOLD_MAX", element=3),
    output("exponential", "EXP", element=11),
    output("normalizer", "FOLD_ADD", element=2),
    output("quotient", "DIV", element=5),
    output("label as one-hot", "SAME", element=4),
    output("gradient through the guard", "SELECT", nth=1, element=77),
    output("new weights, last chunk", "FMA", element=799),
    output("new weights at the first step", "FMA", step=0, element=3),
    output("prediction", "FOLD_ARGMAX", element=1),
    output("padded place of a guarded copy", "COPY", element=0),
    output("inner place of a guarded copy", "COPY", element=1),
    output("tanh", "TANH", element=39),
    output("uniform", "UNIFORM", element=17),
    output("constant read", "FMA", nth=2, element=21),
    output("step number", "IADD"),
    output("sum of 800 weights", "FOLD_ADD", nth=1, element=0),
    output("scatter", "FOLD_ADD_IF", element=ROW),
    output("integer sum", "FOLD_IADD"),
    output("segment of one step", "FMA", step=0, segment=3, element=400),
]

SUM_CASES = [
    LieCase(
        f"partial sum {term}",
        Part.END,
        Lies(output=OutputLie(STEP, 1, number_of("FOLD_ADD", STEP, 1), 0), sums=(number_of("FOLD_ADD", STEP, 1), term)),
    )
    for term in (0, 255, 256, 799)
]

STATE_CASES = [
    LieCase("kept tensor", Part.END, Lies(state=StateLie(STEP, 3, 5, 4)), last="proveNextState"),
    LieCase("kept tensor at the first step", Part.END, Lies(state=StateLie(STEP, 0, 5, 0)), last="proveNextState"),
    LieCase("state from an operator", Part.END, Lies(state=StateLie(STEP, 4, 0, 700)), last="proveNextState"),
    LieCase("state of a segment of one step", Part.END, Lies(state=StateLie(STEP, 0, 1, 2)), 3, "proveNextState"),
]

TRACE_CASES = [
    LieCase("trace value", Part.TRACE, Lies(trace=(3, 63)), last="chooseElement"),
    LieCase("trace value, one step", Part.TRACE, Lies(trace=(0, 5)), 3, "chooseElement"),
    LieCase("trace of a false output", Part.TRACE, Lies(output=OutputLie(STEP, 2, number_of("FMA"), 5), trace=(2, 1))),
    LieCase("segment tree under a trace", Part.TRACE, Lies(state=StateLie(STEP, 1, 5, 1)), last="proveNextState"),
]

DISTANCE_CASES = [
    LieCase("gap", Part.DISTANCE, Lies(output=OutputLie(DISTANCE, 0, 0, 650))),
    LieCase("largest gap", Part.DISTANCE, Lies(output=OutputLie(DISTANCE, 0, 2, 0)), last="chooseElement"),
    LieCase("threshold read", Part.DISTANCE, Lies(output=OutputLie(DISTANCE, 0, 7, 0))),
]


def play(arena: Arena, setup: world.ClaimSetup, part: Part, claimant: object, challenger: object) -> Outcome:
    """Open a case against a claim's leaf and play it to its end."""
    sender = str(arena.web3.eth.accounts[2])
    case_id = arena.open(sender, setup.claim_id, setup.leaf, part, setup.evidence(part))
    return arena.play_out(case_id, claimant, challenger)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "case", OUTPUT_CASES + SUM_CASES + STATE_CASES + TRACE_CASES + DISTANCE_CASES, ids=lambda case: case.name
)
def test_false_claim_loses_to_honest_challenger(arena: Arena, claimant: str, case: LieCase) -> None:
    setup = world.post_replay(arena, claimant, case.segment, case.lies)
    outcome = play(
        arena, setup, case.part, world.claimant_of(setup.execution), world.challenger_of(world.execution(case.segment))
    )
    assert outcome.challenger_won
    assert outcome.gas[-1][0] == case.last, outcome.gas
    assert outcome.moves <= 30


@pytest.mark.parametrize("case", OUTPUT_CASES + STATE_CASES + TRACE_CASES + DISTANCE_CASES, ids=lambda case: case.name)
def test_honest_claim_wins_against_deluded_challenger(arena: Arena, claimant: str, case: LieCase) -> None:
    setup = world.post_replay(arena, claimant, case.segment)
    deluded = world.challenger_of(world.execution(case.segment, case.lies))
    outcome = play(arena, setup, case.part, world.claimant_of(setup.execution), deluded)
    assert not outcome.challenger_won
    assert outcome.gas[-1][0] in ("prove", "proveNextState", "timeout"), outcome.gas


@pytest.mark.parametrize("case", [*OUTPUT_CASES[:4], *STATE_CASES[:1], *TRACE_CASES[:1]], ids=lambda case: case.name)
def test_false_claim_whose_claimant_falls_silent_loses_by_the_clock(arena: Arena, claimant: str, case: LieCase) -> None:
    setup = world.post_replay(arena, claimant, case.segment, case.lies)
    outcome = play(arena, setup, case.part, silent, world.challenger_of(world.execution(case.segment)))
    assert outcome.challenger_won
    assert outcome.gas[-1][0] == "timeout"


# ---- Bindings between trees -----------------------------------------------------------------------------------------


def test_end_state_that_the_segment_tree_does_not_end_in_loses(arena: Arena, claimant: str) -> None:
    setup = world.post_replay(arena, claimant, 1, end=b"\x09" * 32)
    outcome = play(arena, setup, Part.END, world.claimant_of(setup.execution), world.challenger_of(world.execution(1)))
    assert outcome.challenger_won
    assert outcome.gas[-1][0] == "choose"


def test_distance_that_its_section_does_not_end_in_loses(arena: Arena, claimant: str) -> None:
    setup = world.post_replay(arena, claimant, 1, distance=0x3F000000)
    run = world.claimant_of(setup.execution)
    outcome = play(arena, setup, Part.DISTANCE, run, world.challenger_of(world.execution(1)))
    assert outcome.challenger_won
    assert outcome.gas[-1][0] == "chooseOperator"


def test_padding_of_a_tree_that_is_not_padding_loses(arena: Arena, claimant: str) -> None:
    setup = world.post_replay(arena, claimant, 1, Lies(padding=True))
    run = world.claimant_of(setup.execution)
    outcome = play(arena, setup, Part.TRACE, run, world.challenger_of(world.execution(1)))
    assert outcome.challenger_won
    assert outcome.gas[-1][0] == "choose"


def test_bytes_behind_the_last_element_of_a_chunk_lose(arena: Arena, claimant: str) -> None:
    number = number_of("FMA")
    # The false bytes are in no state: the claimant has to claim another one for a case to come up at all.
    lies = Lies(output=OutputLie(STEP, 2, number, 0), fill=True, state=StateLie(STEP, 2, 1, 1))
    setup = world.post_replay(arena, claimant, 1, lies)
    run = world.claimant_of(setup.execution)
    outcome = play(arena, setup, Part.END, run, world.challenger_of(world.execution(1)))
    assert outcome.challenger_won
    assert outcome.gas[-1][0] == "chooseElement"


def test_leaf_about_another_segment_loses_when_it_is_shown(arena: Arena, claimant: str, challenger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, names=2)
    case_id = arena.open(challenger, setup.claim_id, 1, Part.END, setup.evidence(Part.END))
    report = arena.report(case_id)
    assert (report["closed"], report["challengerWon"]) == (1, True)


def test_distance_in_exact_mode_loses_when_it_is_shown(arena: Arena, claimant: str, challenger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, distance=1, exact=True)
    case_id = arena.open(challenger, setup.claim_id, 1, Part.DISTANCE, setup.evidence(Part.DISTANCE))
    assert arena.report(case_id)["challengerWon"]


# ---- Profiles and training claims -----------------------------------------------------------------------------------

PROFILE_CASES = [
    LieCase("clean run", Part.END, Lies(output=OutputLie(STEP, 1, number_of("FMA"), 3)), 1),
    LieCase("noisy run", Part.NOISY_END, Lies(output=OutputLie(NOISY, 4, number_of("FMA", NOISY), 3)), 0),
    LieCase("noise", Part.NOISY_END, Lies(output=OutputLie(NOISY, 0, number_of("UNIFORM", NOISY, 1), 700)), 1),
    LieCase("noisy trace", Part.TRACE, Lies(trace=(1, 9)), 0, "chooseElement"),
    LieCase("noisy tree under a trace", Part.TRACE, Lies(state=StateLie(NOISY, 1, 5, 1)), 1, "proveNextState"),
    LieCase("new threshold", Part.THRESHOLD, Lies(output=OutputLie(DEVIATION, 0, 11, 6)), 0),
    LieCase("threshold from the one before", Part.THRESHOLD, Lies(output=OutputLie(DEVIATION, 0, 11, 2)), 1),
    LieCase("noise measured", Part.SEPARATION, Lies(output=OutputLie(DEVIATION, 0, 0, 5)), 1),
    LieCase("penultimate state", Part.SEPARATION, Lies(output=OutputLie(DEVIATION, 0, 3, 300)), 1),
    LieCase("separation", Part.SEPARATION, Lies(output=OutputLie(DEVIATION, 0, 10, 0)), 0),
]


@pytest.mark.parametrize("case", PROFILE_CASES, ids=lambda case: case.name)
def test_false_profile_loses_to_honest_challenger(arena: Arena, claimant: str, case: LieCase) -> None:
    setup = world.post_profile(arena, claimant, case.segment, case.lies)
    threshold = setup.execution.threshold
    assert threshold is not None
    honest = world.challenger_of(world.profile_execution(case.segment, threshold))
    outcome = play(arena, setup, case.part, world.claimant_of(setup.execution), honest)
    assert outcome.challenger_won
    assert outcome.gas[-1][0] == case.last, outcome.gas


@pytest.mark.parametrize("case", PROFILE_CASES, ids=lambda case: case.name)
def test_honest_profile_wins_against_deluded_challenger(arena: Arena, claimant: str, case: LieCase) -> None:
    setup = world.post_profile(arena, claimant, case.segment)
    threshold = setup.execution.threshold
    assert threshold is not None
    deluded = world.challenger_of(world.profile_execution(case.segment, threshold, case.lies))
    outcome = play(arena, setup, case.part, world.claimant_of(setup.execution), deluded)
    assert not outcome.challenger_won


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        (Part.THRESHOLD, {"threshold_root": root(TensorTree(np.ones(7, np.float32)))}),
        (Part.SEPARATION, {"separation": 0x7F800000}),
        (Part.NOISY_END, {"noisy": b"\x0a" * 32}),
    ],
    ids=["threshold", "separation", "noisy end"],
)
def test_profile_field_that_its_tree_does_not_end_in_loses(
    arena: Arena, claimant: str, part: Part, fields: dict[str, object]
) -> None:
    setup = world.post_profile(arena, claimant, 1, **fields)  # type: ignore[arg-type]
    threshold = setup.execution.threshold
    assert threshold is not None
    honest = world.challenger_of(world.profile_execution(1, threshold))
    assert play(arena, setup, part, world.claimant_of(setup.execution), honest).challenger_won


@pytest.mark.parametrize("is_false", [True, False], ids=["false checkpoint", "honest checkpoint"])
def test_training_claim_is_judged_by_a_replay_of_its_segment(
    arena: Arena, claimant: str, challenger: str, is_false: bool
) -> None:
    lies = Lies(output=OutputLie(STEP, 3, number_of("FMA"), 50))
    lying, honest = world.execution(1, lies), world.execution(1)
    claimed = lying if is_false else honest
    tree = LeafTree(
        [
            world.state_root(0),
            world.state_root(1),
            root(claimed.state(STEP, 4)),
            world.state_root(3),
            world.state_root(4),
        ]
    )
    claim_id = world.post_training(arena, claimant, tree)
    case_id = arena.open(challenger, claim_id, 2, Part.END, world.training_evidence(tree, 2))
    player = world.challenger_of(honest if is_false else lying)
    assert arena.play_out(case_id, world.claimant_of(claimed), player).challenger_won == is_false


def test_small_program_is_well_formed_and_separates() -> None:
    # The world's figures are of use only if nothing in it is zero or NaN by accident.
    outputs = world.execution(1).run_outputs(DISTANCE, 0)
    assert all(np.isfinite(value).all() for value in outputs)
    assert small_program.CONSTANTS[1].size == small_program.HIDDEN
