"""Gas of the contracts, measured on a local chain: `assay bench gas`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.bench.arena import Arena, PostedClaim, deploy, make_arena
from assay.bench.sparse import FORWARD, STEPS, WEIGHT_GRADIENT, Disputed, SparseExecution, sparse_hashes
from assay.bench.task_gas import measure_task
from assay.chain.local import local_chain
from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf
from assay.dispute import player
from assay.dispute.case import Part
from assay.dispute.evidence import open_replay
from assay.dispute.hash_tree import LeafTree, root
from assay.errors import AssayError
from assay.program.encoding import encode_header, program_root
from assay.program.operator import Body, Role

CASES = 1000
SEGMENT = 3
SEGMENTS = 100
TESTING_ONLY = "Harness"
LAST_MOVES = ("prove", "proveNextState")


class GasBenchError(AssayError):
    """A measurement did not come out as it must."""

    code = "gas-bench"


@dataclass(frozen=True)
class CaseFigures:
    """One whole case: gas of the opening, of every move, of the last transaction, and of all."""

    name: str
    moves: int
    total: int
    opening: int
    largest_move: int
    last: int
    by_function: dict[str, int]


def measure_case(arena: Arena, disputed: Disputed) -> CaseFigures:
    """Play the dispute over one partial sum of a 10-million-parameter program, to the executed operation."""
    accounts: Sequence[str] = arena.web3.eth.accounts
    claimant, challenger = accounts[1], accounts[2]
    lying, honest = SparseExecution(disputed, lies=True), SparseExecution(disputed, lies=False)
    header = encode_header(lying.program)
    start = root(sparse_hashes(len(lying.program.state), "start", {}))
    checkpoints = sparse_hashes(SEGMENTS + 1, "checkpoints", {SEGMENT: start})
    leaves = [ReplayLeaf(segment, b"\x03" * 32, 0, b"\x04" * 32) for segment in range(8)]
    end = lying.segment(Role.STEP).node(0, STEPS - 1)
    leaves[5] = ReplayLeaf(SEGMENT, end, 0, b"\x05" * 32)
    claim = PostedClaim(
        kind=0,
        claimant=claimant,
        root=root(LeafTree([leaf.leaf() for leaf in leaves])),
        leaves=len(leaves),
        program_root=program_root(lying.program),
        data_root=tree.ZERO_HASH,
        initial_root=tree.ZERO_HASH,
        checkpoint_root=root(checkpoints),
        threshold_root=b"\x06" * 32,
        segments=SEGMENTS,
        interval=STEPS,
        steps=SEGMENTS * STEPS,
        task_seed=lying.context.seed,
        draw_seed=lying.draw_seed,
        exact=False,
    )
    claim_id = disputed.element
    segments = [0, 1, 2, 4, 5, SEGMENT, 6, 7]
    arena.transact(claimant, arena.claims.functions.post(claim_id, claim.as_tuple(), segments))
    evidence = open_replay(leaves, 5, SEGMENT, Part.END, checkpoints, header)
    case_id = arena.open(challenger, claim_id, 5, Part.END, evidence)
    outcome = arena.play_out(
        case_id, lambda view: player.claimant_move(view, lying), lambda view: player.challenger_move(view, honest)
    )
    if not outcome.challenger_won or outcome.gas[-1][0] not in LAST_MOVES:
        raise GasBenchError(
            f"the case about the {disputed.name} ended with {outcome.gas[-1]}, won by "
            f"{'challenger' if outcome.challenger_won else 'claimant'}, not with the challenger's proof"
        )
    by_function: dict[str, int] = {}
    for name, gas in outcome.gas:
        by_function[name] = max(gas, by_function.get(name, 0))
    middle = [gas for name, gas in outcome.gas if name not in ("open", *LAST_MOVES)]
    total = sum(gas for _, gas in outcome.gas)
    opening, last = outcome.gas[0][1], outcome.gas[-1][1]
    return CaseFigures(disputed.name, outcome.moves, total, opening, max(middle), last, by_function)


def measure_fma(arena: Arena) -> float:
    """Average gas of one fma over normal variates, with its call and return, without loading its operands."""
    harness = deploy(arena.web3, "Binary32Harness")
    words = np.random.default_rng(5).standard_normal((CASES, 3)).astype(np.float32).view(np.uint32)
    packed = words.astype(">u4").tobytes()
    _, total, _, count = harness.functions.measure(int(Body.FMA), packed).call({"gas": 2**40})
    return float(total) / float(count)


def run_gas_bench(say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure; raises `GasBenchError` where a measurement is not what it should be."""
    with local_chain(options=("--block-base-fee-per-gas", "0")) as chain:
        arena = make_arena(chain)
        cases = [measure_case(arena, disputed) for disputed in (FORWARD, WEIGHT_GRADIENT)]
        fma = measure_fma(arena)
    task = measure_task(say)
    sizes = {**arena.sizes, **task.sizes}
    for case in cases:
        say(f"{case.name}: {case.moves} moves, {case.total} gas, largest move {case.largest_move}, last {case.last}")
    return {
        "fma": round(fma, 1),
        "move_max": max(case.largest_move for case in cases),
        "prove_max": max(case.last for case in cases),
        "open_max": max(case.opening for case in cases),
        "case_gas": max(case.total for case in cases),
        "case_moves": max(case.moves for case in cases),
        "moves": {name: max(c.by_function.get(name, 0) for c in cases) for c in cases for name in c.by_function},
        "task_gas": sum(task.gas.values()),
        "task": task.gas,
        "code_size_max": max(size for name, size in sizes.items() if TESTING_ONLY not in name),
    }
