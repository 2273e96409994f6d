"""Results of a simulation as tables and JSON."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from assay.economics.agents import MEANING
from assay.economics.simulation import LEFT_OUT, Outcome


def earnings(outcome: Outcome) -> list[dict[str, Any]]:
    """One row for each role and behaviour: agents, acts, mean profit of an agent and of an act (coin)."""
    sums: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for agent, profit in zip(outcome.agents, outcome.profits, strict=True):
        sums[agent.role, agent.behaviour].append((profit, agent.acts))
    rows = []
    for role, behaviour in MEANING:
        found = sums.get((role, behaviour))
        if not found:
            continue
        acts = sum(count for _, count in found)
        total = sum(profit for profit, _ in found)
        rows.append(
            {
                "role": role,
                "behaviour": behaviour,
                "what": MEANING[role, behaviour],
                "agents": len(found),
                "acts": acts,
                "profit_agent": total / len(found),
                "profit_act": total / acts if acts else None,
            }
        )
    return rows


def coalition(outcome: Outcome) -> float:
    """What all colluding and withholding agents made together, in coin: they are one coalition."""
    return sum(profit for agent, profit in zip(outcome.agents, outcome.profits, strict=True) if agent.in_ring)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything a simulation found, for machines."""
    config = outcome.config
    return {
        "config": {
            **{k: v for k, v in asdict(config).items() if k not in ("parameters", "prices")},
            "parameters": config.parameters.as_json(),
            "prices": asdict(config.prices),
        },
        "earnings": earnings(outcome),
        "coalition_profit": coalition(outcome),
        "ends": [{"solver": s, "end": e, "tasks": n} for (s, e), n in sorted(outcome.ends.items())],
        "claims": [{"verifier": v, "claim": c, "rounds": n} for (v, c), n in sorted(outcome.claims.items())],
        "lazy_solvers": {
            "proofs": outcome.lazy_trials,
            "caught": outcome.lazy_caught,
            "expected_if_every_share_is_true": outcome.expected_caught,
        },
        "course": [asdict(moment) for moment in outcome.moments],
        "accounts": {"entered_wei": str(outcome.entered), "held_wei": str(outcome.held), "moves": outcome.moves},
        "left_out": list(LEFT_OUT),
    }
