"""A reader of the contracts' events that says, before looking, what each call moves between buckets.

It knows tasks, rounds, lines and cases from events, and amounts only from `assay.economics.settlement`; the contracts'
own `Moved` events are what it is compared with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from eth_abi import encode
from eth_utils import keccak

from assay.economics import settlement as rules
from assay.economics.settlement import Bucket, Move, Moves, Place, Released, Terms
from assay.market.parameters import Parameters

STATES = [
    "None",
    "Profiling",
    "Open",
    "Taken",
    "Verifying",
    "Settled",
    "Failed",
    "Unavailable",
    "Unverified",
    "Void",
    "Refused",
    "Cancelled",
]
PROFILE = 255
TRAINING = 2
SILENT, LEAKED, SHOWN_THE_WRONG_ONE, STEPPED_BACK = range(4)


def number_of(*words: Any) -> int:
    """keccak256 over abi.encode of a word and numbers."""
    types = ["string" if isinstance(word, str) else "uint256" for word in words]
    return int.from_bytes(keccak(encode(types, words)), "big")


@dataclass
class Round:
    task: int
    share: int
    verifier: int
    state: str = "Drawn"
    revealed: dict[int, bytes] = field(default_factory=dict)
    root: bytes | None = None
    is_void: bool = False
    each: int = 0


@dataclass
class Line:
    root: bytes
    claimant: int
    passes: bool
    has_fallen: bool = False
    bond: int = 0


@dataclass
class Mirror:
    """What is known, and a ledger that only the rules move."""

    parameters: Parameters
    ledger: rules.Ledger = field(default_factory=rules.Ledger)
    terms: dict[int, Terms] = field(default_factory=dict)
    train_seconds: dict[int, int] = field(default_factory=dict)
    taken_at: dict[int, int] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    charges: Counter[int] = field(default_factory=Counter)
    charged: dict[tuple[int, int], bool] = field(default_factory=dict)
    rounds: dict[int, Round] = field(default_factory=dict)
    current: dict[tuple[int, int], int] = field(default_factory=dict)
    lines: dict[int, Line] = field(default_factory=dict)
    line_tasks: dict[int, int] = field(default_factory=dict)
    units: dict[int, int] = field(default_factory=dict)
    records: dict[int, tuple[int, bytes, int, int]] = field(default_factory=dict)
    cases: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)

    def apply(self, row: str, moves: Moves) -> None:
        """Carry a row out, and count that it was seen."""
        self.rows[row] += 1
        self.ledger.apply(moves)

    def call(self, actor: str, contract: str, function: str, arguments: tuple[Any, ...], time: int) -> None:
        """Rows that have no event of their own."""
        account = int(actor, 16)
        if function == "restake":
            self.apply(function, [Move((Bucket.CREDIT, account), (Bucket.FREE, account), arguments[0])])
        elif contract == "Stakes" and function == "release":
            account = int(arguments[0], 16)
            amount = self.ledger[Bucket.LEAVING, account]
            self.apply("stake released", [Move((Bucket.LEAVING, account), (Bucket.CREDIT, account), amount)])

    def note(self, actor: str, function: str, contract: str, name: str, values: dict[str, Any], time: int) -> None:
        """One event that is not `Moved`, in the order of the call."""
        handler = getattr(self, f"on_{contract}_{name}".lower(), None)
        if handler is not None:
            handler(values, int(actor, 16), function, time)

    # ---- Stakes ----

    def on_stakes_entered(self, values: dict[str, Any], *_: Any) -> None:
        self.ledger.enter((Bucket(values["class"]), values["id"]), values["amount"])

    def on_stakes_left(self, values: dict[str, Any], *_: Any) -> None:
        self.ledger.leave((Bucket.CREDIT, int(values["account"], 16)), values["amount"])

    def on_stakes_leaving(self, values: dict[str, Any], *_: Any) -> None:
        account = int(values["account"], 16)
        self.apply("leaving", [Move((Bucket.FREE, account), (Bucket.LEAVING, account), values["amount"])])

    # ---- Market ----

    def on_market_submitted(self, values: dict[str, Any], *_: Any) -> None:
        posting, task = values["posting"], values["taskId"]
        terms = Terms(
            task,
            int(values["submitter"], 16),
            exact=posting[9],
            verifiers=posting[10],
            highest_reward=posting[14],
            verifier_fee=posting[15],
            profiler_fee=posting[16],
        )
        self.terms[task], self.train_seconds[task] = terms, posting[18]
        self.states[task] = "Open" if terms.exact else "Profiling"
        self.line_tasks[number_of("training", task)] = task
        assert self.ledger[terms.escrow] == rules.escrow_of(self.parameters, terms)
        self.rows["submitted"] += 1

    def on_market_opened(self, values: dict[str, Any], *_: Any) -> None:
        self.states[values["taskId"]] = "Open"

    def on_market_taken(self, values: dict[str, Any], actor: int, function: str, time: int) -> None:
        task, solver = values["taskId"], int(values["solver"], 16)
        self.terms[task] = replace(self.terms[task], solver=solver, price=values["price"])
        self.states[task], self.taken_at[task] = "Taken", time
        stake = rules.stake_of(self.parameters, self.terms[task])
        assert stake == values["stake"]
        self.apply("taken", rules.lock(self.ledger, solver, stake))

    def on_market_registered(self, values: dict[str, Any], *_: Any) -> None:
        self.states[values["taskId"]] = "Verifying"

    def on_market_steppeddown(self, values: dict[str, Any], actor: int, function: str, time: int) -> None:
        task = values["taskId"]
        terms = self.terms[task]
        held = time - self.taken_at[task]
        late = rules.late_forfeit(self.parameters, terms, held, self.train_seconds[task])
        forfeit = late if values["late"] else rules.step_down_forfeit(self.parameters, terms)
        assert forfeit == values["forfeit"]
        row = "late" if values["late"] else "stepped down"
        self.apply(row, rules.solver_gone(self.parameters, terms, forfeit))
        self.terms[task] = replace(terms, solver=None)

    def on_market_finished(self, values: dict[str, Any], *_: Any) -> None:
        task, state = values["taskId"], STATES[values["state"]]
        terms, before = self.terms[task], self.states[task]
        escrow, charge = self.ledger[terms.escrow], self.charges[task]
        finder = int(values["finder"], 16) or None
        self.states[task] = state
        if state == "Void":
            moves = rules.program_refuted(self.parameters, terms, before, escrow, charge, finder)
        elif state == "Failed":
            moves = rules.task_failed(self.parameters, terms, escrow, charge, finder)
            if finder is None:
                shares = [self.current[task, share] for share in range(terms.verifiers)]
                failing = sum(not self.lines[share].passes for share in shares)
                part = rules.finders_part(self.parameters, terms, charge)
                self.units[task], rest = rules.failure_shared(terms, part, failing)
                moves += rest
        else:
            earned = terms.price if state == "Settled" else 0
            is_unavailable = state == "Unavailable" and terms.solver is not None
            forfeit = rules.unavailable_forfeit(self.parameters, terms) if is_unavailable else 0
            moves = rules.task_ended(self.parameters, terms, before, escrow, charge, earned, forfeit)
        self.apply(f"{state} by {'a finder' if finder else 'settlement'}", moves)

    # ---- Verification ----

    def on_verification_drawn(self, values: dict[str, Any], actor: int, function: str, time: int) -> None:
        task, share, round_id = values["taskId"], values["share"], values["roundId"]
        verifier = int(values["verifier"], 16)
        if function == "draw":
            charged = self.charged.pop((task, share), False) and self.ledger[rules.POOL] >= self.parameters.draw_bounty
            first = values["attempt"] == 0
            self.apply(
                "drawn" if first else "drawn again",
                rules.draw_carried_out(self.parameters, self.terms[task], actor, first, charged),
            )
        self.apply("seat locked", rules.lock(self.ledger, verifier, self.parameters.seat))
        self.rounds[round_id] = Round(task, share, verifier)
        self.current[task, share] = round_id
        self.line_tasks[round_id] = task

    def on_verification_nobodydrawn(self, values: dict[str, Any], *_: Any) -> None:
        self.charged[values["taskId"], values["share"]] = False

    def on_verification_committed(self, values: dict[str, Any], *_: Any) -> None:
        self.rounds[values["roundId"]].state = "Committed"

    def on_verification_voided(self, values: dict[str, Any], actor: int, *_: Any) -> None:
        round_ = self.rounds[values["roundId"]]
        verifier, fault = round_.verifier, values["fault"]
        if fault == SILENT:
            moves = rules.verifier_silent(self.parameters, verifier)
        elif fault == LEAKED:
            moves = rules.secret_leaked(self.parameters, verifier, actor)
        elif fault == SHOWN_THE_WRONG_ONE:
            moves = rules.seat_lost(self.parameters, verifier, self.parameters.seat)
        else:
            charges = number_of("charges", round_.task, round_.share)
            terms = self.terms[round_.task]
            # A price left from a solver that has gone is no price: nobody verifies without a solver.
            moves = rules.stepped_back(self.parameters, verifier, charges, terms.price if terms.solver else 0)
        self.apply(f"fault {fault}", moves)
        round_.state, round_.is_void = "Void", True
        self.charged[round_.task, round_.share] = True

    def on_verification_disclosed(self, values: dict[str, Any], *_: Any) -> None:
        round_id = values["roundId"]
        round_ = self.rounds[round_id]
        round_.state = "Disclosed"
        if values["forced"] and round_.revealed:
            pool = self.ledger[rules.POOL]
            terms = self.terms[round_.task]
            self.apply("jackpot reserved", rules.jackpot_reserved(self.parameters, terms, round_id, pool))

    # ---- Answers ----

    def on_answers_joined(self, values: dict[str, Any], *_: Any) -> None:
        self.apply("joined", rules.joined(self.parameters, values["roundId"], int(values["whistleblower"], 16)))

    def on_answers_answerrevealed(self, values: dict[str, Any], *_: Any) -> None:
        self.rounds[values["roundId"]].revealed[int(values["whistleblower"], 16)] = values["root"]

    def on_answers_collected(self, values: dict[str, Any], *_: Any) -> None:
        round_ = self.rounds[values["roundId"]]
        account = int(values["whistleblower"], 16)
        right = not round_.is_void and account in round_.revealed and round_.revealed[account] == round_.root
        assert right == values["right"]
        moves = rules.answer_collected(self.parameters, values["roundId"], account, right, round_.is_void, round_.each)
        self.apply(f"collected {'right' if right else 'void' if round_.is_void else 'wrong'}", moves)

    # ---- Claims ----

    def on_claims_entered(self, values: dict[str, Any], *_: Any) -> None:
        bond = 0 if values["line"] in self.rounds else values["line"]
        line = Line(values["root"], int(values["claimant"], 16), values["passes"], bond=bond)
        self.lines[values["line"]] = line

    def on_claims_opened(self, values: dict[str, Any], *_: Any) -> None:
        record = (values["line"], values["root"], int(values["claimant"], 16), values["kind"])
        self.records[values["claimId"]] = record

    def on_claims_accused(self, values: dict[str, Any], *_: Any) -> None:
        self.line_tasks[values["line"]] = values["taskId"]

    def on_claims_caseopened(self, values: dict[str, Any], *_: Any) -> None:
        self.cases[values["caseId"]] = (int(values["challenger"], 16), values["answerRoot"])

    def on_claims_caseclosed(self, values: dict[str, Any], *_: Any) -> None:
        case, won, overshoot = values["caseId"], values["challengerWon"], values["overshoot"]
        line_id, root, claimant, kind = self.records[values["claimId"]]
        challenger, _ = self.cases[case]
        task = self.line_tasks[line_id]
        state = self.states[task]
        bond: Place = (Bucket.CASE, case)
        if state == "Void":
            self.apply("case void", rules.bond_returned(case, self.ledger[bond], challenger))
            return
        if kind == TRAINING:
            is_current, line = state == "Verifying", None
        else:
            line = self.lines[line_id]
            is_current = (line.root, line.claimant) == (root, claimant)
        if overshoot > 0:
            self.apply("challenger's clock", rules.clock_charged(bond, self.ledger[bond], overshoot))
        elif overshoot < 0 and is_current:
            self.charge_claimant(task, line_id, line, -overshoot)
        if not won:
            opponent = claimant if kind == TRAINING or is_current else None
            self.apply("case lost", rules.bond_forfeited(case, self.ledger[bond], opponent))
        elif kind == TRAINING or not is_current:
            # For a line that is current the bond stays behind the new claim: see `Fell`.
            self.apply("case won", rules.bond_returned(case, self.ledger[bond], challenger))
        elif line is not None:
            if line.bond:
                held = self.ledger[Bucket.CASE, line.bond]
                self.apply("bond behind a claim lost", rules.bond_forfeited(line.bond, held, challenger))
            line.bond = case

    def charge_claimant(self, task: int, line_id: int, line: Line | None, charge: int) -> None:
        """Clock extensions of the solver, of a later claimant, or of a verifier."""
        if line is None:
            place: Place = (Bucket.LOCKED, self.terms[task].solver)
            available = self.parameters.solver_stake_floor - self.charges[task]
            self.charges[task] += min(charge, available)
        elif line.bond:
            place = (Bucket.CASE, line.bond)
            available = self.ledger[place]
        else:
            place = (Bucket.LOCKED, line.claimant)
            available = self.parameters.seat - self.charges[line_id]
            self.charges[line_id] += min(charge, available)
        self.apply("claimant's clock", rules.clock_charged(place, available, charge))

    def on_claims_fell(self, values: dict[str, Any], *_: Any) -> None:
        line = self.lines[values["line"]]
        line.root, line.claimant = values["newRoot"], int(values["newClaimant"], 16)
        line.passes, line.has_fallen = values["passes"], True

    def on_claims_accusationclosed(self, values: dict[str, Any], *_: Any) -> None:
        line = self.lines[values["line"]]
        held = self.ledger[Bucket.CASE, line.bond]
        self.apply("accusation closed", rules.bond_returned(line.bond, held, line.claimant))

    # ---- Settlement and demands ----

    def on_settlement_released(self, values: dict[str, Any], *_: Any) -> None:
        task, share, round_id = values["taskId"], values["share"], values["roundId"]
        state, charges = self.states[task], number_of("charges", task, share)
        is_profile = share == PROFILE
        released = Released(
            self.terms[task],
            round_id,
            verifier=None,
            seat=0,
            charges=charges,
            charged=self.ledger[Bucket.ROUND, charges],
            failed=state == "Failed",
            is_profile=is_profile,
        )
        if round_id == 0:
            self.apply("share without a round", rules.share_without_round(self.parameters, released))
            return
        round_ = self.rounds[round_id]
        line = self.lines.get(round_id)
        reserve = self.ledger[Bucket.RESERVE, round_id]
        seat = self.parameters.seat - self.charges[round_id]
        released = replace(released, verifier=round_.verifier, seat=seat, reserve=reserve)
        if state == "Void" or round_.state != "Disclosed" or line is None:
            disclosed = round_.state == "Disclosed"
            moves = rules.round_ended_with_its_task(self.parameters, released, disclosed, round_.state != "Drawn")
            self.apply(f"round ended with its task ({disclosed})", moves)
            round_.state, round_.is_void = "Void", True
        else:
            right = sum(root == line.root for root in round_.revealed.values())
            unit = self.units.get(task, 0) if released.failed and not line.passes and not is_profile else 0
            released = replace(released, right=right, unit=unit)
            if line.has_fallen:
                answered = round_.revealed.get(line.claimant) == line.root
                round_.each, moves = rules.round_fell(self.parameters, released, line.claimant, answered)
                row = f"round fell (failed {released.failed}, answered {answered})"
            else:
                round_.each, moves = rules.round_stood(self.parameters, released)
                row = f"round stood (failed {released.failed}, jackpot {bool(reserve and right)})"
            self.apply(row, moves)
            round_.root = line.root
        if line is not None and line.bond:
            held = self.ledger[Bucket.CASE, line.bond]
            self.apply("bond behind a claim returned", rules.bond_returned(line.bond, held, line.claimant))

    def on_demands_served(self, values: dict[str, Any], *_: Any) -> None:
        solver = self.terms[values["taskId"]].solver
        self.apply("served", rules.demand_ended(values["demandId"], self.parameters.demand_price, solver))

    def on_demands_notserved(self, values: dict[str, Any], *_: Any) -> None:
        asker = int(values["asker"], 16)
        self.apply("not served", rules.demand_ended(values["demandId"], self.parameters.demand_price, asker))
