"""One share of a simulated task: draws, a round with its lottery and answers, disputes, and its release."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from assay.economics import settlement as rules
from assay.economics.agents import Agent
from assay.economics.formulas import join_chance, payout_threshold
from assay.economics.settlement import MILLION, POOL, Bucket, Released, Terms
from assay.economics.simulated_market import SimulatedMarket

TRUE, FALSE, MADE_UP = "true", "false", "made up"


@dataclass
class TaskRun:
    """A task while it is played. Costs in coin on average hardware: of training, and of one share's replay."""

    terms: Terms
    training: float
    replay: float
    solver: Agent | None = None
    wrong: set[int] = field(default_factory=set)
    withheld: bool = False
    all_ring: bool = False
    state: str = ""
    step_backs: int = 0


@dataclass
class Round:
    """A verifier's round. `lie` says whether its claim is false; answers are `TRUE`, `FALSE` (the lie) or others."""

    task: TaskRun
    id: tuple[int, int, int]
    verifier: Agent
    lie: bool
    joined: list[Agent] = field(default_factory=list)
    answers: dict[int, str] = field(default_factory=dict)
    claimant: int | None = None
    collected: str = ""


class Share:
    """One share of a proof, or the profile, in a simulated market."""

    def __init__(
        self,
        market: SimulatedMarket,
        task: TaskRun,
        number: int,
        segments: list[int] | None = None,
        is_profile: bool = False,
    ) -> None:
        self.market, self.task, self.number, self.is_profile = market, task, number, is_profile
        self.segments = segments or []
        self.verifier: Agent | None = None
        self.round: Round | None = None
        self.state = "awaiting"
        self.attempt = 0
        self.charged = False
        self.passes = True
        self.seen: set[int] = set()
        self.charges = ("charges", task.terms.task, 255 if is_profile else number)

    @property
    def fails(self) -> bool:
        """Whether the truth about this share is that the proof fails."""
        return any(segment in self.task.wrong for segment in self.segments)

    # ---- drawing ----

    def draw(self) -> None:
        """Draws until somebody works on it, or the task ends (`Unavailable`, `Unverified`)."""
        market, p = self.market, self.market.parameters
        while self.state == "awaiting":
            if self.attempt > p.maximal_replacements and self.task.step_backs and not self.is_profile:
                # Volunteers are not wanted where somebody could not fetch.
                self.state = "Unavailable"
                return
            if self.attempt > p.maximal_replacements + p.maximal_volunteers:
                self.state = "Unverified"
                return
            verifier = self.chosen()
            if verifier is None:
                self.attempt += 1
                self.charged = False
                continue
            self.seen.add(verifier.number)
            caller = market.keeper
            if self.attempt <= p.maximal_replacements:
                first = self.attempt == 0
                market.apply(rules.draw_carried_out(p, self.task.terms, caller, first, self.charged))
            market.apply(rules.lock(market.ledger, verifier.number, p.seat))
            verifier.acts += 1
            if verifier.behaviour == "absent":
                market.apply(rules.verifier_silent(p, verifier.number))
                self.again()
            elif verifier.behaviour == "griefing" or (self.task.withheld and not verifier.in_ring):
                market.apply(rules.stepped_back(p, verifier.number, self.charges, self.task.terms.price))
                verifier.cost += market.config.prices.gas("verifier") / 3
                # A volunteer was not drawn by chance.
                self.task.step_backs += self.attempt <= p.maximal_replacements
                self.again()
                verifiers = 0 if self.is_profile else self.task.terms.verifiers
                if self.task.step_backs == rules.most_step_backs(p, verifiers):
                    self.state = "Unavailable"
            else:
                self.verifier, self.state = verifier, "drawn"

    def again(self) -> None:
        """A further attempt, which the verifier before has paid for."""
        self.attempt += 1
        self.charged = True
        self.state = "awaiting"
        self.verifier = None

    def chosen(self) -> Agent | None:
        """A seat by chance, passing over who cannot serve."""
        market = self.market
        for place in market.random.integers(0, len(market.seats), 24):
            agent: Agent = market.seats[place]
            free = market.ledger[Bucket.FREE, agent.number]
            if agent.number not in self.seen and free >= market.parameters.seat:
                return agent
        return None

    # ---- the round ----

    def lies(self, verifier: Agent) -> bool:
        """Whether this verifier's claim is false."""
        if verifier.behaviour == "lazy":
            return True
        if verifier.behaviour == "lying":
            # Fails whatever passes; what fails in truth needs no lie.
            return not self.fails and not self.is_profile
        task = self.task
        ring = task.solver is not None and task.solver.in_ring
        return verifier.in_ring and ring and task.all_ring and self.fails

    def verify(self) -> None:
        """Rounds until a claim stands, fallen or not."""
        while self.state == "drawn":
            self.play()
            if self.state == "awaiting":
                self.draw()
                if self.state == "drawn" and self.verifier is not None and not self.verifier.in_ring:
                    self.task.all_ring = False

    def play(self) -> None:
        """One round: commit, join, lottery, answers, disclosure, dispute."""
        market, p, task = self.market, self.market.parameters, self.task
        verifier = self.verifier
        assert verifier is not None
        lie = self.lies(verifier)
        key = (int(str(task.terms.task)), 255 if self.is_profile else self.number, self.attempt)
        round_ = Round(task, key, verifier, lie)
        self.round = round_
        verifier.cost += market.config.prices.gas("verifier")
        if verifier.behaviour != "lazy":
            verifier.cost += task.replay * verifier.factor
        bond = p.answer_bond
        round_.joined = [a for a in self.joiners(round_) if market.ledger[Bucket.FREE, a.number] >= bond]
        for agent in round_.joined:
            market.apply(rules.joined(p, key, agent.number))
            agent.left -= 1
        market.seen_rounds += 1
        market.joins += len(round_.joined)
        honest = [agent for agent in round_.joined if agent.behaviour == "honest"]
        market.watched_rounds += bool(honest)
        if lie and verifier.in_ring and honest:
            # Seen by an honest whistleblower, a coalition's lie will fall: silence is cheaper.
            market.apply(rules.verifier_silent(p, verifier.number))
            self.void(round_)
            market.claims[verifier.behaviour, "silent"] += 1
            return
        forced = bool(market.random.random() * MILLION < p.forced_rate)
        self.answer(round_, forced)
        if forced and round_.answers:
            market.apply(rules.jackpot_reserved(p, task.terms, key, market.ledger[POOL]))
        self.dispute(round_, honest)

    def joiners(self, round_: Round) -> list[Agent]:
        """Which whistleblowers join a round, by the rule of the configuration, each by its own costs."""
        market, config, task = self.market, self.market.config, self.task
        income, gas = market.income(task.terms), config.prices.gas("whistleblower")
        ring = round_.verifier.in_ring
        joined: list[Agent] = []
        active = [agent for agent in market.blowers if agent.active and agent.left > 0]
        own = [agent for agent in active if agent.behaviour == "colluding"] if ring else []
        others = [agent for agent in active if agent.behaviour != "colluding"]
        if task.withheld:
            # Honest whistleblowers join only what they can fetch.
            others = [agent for agent in others if agent.behaviour != "honest"]
        if own:
            # One identity answers the forced error; where a lie has to be covered by a full claim, as many as it takes.
            crowd = payout_threshold(income, gas) if config.joining == "count" and round_.lie else 1
            joined += own[: min(len(own), max(1, crowd))]
        if not others:
            return joined
        draws = market.random.random(len(others))
        if config.joining == "count":
            beyond = config.beyond
            for i in np.argsort(draws):
                cost = gas + (task.replay * others[i].factor if others[i].behaviour == "honest" else 0.0)
                # The draws decide the order; a fresh one decides who joins beyond the threshold.
                if len(joined) < payout_threshold(income, cost) or (beyond and market.random.random() < beyond):
                    joined.append(others[i])
            return joined
        for agent, drawn in zip(others, draws, strict=True):
            cost = gas + (task.replay * agent.factor if agent.behaviour == "honest" else 0.0)
            if income >= cost and drawn < join_chance(income, cost, len(active) - 1):
                joined.append(agent)
        return joined

    def void(self, round_: Round) -> None:
        """The round is voided: bonds go back, and another verifier is drawn."""
        for agent in round_.joined:
            self.market.apply(rules.answer_collected(self.market.parameters, round_.id, agent.number, False, True, 0))
        self.again()

    def answer(self, round_: Round, forced: bool) -> None:
        """What each whistleblower answers, and what that costs it."""
        market = self.market
        gas = market.config.prices.gas("whistleblower")
        claim = FALSE if round_.lie else TRUE
        for agent in round_.joined:
            agent.acts += 1
            agent.cost += gas
            if agent.behaviour in ("honest", "griefing"):
                agent.cost += self.task.replay * agent.factor
                round_.answers[agent.number] = TRUE
            elif agent.behaviour == "lazy":
                # The derived false claim of a forced round equals nobody's replay.
                round_.answers[agent.number] = "derived" if forced else claim
            elif agent.behaviour == "lying":
                round_.answers[agent.number] = MADE_UP
            elif agent.behaviour == "colluding":
                round_.answers[agent.number] = claim

    def dispute(self, round_: Round, honest: list[Agent]) -> None:
        """A false claim falls if anybody who knows better is there; griefers lose cases against true ones."""
        market, p = self.market, self.market.parameters
        verifier = round_.verifier
        case = market.config.prices.gas("case")
        claims_pass = not self.fails
        if round_.lie:
            claims_pass = verifier.behaviour != "lying"
            challenger = honest[0] if honest else self.awake_solver(claims_pass)
            if challenger is not None:
                market.deposit(challenger.number, p.case_bond, (Bucket.CASE, round_.id))
                challenger.cost += case
                verifier.cost += case
                round_.claimant = challenger.number
                claims_pass = not self.fails
                self.state = "fell"
                market.claims[verifier.behaviour, "fell"] += 1
            else:
                self.state = "stands"
                market.stood += 1
                market.claims[verifier.behaviour, "false claim stood"] += 1
        else:
            self.state = "stands"
            market.claims[verifier.behaviour, "true claim stood"] += 1
            for agent in round_.joined:
                if agent.behaviour == "griefing":
                    key = ("case", round_.id, agent.number)
                    market.deposit(agent.number, p.case_bond, (Bucket.CASE, key))
                    market.apply(rules.bond_forfeited(key, p.case_bond, verifier.number))
                    agent.cost += case
                    verifier.cost += case
        self.passes = claims_pass
        round_.collected = TRUE if self.state == "fell" or not round_.lie else FALSE

    def awake_solver(self, claims_pass: bool) -> Agent | None:
        """The solver, where a false claim is against its honest work and it is awake."""
        solver = self.task.solver
        if solver is None or self.fails or claims_pass:
            return None
        return solver if self.market.random.random() < self.market.config.awake else None

    # ---- release ----

    def released(self, failed: bool, unit: int) -> Released:
        """What the settlement needs of this share."""
        round_, ledger = self.round, self.market.ledger
        assert round_ is not None
        return Released(
            self.task.terms,
            round_.id,
            round_.verifier.number,
            self.market.parameters.seat,
            self.charges,
            ledger[Bucket.ROUND, self.charges],
            failed,
            self.is_profile,
            unit if not self.passes else 0,
            sum(answer == round_.collected for answer in round_.answers.values()),
            ledger[Bucket.RESERVE, round_.id],
        )

    def release(self, failed: bool, unit: int) -> None:
        """Pays a share whose claim stands, fallen or not, and everybody who joined its round."""
        market, p, round_ = self.market, self.market.parameters, self.round
        assert round_ is not None
        released = self.released(failed, unit)
        if self.state == "fell":
            assert round_.claimant is not None
            answered = round_.answers.get(round_.claimant) == round_.collected
            each, moves = rules.round_fell(p, released, round_.claimant, answered)
            bond = rules.bond_returned(round_.id, p.case_bond, round_.claimant)
            market.apply([*moves, *bond])
        else:
            each, moves = rules.round_stood(p, released)
            market.apply(moves)
        for agent in round_.joined:
            right = round_.answers.get(agent.number) == round_.collected
            market.apply(rules.answer_collected(p, round_.id, agent.number, right, False, each))

    def release_unsettled(self) -> None:
        """The task ended without a verdict: what was disclosed is paid, everything else returns."""
        if self.state in ("stands", "fell"):
            self.release(False, 0)
            return
        market, p, ledger = self.market, self.market.parameters, self.market.ledger
        charged = ledger[Bucket.ROUND, self.charges]
        released = Released(
            self.task.terms,
            None,
            None if self.verifier is None else self.verifier.number,
            p.seat,
            self.charges,
            charged,
            is_profile=self.is_profile,
        )
        if self.state == "drawn":
            market.apply(rules.round_ended_with_its_task(p, released, False))
        else:
            market.apply(rules.share_without_round(p, released))
