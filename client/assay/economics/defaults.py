"""Parameters that come out of the conditions, beside those of a deployment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.economics import formulas
from assay.economics.conditions import Situation, amounts
from assay.economics.prices import Prices, coin
from assay.economics.settlement import MILLION, rounds_of
from assay.economics.settlement import Terms as TaskTerms
from assay.market.parameters import Parameters


@dataclass(frozen=True)
class Target:
    """What a deployment is asked to reach: every deviation risks `margin` times its gain.

    At most `unwatched` of the claims have no whistleblower although every verifier answers its own forced errors.
    """

    margin: float = 2.0
    unwatched: float = 0.25


@dataclass(frozen=True)
class Need:
    """One parameter: what a deployment has and the least that the target needs. Amounts in coin, rates as parts."""

    name: str
    deployed: float
    needed: float
    why: str

    @property
    def suffices(self) -> bool:
        """Whether the deployment reaches it."""
        return self.deployed >= self.needed * (1 - 1e-9)


def needs(parameters: Parameters, situation: Situation, prices: Prices, target: Target) -> list[Need]:
    """The least value of each parameter for one situation, the others as they are.

    Whistleblowers: rho J >= 2 c / sqrt(u), where 2 stands for the verifier's own identity and u for the claims left
    unwatched; the tax has to pay it, and J is capped by a part of a seat. Solvers: a coalition that holds `ring` of the
    seats wins P with x = (ring sqrt(u))^n, so S' >= margin x / (1 - x) (P + n f), and S from S' by the finders' rate.
    Verifiers: margin c <= (1 - u) (f + V').
    """
    a = amounts(parameters, situation, prices)
    n, phi = situation.verifiers, parameters.finder_rate / MILLION
    rounds = rounds_of(TaskTerms("", "", situation.exact, n, 0, 0))
    income = 2 * formulas.income_for(target.unwatched, a.answer_cost)
    rho, rate = parameters.forced_rate / MILLION, parameters.jackpot_rate / MILLION
    unseen = target.unwatched if situation.joining == "blind" else 1.0
    success = (situation.ring * unseen) ** n
    lost = target.margin * success / (1 - success) * (a.price + a.fees) if success < 1 else math.inf
    stake = max(0.0, (lost - a.fees) / (1 - phi))
    kept = min(parameters.silence_rate / MILLION, 1 - phi)
    seat = max((target.margin * a.verifier_cost / (1 - target.unwatched) - a.fee) / kept, income / (rho * rate), 0.0)
    awake = situation.awake
    accused = target.margin * (1 - awake) * a.finders / (awake * kept)
    gas = prices.gas
    floor = coin(parameters.solver_stake_floor)
    highest = coin(parameters.seat) * rate
    return [
        Need("taxRate", parameters.tax_rate / MILLION, income * rounds / situation.reward, "whistleblowers' income"),
        Need("forcedRate", rho, income / highest, "the same, from a jackpot of at most a part of a seat"),
        Need("seat", coin(parameters.seat), max(seat, accused), "jackpot's cap; not replaying; failing honest proofs"),
        Need(
            "solverStakeRate",
            parameters.solver_stake_rate / MILLION,
            max(0.0, (stake - floor) / situation.reward),
            f"a coalition with {situation.ring:.0%} of the seats",
        ),
        Need("feeFloor", coin(parameters.fee_floor), gas("verifier"), "gas of a round"),
        Need(
            "feePerTerawork",
            coin(parameters.fee_per_terawork),
            prices.replay(1e12),
            "a replay's cost at these prices; far above it is a tax on checking",
        ),
        Need("answerBond", coin(parameters.answer_bond), a.answer_cost, "not answering is dearer than answering"),
        Need("caseBond", coin(parameters.case_bond), target.margin * gas("case"), "half of it pays the opponent's gas"),
        Need(
            "accusationBond", coin(parameters.accusation_bond), target.margin * gas("case"), "the same for accusations"
        ),
        Need("drawBounty", coin(parameters.draw_bounty), gas("draw"), "gas of a draw"),
        Need("leakRate", parameters.leak_rate / MILLION, rate, "bringing a secret beats using it"),
        Need("silenceRate", parameters.silence_rate / MILLION, rate, "silence costs more than any jackpot"),
    ]
