"""Who takes part in a simulated market: roles, behaviours, unequal hardware and stake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from assay.errors import AssayError

ROLES = ("solver", "verifier", "whistleblower")
BEHAVIOURS = ("honest", "lazy", "lying", "colluding", "withholding", "griefing", "absent")
# What each behaviour does in each role; a row that is missing does not occur in that role.
MEANING: dict[tuple[str, str], str] = {
    ("solver", "honest"): "trains everything",
    ("solver", "lazy"): "fakes a part of the segments",
    ("solver", "lying"): "fakes everything",
    ("solver", "colluding"): "fakes everything, has its own verifiers and whistleblowers",
    ("solver", "withholding"): "the same, and serves its files to nobody else",
    ("solver", "griefing"): "takes tasks and steps down",
    ("solver", "absent"): "takes tasks and never registers",
    ("verifier", "honest"): "replays and claims the result",
    ("verifier", "lazy"): "claims without a replay that the proof passes",
    ("verifier", "lying"): "fails honest proofs",
    ("verifier", "colluding"): "passes its own solvers' fakes; its identities answer its forced errors",
    ("verifier", "griefing"): "steps back whenever drawn",
    ("verifier", "absent"): "never answers a draw",
    ("whistleblower", "honest"): "replays, answers, takes wrong claims to court",
    ("whistleblower", "lazy"): "answers what was shown",
    ("whistleblower", "lying"): "answers something made up",
    ("whistleblower", "colluding"): "answers with its own verifiers, is silent about them",
    ("whistleblower", "griefing"): "opens cases against true claims",
    ("whistleblower", "absent"): "joins and does not answer",
}


class SimulationError(AssayError):
    """A simulation was asked for that cannot be."""

    code = "simulation"


@dataclass(slots=True)
class Agent:
    """One participant. `factor` multiplies its costs (hardware); `deposited` is in wei, `cost` in coin."""

    number: int
    role: str
    behaviour: str
    factor: float
    seats: int = 0
    deposited: int = 0
    cost: float = 0.0
    acts: int = 0
    active: bool = True
    left: int = 0
    switched_at: float = field(default=0.0)

    @property
    def in_ring(self) -> bool:
        """Whether it belongs to the coalition; there is one, the worst case of all colluders being the same person."""
        return self.behaviour in ("colluding", "withholding")


def population(
    count: int,
    shares: Mapping[str, float],
    mix: Mapping[str, float],
    random: np.random.Generator,
    hardware_spread: float,
) -> list[Agent]:
    """`count` agents: roles by `shares`, behaviours by `mix` (the rest honest), costs log-normal around 1.

    Seats follow a Pareto law (a few hold many). `SimulationError` for shares or mixes that are no probabilities.
    """
    for name, table, known in (("shares", shares, ROLES), ("mix", mix, BEHAVIOURS)):
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise SimulationError(f"{name} names {unknown[0]!r}: known are {', '.join(known)}")
        if min(table.values(), default=0) < 0 or sum(table.values()) > 1 + 1e-9:
            raise SimulationError(f"{name} {dict(table)} are not parts of one: make them sum to at most 1")
    if count < 10:
        raise SimulationError(f"{count} agents make no market: take at least 10")
    agents: list[Agent] = []
    for role in ROLES:
        number = round(count * shares.get(role, 0.0))
        # Counts, not draws, so that small populations have the mix that was asked for.
        behaviours: list[str] = []
        for behaviour in BEHAVIOURS[1:]:
            if (role, behaviour) in MEANING:
                behaviours += [behaviour] * round(number * mix.get(behaviour, 0.0))
        behaviours = behaviours[:number] + ["honest"] * (number - len(behaviours))
        random.shuffle(behaviours)
        for behaviour in behaviours:
            factor = float(random.lognormal(0.0, hardware_spread))
            seats = min(20, 1 + int(random.pareto(1.5))) if role == "verifier" else 0
            agents.append(Agent(len(agents), role, behaviour, factor, seats))
    return agents
