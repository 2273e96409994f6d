"""An agent-based simulation of the market that pays by the contracts' own rules (`assay.economics.settlement`).

Tasks come one after another, in epochs between which agents join, leave, and (if asked) imitate whoever earns more.
Every coin is in a `Ledger`; whoever disputes is right in court if it tells the truth. What it leaves out is said in
`LEFT_OUT`, which every output repeats.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from assay.economics import settlement as rules
from assay.economics.agents import Agent
from assay.economics.formulas import caught, payout_threshold
from assay.economics.prices import coin
from assay.economics.settlement import POOL, Bucket, Terms
from assay.economics.simulated_market import Config, SimulatedMarket
from assay.economics.verification import Share, TaskRun
from assay.market.parameters import COIN

LEFT_OUT = (
    "courts decide truly and nobody honest misses a clock; gas has one price; blocks are not withheld or reordered",
    "all colluders are one coalition, the worst case; bribes offered to strangers are bounded in the conditions only",
    "honest replays never exceed the threshold and wrong segments always do: see the separation study for both errors",
    "an agent's moves do not depend on other tasks; prices of tasks and of coin do not react to the market",
    "files are to be had for everybody, except from withholding solvers; demands on chain are not played",
)


@dataclass(frozen=True)
class Moment:
    """The market after an epoch. `watched` is the part of its claims that an honest whistleblower joined."""

    task: int
    pool: float
    active: int
    watched: float
    false_claims_stood: int
    dishonest: float


@dataclass
class Outcome:
    """What a simulation gives: agents with their profits (coin), counts, and the course over time."""

    config: Config
    agents: list[Agent]
    profits: list[float]
    ends: Counter[tuple[str, str]]
    claims: Counter[tuple[str, str]]
    moments: list[Moment]
    expected_caught: float
    lazy_caught: int
    lazy_trials: int
    entered: int
    held: int
    moves: int


class Simulation(SimulatedMarket):
    """A market while its tasks are played."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.ends: Counter[tuple[str, str]] = Counter()
        self.moments: list[Moment] = []
        self.expected = 0.0
        self.lazy_caught = self.lazy_trials = 0

    # ---- one task ----

    def post(self, number: int) -> TaskRun:
        """A submitter posts a task: its terms, costs, and its escrow."""
        c = self.config
        reward = c.reward * float(np.exp(c.reward_spread * self.random.standard_normal()))
        training = reward * c.training_part
        replay = training * c.replay_part
        fee = max(coin(self.parameters.fee_floor), 2 * (replay + c.prices.gas("verifier")))
        exact = bool(self.random.random() < c.exact)
        terms = Terms(
            number,
            self.submitter,
            exact,
            c.verifiers,
            round(reward * COIN),
            round(fee * COIN),
            0 if exact else round(fee * COIN),
        )
        self.ledger.enter(terms.escrow, rules.escrow_of(self.parameters, terms))
        return TaskRun(terms, training, replay)

    def play(self, number: int) -> None:
        """One task from posting to its end."""
        task = self.post(number)
        behaviour = "none"
        if not task.terms.exact:
            share = Share(self, task, 0, is_profile=True)
            share.draw()
            if share.state != "drawn":
                self.end(task, "Profiling", share.state, [share])
                return
            share.verify()
            share.release(False, 0)
            task.step_backs = 0
        if self.take(task):
            assert task.solver is not None
            behaviour = task.solver.behaviour
            self.register(task)
        else:
            self.end(task, "Open", "Cancelled", [])
        self.ends[behaviour, task.state] += 1

    def take(self, task: TaskRun) -> bool:
        """The auction among some solvers that are free; those that do not deliver are followed by others."""
        stake = rules.stake_of(self.parameters, task.terms)
        for attempt in range(self.parameters.maximal_relists + 1):
            picked = self.random.integers(0, len(self.solvers), 8)
            able = [self.solvers[i] for i in picked if self.ledger[Bucket.FREE, self.solvers[i].number] >= stake]
            if not able:
                return False
            # Cheats save work and undercut a little.
            bids = sorted(
                (task.training * a.factor * (1.2 if a.behaviour == "honest" else 1.15), a.number) for a in able
            )
            price = bids[0][0] if len(bids) == 1 else (bids[0][0] + bids[1][0]) / 2
            if attempt and price * COIN > task.terms.price:
                price = coin(task.terms.price)
            solver = self.agents[bids[0][1]]
            offered = min(round(price * COIN), task.terms.highest_reward)
            task.terms = replace(task.terms, price=offered, solver=solver.number)
            task.solver = solver
            solver.acts += 1
            solver.cost += self.config.prices.gas("solver")
            self.apply(rules.lock(self.ledger, solver.number, stake))
            if solver.behaviour not in ("griefing", "absent"):
                return True
            late = solver.behaviour == "absent"
            forfeit = (
                rules.late_forfeit(self.parameters, task.terms, 110, 100)
                if late
                else rules.step_down_forfeit(self.parameters, task.terms)
            )
            self.apply(rules.solver_gone(self.parameters, task.terms, forfeit))
            self.ends[solver.behaviour, "Late" if late else "Stepped down"] += 1
            task.terms, task.solver = replace(task.terms, solver=None), None
        return False

    def register(self, task: TaskRun) -> None:
        """The proof, its drawn segments, its rounds, and the settlement."""
        c = self.config
        solver = task.solver
        assert solver is not None
        faked = {"honest": 0.0, "lazy": c.lazy_fraction}.get(solver.behaviour, 1.0)
        wrong = set(self.random.permutation(c.segments)[: int(np.ceil(faked * c.segments))].tolist())
        task.wrong, task.withheld = wrong, solver.behaviour == "withholding"
        solver.cost += task.training * solver.factor * (1 - faked)
        drawn = self.random.permutation(c.segments)[: c.verifiers * c.per_verifier].tolist()
        shares = [Share(self, task, i, drawn[i :: c.verifiers]) for i in range(c.verifiers)]
        for share in shares:
            share.draw()
            if share.state != "drawn":
                self.end(task, "Verifying", share.state, shares)
                return
        # A coalition lies only where nobody honest was drawn.
        task.all_ring = all(share.verifier is not None and share.verifier.in_ring for share in shares)
        for share in shares:
            share.verify()
            if share.state not in ("stands", "fell"):
                self.end(task, "Verifying", share.state, shares)
                return
        finder = self.audited(task, set(drawn))
        failing = sum(not share.passes for share in shares)
        if solver.behaviour == "lazy":
            self.lazy_trials += 1
            self.lazy_caught += bool(failing or finder is not None)
            self.expected += caught(c.lazy_fraction, c.segments, c.verifiers, c.per_verifier, 1.0)
        escrow = self.ledger[task.terms.escrow]
        unit = 0
        if failing or finder is not None:
            task.state = "Failed"
            moves = rules.task_failed(self.parameters, task.terms, escrow, 0, finder)
            if finder is None:
                part = rules.finders_part(self.parameters, task.terms)
                unit, rest = rules.failure_shared(task.terms, part, failing)
                moves += rest
        else:
            task.state = "Settled"
            moves = rules.task_ended(self.parameters, task.terms, "Verifying", escrow, 0, task.terms.price)
        self.apply(moves)
        for share in shares:
            share.release(task.state == "Failed", unit)

    def audited(self, task: TaskRun, drawn: set[int]) -> int | None:
        """Who finds a wrong segment that was not drawn, if anybody looks: an accusation, or a case on the training."""
        if self.config.audits == 0 or task.withheld:
            return None
        wrong = len(task.wrong - drawn)
        undrawn = self.config.segments - len(drawn)
        for agent in self.blowers:
            if agent.active and agent.behaviour == "honest" and self.random.random() < self.config.audits:
                agent.cost += task.replay * agent.factor / self.config.per_verifier
                if self.random.random() * undrawn < wrong:
                    agent.acts += 1
                    agent.cost += self.config.prices.gas("case" if task.terms.exact else "accuse")
                    bond = self.parameters.case_bond if task.terms.exact else self.parameters.accusation_bond
                    key = ("accusation", task.terms.task)
                    self.deposit(agent.number, bond, (Bucket.CASE, key))
                    self.apply(rules.bond_returned(key, bond, agent.number))
                    return agent.number
        return None

    def end(self, task: TaskRun, before: str, state: str, shares: list[Share]) -> None:
        """A task that ends without a verdict: stakes back, refund less what was earned."""
        task.state = state
        escrow = self.ledger[task.terms.escrow]
        taken = state == "Unavailable" and task.terms.solver is not None
        forfeit = rules.unavailable_forfeit(self.parameters, task.terms) if taken else 0
        self.apply(rules.task_ended(self.parameters, task.terms, before, escrow, forfeit=forfeit))
        for share in shares:
            share.release_unsettled()

    # ---- between tasks ----

    def epoch(self, number: int) -> None:
        """Between epochs: whistleblowers join and leave, the bankrupt are followed by others, some imitate."""
        c = self.config
        terms = Terms(-1, self.submitter, False, c.verifiers, round(c.reward * COIN), self.parameters.fee_floor)
        income = self.income(terms)
        load = self.joins / self.seen_rounds if self.seen_rounds else 0.0
        gas = c.prices.gas("whistleblower")
        replay = c.reward * c.training_part * c.replay_part
        for agent in self.blowers:
            agent.left = c.capacity
            threshold = payout_threshold(income, gas + replay * agent.factor)
            # One joins when the number is low and leaves when it has passed its own threshold; not all in one moment.
            if self.random.random() < 0.2:
                agent.active = load <= threshold if agent.active else load < threshold
        for agent in self.agents:
            if self.random.random() < c.turnover:
                self.renew(agent)
        if c.imitation:
            self.imitate()
        watched = self.watched_rounds / self.seen_rounds if self.seen_rounds else 0.0
        dishonest = sum(agent.behaviour != "honest" for agent in self.agents) / len(self.agents)
        active = sum(agent.active for agent in self.blowers)
        self.moments.append(Moment(number, coin(self.ledger[POOL]), active, watched, self.stood, dishonest))
        self.seen_rounds = self.watched_rounds = self.joins = self.stood = 0

    def renew(self, agent: Agent) -> None:
        """Credit becomes stake; whoever cannot act any more is followed by a newcomer with the same ways."""
        credit = self.ledger[Bucket.CREDIT, agent.number]
        self.apply([rules.Move((Bucket.CREDIT, agent.number), (Bucket.FREE, agent.number), credit)])
        free = self.ledger[Bucket.FREE, agent.number]
        least = {"solver": 2 * COIN, "verifier": self.parameters.seat, "whistleblower": self.parameters.answer_bond}
        if free < least[agent.role]:
            self.fund(agent)

    def imitate(self) -> None:
        """Some agents take the behaviour of another of their role that earns more an act."""
        for agents in (self.solvers, self.blowers, [a for a in self.agents if a.role == "verifier"]):
            for agent in agents:
                if self.random.random() >= self.config.imitation or agent.acts < 3:
                    continue
                other = agents[int(self.random.integers(len(agents)))]
                if other.acts >= 3 and self.profit(other) / other.acts > self.profit(agent) / agent.acts:
                    agent.behaviour = other.behaviour

    def run(self) -> Outcome:
        """All tasks, and what came of them."""
        for number in range(self.config.tasks):
            if number % self.config.epoch == 0:
                self.epoch(number)
            self.play(number)
        self.epoch(self.config.tasks)
        return Outcome(
            self.config,
            self.agents,
            [self.profit(agent) for agent in self.agents],
            self.ends,
            self.claims,
            self.moments,
            self.expected,
            self.lazy_caught,
            self.lazy_trials,
            self.ledger.entered,
            sum(self.ledger.held.values()),
            self.moves,
        )


def simulate(config: Config) -> Outcome:
    """Run one simulation. `SimulationError` for a configuration that cannot be."""
    return Simulation(config).run()
