"""Parameters that come out of the conditions, beside those of a deployment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.economics import formulas
from assay.economics.conditions import Situation, amounts
from assay.economics.prices import Prices, coin
from assay.economics.settlement import MILLION, most_step_backs, rounds_of
from assay.economics.settlement import Terms as TaskTerms
from assay.market.parameters import COIN, Parameters


@dataclass(frozen=True)
class Target:
    """What a deployment is asked to reach: every deviation risks `margin` times its gain.

    At most `unwatched` of the claims have no whistleblower although every verifier answers its own forced errors.
    """

    margin: float = 2.0
    unwatched: float = 0.25


# What a deployment should carry: tasks of some hundred to some ten thousand dollars, a checkpoint every thousandth of
# the steps, two verifiers with one segment each, more than a seventh of the seats in one hand. Larger coalitions are
# kept out by more verifiers, which `advise` asks for: the forfeit that two need grows beyond what a solver can stake.
REFERENCE = tuple(Situation(reward=reward, segments=1000, ring=0.15, share_work=1e13) for reward in (0.2, 1.0, 5.0))


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
    Verifiers: margin c <= (1 - u) (f + V'). Files: the forfeit at which serving only its own verifiers loses
    (`formulas.starving_forfeit`), and the charge at which stepping back on purpose does (`formulas.starving_charge`).
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
    highest = coin(parameters.seat) * rate
    # Beyond one half a forced round says more than a true one, so that from there on the seat has to carry the jackpot.
    forced = min(0.5, income / highest)
    lazy = (target.margin * a.verifier_cost / (1 - target.unwatched) - a.fee) / kept
    seat = max(lazy, income / (max(rho, forced) * rate), 0.0)
    awake = situation.awake
    most = most_step_backs(parameters, n)
    charge = a.step_back - coin(parameters.draw_bounty)
    starving = target.margin * formulas.starving_forfeit(a.price, situation.ring, n, most, charge)
    stepping = target.margin * formulas.starving_charge(a.price, situation.ring, n, most)
    accused = target.margin * (1 - awake) * a.finders / (awake * kept)
    gas = prices.gas
    floor = coin(parameters.solver_stake_floor)
    return [
        Need("taxRate", parameters.tax_rate / MILLION, income * rounds / situation.reward, "whistleblowers' income"),
        Need("forcedRate", rho, forced, "the same, from a jackpot of at most a part of a seat"),
        Need("seat", coin(parameters.seat), max(seat, accused), "jackpot's cap; not replaying; failing honest proofs"),
        Need(
            "solverStakeRate",
            parameters.solver_stake_rate / MILLION,
            max(0.0, (stake - floor) / situation.reward, starving / situation.reward),
            f"a coalition with {situation.ring:.0%} of the seats; the forfeit below",
        ),
        Need(
            "unavailableRate",
            parameters.unavailable_rate / MILLION,
            starving / a.price,
            "serving files to its own verifiers only",
        ),
        Need(
            "stepBackRate",
            parameters.step_back_rate / MILLION,
            stepping / max(a.price, coin(parameters.seat)),
            "ending tasks by stepping back",
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


# Fields of `Parameters` that `recommended` raises; the others are bounded by gas, and only shown.
RAISED = {
    "taxRate": ("tax_rate", MILLION),
    "forcedRate": ("forced_rate", MILLION),
    "seat": ("seat", COIN),
    "solverStakeRate": ("solver_stake_rate", MILLION),
    "unavailableRate": ("unavailable_rate", MILLION),
    "stepBackRate": ("step_back_rate", MILLION),
    "feeFloor": ("fee_floor", COIN),
    "answerBond": ("answer_bond", COIN),
    "caseBond": ("case_bond", COIN),
    "accusationBond": ("accusation_bond", COIN),
    "drawBounty": ("draw_bounty", COIN),
}


def recommended(
    parameters: Parameters,
    prices: Prices,
    target: Target,
    situations: tuple[Situation, ...] = REFERENCE,
) -> Parameters:
    """`parameters` with everything raised that some situation needs, until all have enough (a few passes)."""
    for _ in range(8):
        changes: dict[str, int] = {}
        for situation in situations:
            for need in needs(parameters, situation, prices, target):
                if need.name in RAISED and not need.suffices:
                    name, unit = RAISED[need.name]
                    changes[name] = max(changes.get(name, 0), math.ceil(need.needed * unit))
        if not changes:
            break
        parameters = parameters.with_changes(changes)
    return parameters
