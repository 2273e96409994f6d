"""The court and the market's own contracts on one chain in this process: real claims about the small program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import world
from eth_utils.address import to_checksum_address
from world import Lies, LyingExecution

from assay.bench.arena import Player, named
from assay.commitments.execution import ProfileLeaf, ReplayLeaf
from assay.contracts import contract_names, load_contract
from assay.dispute.case import CaseView, Part, Phase
from assay.dispute.evidence import OpenEvidence, open_profile, open_replay, open_training
from assay.dispute.execution import word_of
from assay.dispute.hash_tree import LeafTree, TensorTree, root
from assay.dispute.moves import Move
from assay.dispute.reader import Event, view_of
from assay.program.encoding import encode_header
from assay.program.operator import Array, Program, Role
from assay.program.reference import StepContext
from market_chain import Outcome, RevmChain
from market_world import CASE, DEMAND, ESCROW, LOCKED, MODULES, PROFILE, RESERVE, ROUND, Round, World

ALLOWANCE, EXTENSION, OVERSHOOT_PRICE, GAS_PRICE = 3600, 60, 10**12, 10**9

EXACT_PROGRAM = replace(world.PROGRAM, sections=world.PROGRAM.sections[:1])
NO_THRESHOLD = np.zeros(len(world.PROGRAM.state), np.float32)


@cache
def artifacts() -> dict[str, dict[str, Any]]:
    """What the chain deploys, from the compiled contracts in the package."""
    contracts = [load_contract(name) for name in contract_names()]
    return {c.name: {"abi": c.abi, "bytecode": c.bytecode.removeprefix("0x")} for c in contracts}


class CourtChain(RevmChain):
    """A chain that keeps the courts' events by case."""

    def __init__(self) -> None:
        super().__init__(artifacts())
        self.events: dict[int, list[Event]] = {}
        self._court = {item["name"]: item for item in artifacts()["Court"]["abi"] if item["type"] == "event"}

    def call(self, sender: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome:
        outcome = super().call(sender, name, function, *arguments, value=value)
        for event in outcome.events:
            if event.contract in ("Court", "StageCourt") and "caseId" in event.values:
                items = {item["name"]: item for item in self._court[event.name]["inputs"]}
                fields = {key: named(items[key], value) for key, value in event.values.items()}
                self.events.setdefault(event.values["caseId"], []).append(Event(event.name, fields))
        return outcome


@cache
def honest_threshold() -> Array:
    """The vector of an honest profile of segment 0."""
    outputs = execution(0, world.DRAW_SEED, threshold=NO_THRESHOLD).run_outputs(Role.DEVIATION, 0)
    return np.asarray(outputs[-2])


def execution(
    segment: int,
    draw_seed: int,
    lies: Lies | None = None,
    threshold: Array | None = None,
    program: Program = world.PROGRAM,
) -> LyingExecution:
    """A run of a segment from the honest checkpoint before it, with the trace positions of a draw."""
    return LyingExecution(
        program,
        StepContext(world.TASK_SEED, segment * world.INTERVAL),
        world.segment_steps(segment),
        world.checkpoints()[segment],
        world.DATA,
        draw_seed,
        world.compared(segment),
        threshold,
        lies=lies or Lies(),
    )


class WholeMarket(World):
    """A deployment with the real court, and rounds over real executions."""

    contracts = (*MODULES[:-1], "Court", "Prover", "Refuter")
    played_court = "Court"
    """Whose cases are opened and played."""

    def __init__(self, chain: CourtChain, **changes: int) -> None:
        super().__init__(chain, **changes)
        self.events = chain.events

    def arguments_of(self, name: str, addresses: dict[str, str]) -> tuple[Any, ...]:
        if name in ("Prover", "Refuter"):
            return ()
        if name == "Court":
            keepers = (addresses["Claims"], addresses["Prover"], addresses["Refuter"])
            return (*keepers, ALLOWANCE, EXTENSION, GAS_PRICE, OVERSHOOT_PRICE)
        return super().arguments_of(name, addresses)

    # ---- Tasks and claims ----

    def posting(self, exact: bool = True, **changes: Any) -> dict[str, Any]:
        real = {
            "header": encode_header(EXACT_PROGRAM if exact else world.PROGRAM),
            "dataRoot": root(LeafTree([root(TensorTree(array)) for array in world.DATA])),
            "initialRoot": world.state_root(0),
            "taskSeed": world.TASK_SEED,
            "steps": world.STEPS,
            "interval": world.INTERVAL,
            "profileSegments": 0 if exact else 1,
        }
        return super().posting(exact, **(real | changes))

    def program(self, task: int) -> Program:
        return EXACT_PROGRAM if self.postings[task]["exact"] else world.PROGRAM

    def states_of(self, task: int, cheat: int | None = None) -> list[bytes]:
        """The honest checkpoints; the one after segment `cheat` is that of a run with a wrong exponential."""
        states = [world.state_root(number) for number in range(world.SEGMENTS + 1)]
        if cheat is not None:
            states[cheat + 1] = root(self.cheating(cheat).state(Role.STEP, world.segment_steps(cheat) - 1))
        return states

    @staticmethod
    def cheating(segment: int) -> LyingExecution:
        """What a solver that got one exponential wrong ran."""
        return execution(segment, 0, Lies(world.OutputLie(Role.STEP, 2, 9, 3)), program=EXACT_PROGRAM)

    def run(self, round_: Round, place: int, lies: Lies | None = None) -> LyingExecution:
        """A run of the round's segment number `place`."""
        threshold = None
        if round_.share == PROFILE:
            threshold = NO_THRESHOLD
        elif not self.postings[round_.task]["exact"]:
            threshold = honest_threshold()
        seed = self.see("Verification", "roundOf", round_.id)[2]
        return execution(round_.segments[place], seed, lies, threshold, self.program(round_.task))

    def leaf(self, round_: Round, place: int, lies: Lies | None = None) -> tuple[Any, ...]:
        """What a run of the round's segment number `place` claims."""
        run = self.run(round_, place, lies)
        last = run.steps - 1
        if round_.share == PROFILE:
            outputs = run.run_outputs(Role.DEVIATION, 0)
            ends = root(run.state(Role.STEP, last)), root(run.state(Role.NOISY_STEP, last))
            return (*ends, root(TensorTree(outputs[-2])), word_of(outputs[-1], 0), root(run.trace(Role.NOISY_STEP)))
        exact = self.postings[round_.task]["exact"]
        distance = 0 if exact else word_of(run.run_outputs(Role.DISTANCE, 0)[-1], 0)
        return root(run.state(Role.STEP, last)), distance, root(run.trace(Role.STEP))

    def round_of(self, event: dict[str, Any], failing: bool = False) -> Round:
        assert not failing
        round_ = Round(
            event["taskId"], event["share"], event["roundId"], event["verifier"], list(event["segments"]), []
        )
        round_.truth = [self.leaf(round_, place) for place in range(len(round_.segments))]
        return round_

    def with_lie(self, round_: Round, place: int, lies: Lies) -> list[Any]:
        """The round's leaves with one of them from a lying run."""
        return [self.leaf(round_, i, lies) if i == place else leaf for i, leaf in enumerate(round_.truth)]

    # ---- Cases ----

    def evidence(self, round_: Round, leaves: Sequence[Any], place: int, part: Part) -> OpenEvidence:
        header = self.postings[round_.task]["header"]
        if round_.share == PROFILE:
            profile = [ProfileLeaf(s, *leaf) for s, leaf in zip(round_.segments, leaves, strict=True)]
            return open_profile(profile, place, header)
        replay = [ReplayLeaf(s, *leaf) for s, leaf in zip(round_.segments, leaves, strict=True)]
        checkpoints = LeafTree(self.checkpoints[round_.task].levels[0][: world.SEGMENTS + 1])
        return open_replay(replay, place, round_.segments[place], part, checkpoints, header)

    def take_to_court(
        self, challenger: str, claim: int, place: int, part: Part, evidence: OpenEvidence, answer: bytes = bytes(32)
    ) -> int:
        """Opens a case and returns its id."""
        arguments = (claim, place, int(part), answer, evidence.as_tuple())
        return int(self.do(challenger, self.played_court, "open", *arguments, value=self.parameters["caseBond"]).value)

    def view(self, case: int) -> CaseView:
        """The case as a player sees it."""
        (abi,) = (item for item in artifacts()["Court"]["abi"] if item.get("name") == "caseOf")
        values = self.see(self.played_court, "caseOf", case)
        fields, cursor = (named(item, value) for item, value in zip(abi["outputs"], values, strict=True))
        fields["cursor"] = cursor
        return view_of(case, self.see(self.played_court, "positionOf", case), fields, self.events[case])

    def play(self, sender: str, view: CaseView, move: Move) -> None:
        arguments = () if move.function == "timeout" else (view.position, *move.arguments)
        self.do(to_checksum_address(sender), self.played_court, move.function, view.case_id, *arguments)

    def play_out(self, case: int, claimant: Player, challenger: Player) -> bool:
        """Both move until the case is decided; the silent run out of time. Whether the challenger won."""
        for _ in range(60):
            view = self.view(case)
            phase = view.cursor.phase
            if phase == Phase.CLOSED:
                return bool(self.events[case][-1].arguments["challengerWon"])
            choosing = phase == Phase.CHOOSE
            sender, player = (view.challenger, challenger) if choosing else (view.claimant, claimant)
            move = player(view)
            if move is None and phase == Phase.PROVE:
                sender, move = view.challenger, challenger(view)
            if move is None:
                self.chain.move(seconds=ALLOWANCE + 1)
                sender, move = self.deployer, Move("timeout", ())
            self.play(sender, view, move)
        raise AssertionError(f"case {case:#x} does not end: {self.view(case).cursor}")

    def training_evidence(self, task: int, number: int) -> OpenEvidence:
        tree = LeafTree(self.checkpoints[task].levels[0][: world.SEGMENTS + 1])
        return open_training(tree, number, self.postings[task]["header"])

    # ---- Accounts ----

    def assert_balanced(self, actors: Sequence[str]) -> None:
        """Nothing is held for anything any more, and all there is belongs to an actor or to the pool."""
        for kind in (LOCKED, ESCROW, ROUND, CASE, DEMAND, RESERVE):
            assert self.see("Stakes", "totalOf", kind) == 0, kind
        balances = {name: self.chain.balance(self.chain.addresses[name]) for name in self.contracts}  # type: ignore[attr-defined]
        assert balances.pop("Stakes") == self.total() == self.pool + sum(self.worth(actor) for actor in actors)
        assert not any(balances.values()), balances
