"""The ground of a simulation: its configuration, its agents with their coin, and what is counted of its rounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from assay.economics import settlement as rules
from assay.economics.agents import Agent, population
from assay.economics.prices import Prices, coin
from assay.economics.settlement import MILLION, POOL, Bucket, Ledger, Terms
from assay.market.parameters import COIN, PUBLIC, Parameters


@dataclass(frozen=True)
class Config:
    """One simulation. Amounts in coin; `mix` are parts of each role, the rest is honest.

    `reward` is the median highest reward (log-normal with `reward_spread`), of which training costs `training_part` on
    average hardware. `joining` is "blind" (each whistleblower joins with its equilibrium chance, whatever others do) or
    "count" (it joins while fewer than its payout threshold have, and with the chance `beyond` all the same). `audits`
    is the chance that an honest whistleblower that is active checks one undrawn segment of a task. `imitation` is the
    chance that an agent, in an epoch, looks at another of its role and takes its behaviour if that earns more an act.
    """

    agents: int = 1000
    tasks: int = 10_000
    seed: int = 0
    epoch: int = 50
    solvers: float = 0.2
    verifiers_share: float = 0.3
    mix: dict[str, float] = field(
        default_factory=lambda: {
            "lazy": 0.06,
            "lying": 0.04,
            "colluding": 0.08,
            "withholding": 0.0,
            "griefing": 0.03,
            "absent": 0.03,
        }
    )
    hardware_spread: float = 0.4
    reward: float = 2.0
    reward_spread: float = 0.8
    training_part: float = 0.4
    replay_part: float = 0.02
    exact: float = 0.3
    segments: int = 60
    verifiers: int = 2
    per_verifier: int = 4
    lazy_fraction: float = 0.25
    awake: float = 0.98
    audits: float = 0.0
    joining: str = "blind"
    beyond: float = 0.0
    imitation: float = 0.0
    turnover: float = 0.02
    capacity: int = 40
    parameters: Parameters = PUBLIC
    prices: Prices = field(default_factory=Prices)


class SimulatedMarket:
    """Who is there and who owns what. One source of randomness: the same configuration gives the same result."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.parameters = config.parameters
        self.random = np.random.default_rng(config.seed)
        shares = {
            "solver": config.solvers,
            "verifier": config.verifiers_share,
            "whistleblower": 1 - config.solvers - config.verifiers_share,
        }
        self.agents = population(config.agents, shares, config.mix, self.random, config.hardware_spread)
        self.ledger = Ledger()
        self.keeper, self.submitter = len(self.agents), len(self.agents) + 1
        self.moves = 0
        self.claims: Counter[tuple[str, str]] = Counter()
        self.seen_rounds = self.watched_rounds = self.joins = self.stood = 0
        for agent in self.agents:
            self.fund(agent)
        self.solvers = [agent for agent in self.agents if agent.role == "solver"]
        self.blowers = [agent for agent in self.agents if agent.role == "whistleblower"]
        self.seats = [agent for agent in self.agents for _ in range(agent.seats)]

    def fund(self, agent: Agent) -> None:
        """The stake of an agent that enters: unequal, but enough to act."""
        p = self.parameters
        if agent.role == "solver":
            highest = self.config.reward * float(np.exp(self.config.reward_spread * self.random.uniform(0.5, 3)))
            amount = p.solver_stake_floor + round(highest * COIN) * p.solver_stake_rate // MILLION + COIN
            amount = 2 * amount
        elif agent.role == "verifier":
            amount = agent.seats * p.seat
        else:
            amount = p.answer_bond * self.config.capacity
        self.deposit(agent.number, amount, (Bucket.FREE, agent.number))

    def deposit(self, number: int, amount: int, place: rules.Place) -> None:
        """Coin from outside, counted as its owner's."""
        self.ledger.enter(place, amount)
        if number < len(self.agents):
            self.agents[number].deposited += amount

    def apply(self, moves: rules.Moves) -> None:
        """Settlement moves."""
        self.moves += len(moves)
        self.ledger.apply(moves)

    def profit(self, agent: Agent) -> float:
        """What an agent has made so far, in coin, less all its costs."""
        return coin(self.ledger.worth(agent.number) - agent.deposited) - agent.cost

    def income(self, terms: Terms) -> float:
        """rho J that a round of this task pays now, in coin."""
        prize = rules.jackpot_of(self.parameters, rules.tax_of(self.parameters, terms), self.ledger[POOL])
        return coin(prize) * self.parameters.forced_rate / MILLION
