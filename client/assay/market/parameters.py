"""Every number of the protocol (contracts/Parameters.sol), fixed at deployment, and two sets of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from assay.market.errors import DeploymentError

COIN = 10**18


@dataclass(frozen=True)
class Parameters:
    """Amounts in wei, rates in parts per million, durations in seconds unless the name says blocks.

    Meanings are those of the struct Parameters in contracts/Parameters.sol; the defaults are for public chains.
    """

    seat: int = COIN
    answer_bond: int = COIN // 20
    case_bond: int = COIN // 10
    accusation_bond: int = COIN // 5
    demand_price: int = COIN // 1000
    draw_bounty: int = COIN // 500
    solver_stake_floor: int = COIN // 2
    fee_floor: int = COIN // 100
    fee_per_terawork: int = COIN // 10**6
    solver_stake_rate: int = 500_000
    tax_rate: int = 61_000
    forced_rate: int = 170_000
    finder_rate: int = 400_000
    silence_rate: int = 500_000
    leak_rate: int = 300_000
    jackpot_rate: int = 250_000
    step_back_rate: int = 30_000
    step_down_rate: int = 100_000
    late_rate: int = 200_000
    unavailable_rate: int = 500_000
    compensation_rate: int = 250_000
    refuter_rate: int = 50_000
    work_per_second: int = 10**10
    training_per_second: int = 10**12
    unbonding_seconds: int = 21 * 86400
    commit_seconds: int = 3600
    answer_seconds: int = 3600
    reveal_seconds: int = 3600
    disclose_seconds: int = 3600
    dispute_seconds: int = 12 * 3600
    volunteer_seconds: int = 12 * 3600
    demand_seconds: int = 6 * 3600
    hold_seconds: int = 7 * 86400
    train_seconds: int = 3600
    draw_delay: int = 4
    join_blocks: int = 50
    show_blocks: int = 200
    active_blocks: int = 7200
    maximal_relists: int = 3
    maximal_replacements: int = 4
    maximal_volunteers: int = 2
    maximal_step_backs: int = 4

    def values(self) -> tuple[int, ...]:
        """In the order of the Solidity struct."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def with_changes(self, changes: dict[str, int]) -> Parameters:
        """Some numbers replaced, by name. `DeploymentError` for names there are not."""
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            known = ", ".join(field.name for field in fields(self))
            raise DeploymentError(f"there is no protocol parameter {unknown[0]!r}: known are {known}")
        return replace(self, **changes)

    def as_json(self) -> dict[str, str]:
        """Amounts as decimal text, since JSON numbers lose digits."""
        return {name: str(value) for name, value in asdict(self).items()}


def parameters_of(record: Any) -> Parameters:
    """The parameters of a deployment file."""
    names = {field.name for field in fields(Parameters)}
    if not isinstance(record, dict) or set(record) != names:
        raise DeploymentError("the deployment file's parameters are not those of this client: deploy again")
    try:
        return Parameters(**{name: int(str(value), 10) for name, value in record.items()})
    except ValueError as error:
        raise DeploymentError(f"the deployment file's parameters hold something else than numbers: {error}") from error


@dataclass(frozen=True)
class CourtParameters:
    """The court's clocks and prices: seconds on each side's clock, least seconds a move, wei a unit of gas that the
    bond must cover, wei a second beyond the own clock."""

    allowance: int = 6 * 3600
    extension: int = 1800
    gas_price: int = 20 * 10**9
    overshoot_price: int = 10**12


PUBLIC = Parameters()
PUBLIC_COURT = CourtParameters()

LOCAL = replace(
    PUBLIC,
    forced_rate=100_000,
    work_per_second=10**8,
    training_per_second=10**8,
    unbonding_seconds=120,
    commit_seconds=30,
    answer_seconds=15,
    reveal_seconds=10,
    disclose_seconds=15,
    dispute_seconds=15,
    volunteer_seconds=20,
    demand_seconds=20,
    hold_seconds=3600,
    train_seconds=60,
    draw_delay=2,
    join_blocks=5,
    show_blocks=100,
    active_blocks=200,
)
"""For a chain on one machine with a block a second: a task without disputes waits about a minute for windows."""

LOCAL_COURT = CourtParameters(allowance=120, extension=20, gas_price=2 * 10**9)
