"""What work costs off chain, in coin: the assumptions every table of this package names."""

from __future__ import annotations

from dataclasses import dataclass

from assay.market.parameters import COIN, Parameters

# Gas of a role's calls, measured by the contract tests (contracts/SPECIFICATION.md, section 9) and rounded up; answers
# are join, commit, reveal and collect; a case is half of the court's budget of 3 million.
GAS = {
    "verifier": 220_000,
    "whistleblower": 300_000,
    "solver": 190_000,
    "submitter": 325_000,
    "draw": 230_000,
    "case": 1_500_000,
    "accuse": 250_000,
}


@dataclass(frozen=True)
class Prices:
    """Dollars for a coin, for an hour of a machine that replays and of a device that trains; what they do in a second.

    `units_per_second` is what a replaying machine does of the units a program counts (fused multiply-adds, mostly),
    `training_units_per_second` what the training device does. `interest` is the yearly price of capital at stake.
    """

    coin: float = 3000.0
    gas_gwei: float = 2.0
    machine_hour: float = 0.10
    units_per_second: float = 2e10
    device_hour: float = 2.0
    training_units_per_second: float = 2e13
    interest: float = 0.05

    def gas(self, role: str) -> float:
        """Gas of a role's calls, in coin."""
        return GAS[role] * self.gas_gwei * 1e-9

    def replay(self, work: float) -> float:
        """Replaying `work` units, in coin."""
        return work / self.units_per_second / 3600 * self.machine_hour / self.coin

    def training(self, work: float) -> float:
        """Training `work` units natively, in coin."""
        return work / self.training_units_per_second / 3600 * self.device_hour / self.coin

    def capital(self, amount: float, seconds: float) -> float:
        """Interest on `amount` coin held for some seconds."""
        return amount * self.interest * seconds / (365 * 86400)


def coin(wei: int) -> float:
    """Wei as coin."""
    return wei / COIN


def round_seconds(parameters: Parameters, work: float) -> float:
    """How long a seat is held for a round without disputes, at most."""
    floors = parameters.commit_seconds + parameters.answer_seconds + parameters.reveal_seconds
    blocks = 12 * (parameters.draw_delay + parameters.join_blocks + parameters.show_blocks)
    windows = parameters.disclose_seconds + parameters.dispute_seconds + 3 * work / parameters.work_per_second
    return floors + blocks + windows
