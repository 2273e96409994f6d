"""Which inequalities make honesty the best reply of every role, with their margins, for one task and its market."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from assay.economics import formulas
from assay.economics.prices import Prices, coin, round_seconds
from assay.economics.settlement import (
    MILLION,
    Terms,
    finders_part,
    most_step_backs,
    stake_of,
    step_back_charge,
    tax_of,
    unavailable_forfeit,
)
from assay.market.parameters import COIN, Parameters


@dataclass(frozen=True)
class Situation:
    """One task and the market around it. Amounts in coin.

    `training_cost` defaults to the price: competition has taken all profit, the worst case for stakes. A share's replay
    costs `replay_ratio` times what training the same steps costs (canonical against native, and one kind of machine
    against another). `fee` defaults to one and a half times a verifier's cost, at least the market's floor.
    `share_work` is only needed for windows. `ring` is the share of seats of one coalition, `awake` the chance that an
    honest solver disputes a false claim against it, `honest` the share of whistleblowers that replay, `pool` what the
    jackpot pool holds (infinite: long since full). `audits` is the chance that somebody finds a wrong segment that was
    not drawn (the submitter, who wants the model, or whoever wants the finders' part). `joining`: "blind" or "count",
    as in the simulation; with "count" a coalition's own identities keep the others away from its claims, but for those
    who join with the chance `beyond` all the same.
    """

    reward: float = 1.0
    price: float | None = None
    training_cost: float | None = None
    verifiers: int = 2
    per_verifier: int = 1
    segments: int = 200
    exact: bool = False
    fee: float | None = None
    replay_ratio: float = 2.0
    share_work: float = 1e13
    whistleblowers: int = 10
    honest: float = 0.7
    joining: str = "blind"
    ring: float = 0.1
    awake: float = 0.99
    pool: float = math.inf
    audits: float = 0.0
    beyond: float = 0.0


@dataclass(frozen=True)
class Amounts:
    """What the parameters and a situation come to, in coin."""

    price: float
    training_cost: float
    fee: float
    stake: float
    fees: float
    stake_lost: float
    seat: float
    seat_lost: float
    forfeit: float
    step_back: float
    finders: float
    tax: float
    jackpot: float
    income: float
    replay_cost: float
    answer_cost: float
    verifier_cost: float
    watched: float
    watched_with_sybils: float


@dataclass(frozen=True)
class Condition:
    """One inequality: `risk` is what deviating costs (or what is paid), `gain` what it brings (or costs), in coin."""

    role: str
    name: str
    gain: float
    risk: float
    rule: str

    @property
    def margin(self) -> float:
        """Risk over gain: honesty pays best above 1."""
        return math.inf if self.gain <= 0 else self.risk / self.gain

    @property
    def holds(self) -> bool:
        """Whether honesty is the best reply."""
        return self.margin >= 1 - 1e-9

    def as_json(self) -> dict[str, Any]:
        """For `--json`; an infinite margin is null."""
        margin = None if math.isinf(self.margin) else self.margin
        return {**asdict(self), "margin": margin, "holds": self.holds}


def amounts(parameters: Parameters, situation: Situation, prices: Prices) -> Amounts:
    """The amounts of a situation, by the settlement's own rules where it has them."""
    price = situation.reward if situation.price is None else situation.price
    training = price if situation.training_cost is None else situation.training_cost
    seat = coin(parameters.seat)
    held = round_seconds(parameters, situation.share_work)
    replay = situation.replay_ratio * training * situation.per_verifier / situation.segments
    verifying = replay + prices.gas("verifier") + prices.capital(seat, held)
    fee = max(coin(parameters.fee_floor), 1.5 * verifying) if situation.fee is None else situation.fee
    terms = Terms(
        "task",
        "submitter",
        situation.exact,
        situation.verifiers,
        highest_reward=round(situation.reward * COIN),
        verifier_fee=round(fee * COIN),
        price=round(price * COIN),
    )
    fees = situation.verifiers * fee
    stake, tax = coin(stake_of(parameters, terms)), coin(tax_of(parameters, terms))
    phi, rho = parameters.finder_rate / MILLION, parameters.forced_rate / MILLION
    prize = formulas.jackpot(tax, rho, situation.pool, seat * parameters.jackpot_rate / MILLION)
    answer = replay + prices.gas("whistleblower") + prices.capital(coin(parameters.answer_bond), held)
    workers = situation.whistleblowers, situation.honest
    return Amounts(
        price=price,
        training_cost=training,
        fee=fee,
        stake=stake,
        fees=fees,
        stake_lost=formulas.out_of_reach(stake, fees, phi),
        seat=seat,
        seat_lost=formulas.seat_at_risk(seat, phi, parameters.silence_rate / MILLION),
        forfeit=coin(unavailable_forfeit(parameters, terms)),
        step_back=coin(step_back_charge(parameters, terms.price)),
        finders=coin(finders_part(parameters, terms)),
        tax=tax,
        jackpot=prize,
        income=rho * prize,
        replay_cost=replay,
        answer_cost=answer,
        verifier_cost=verifying,
        watched=formulas.watched(rho * prize, answer, *workers),
        watched_with_sybils=formulas.watched(rho * prize / 2, answer, *workers),
    )


def watched_in_a_ring(situation: Situation, found: Amounts) -> float:
    """Chance that a coalition's claim has an honest whistleblower.

    By the count, as many identities of the coalition as one claim pays for keep everybody else away from it, but for
    those who join beyond the threshold: 1 - (1 - beyond)^(honest whistleblowers).
    """
    if situation.joining == "blind":
        return found.watched_with_sybils
    return 1 - math.pow(1 - situation.beyond, situation.honest * situation.whistleblowers)


def conditions(parameters: Parameters, situation: Situation, prices: Prices) -> list[Condition]:
    """Every condition of a situation. Whistleblowers are taken to be diluted by one sybil of every verifier."""
    a = amounts(parameters, situation, prices)
    omega, ring, n = a.watched_with_sybils, situation.ring, situation.verifiers
    ring_omega = watched_in_a_ring(situation, a)
    truthful = 1 - ring * (1 - ring_omega)
    ratio, worst = formulas.cheat_margin(
        a.price, a.training_cost, a.stake_lost, situation.segments, n, situation.per_verifier, truthful
    )
    saved = worst * a.training_cost
    success = (ring * (1 - ring_omega)) ** n
    ring_risk = formulas.ring_margin(a.price, a.training_cost, a.stake_lost, a.seat_lost, a.fee, n, ring, ring_omega)
    ring_gain = success * (a.price + a.fees)
    rho = parameters.forced_rate / MILLION
    seen = 1 - (1 - situation.awake) * (1 - omega)
    leak = a.seat * parameters.leak_rate / MILLION
    silence = a.seat * parameters.silence_rate / MILLION
    case = prices.gas("case")
    # An honest verifier cannot fetch and steps back; one seat of the ring a share is enough.
    most = most_step_backs(parameters, n)
    starved, backs = formulas.served_to_accomplices(ring, n, most)
    bounty = coin(parameters.draw_bounty)
    drawn = n * situation.per_verifier / situation.segments
    single = 1 - (1 - drawn) * (1 - situation.audits)
    held = round_seconds(parameters, situation.share_work)
    return [
        Condition("solver", f"fakes a part (worst: {worst:.0%})", saved, saved * ratio, "x C <= D(x) (P + S')"),
        Condition(
            "solver",
            "saves everything by one false segment",
            a.training_cost,
            single * (a.price + a.stake_lost),
            "C <= (1 - (1 - d/N) (1 - A)) (P + S'), A: found although not drawn",
        ),
        Condition(
            "solver",
            f"trains nothing, owns {ring:.0%} of the seats",
            ring_gain,
            ring_gain * ring_risk if ring_gain else 0.0,
            "x (P + n f) <= (1-x) S' + (b^n - x) n V' + P - C, x = (b (1-w))^n",
        ),
        Condition(
            "solver",
            "serves files to its own verifiers only",
            starved * a.price + backs * (a.step_back - bounty),
            (1 - starved) * (a.forfeit + prices.capital(a.stake, held)) + a.price - a.training_cost,
            "s P + E[k] (c - b) <= (1-s) (F + interest on S) + P - C, s: n accomplices drawn before k others step back",
        ),
        Condition(
            "verifier",
            "steps back to end a task for its submitter",
            formulas.starving_charge(a.price, ring, n, most),
            a.step_back,
            "c >= the least at which stepping back for P loses, from every state of the proof's shares",
        ),
        Condition("verifier", "does not replay", a.verifier_cost, omega * (a.fee + a.seat_lost), "c <= w(f+V')"),
        Condition(
            "verifier",
            "fails an honest proof",
            (1 - seen) * a.finders,
            seen * a.seat_lost,
            "(1-a) phi (S - n f) <= a V', a = 1 - (1-awake)(1-w)",
        ),
        Condition(
            "verifier",
            "answers its own forced errors",
            formulas.sybil_gain(rho * a.jackpot, 1, 1),
            a.tax,
            "rho J / 2^k <= T: paid by the tax, also if it is its own submitter",
        ),
        Condition(
            "verifier", "sells its secret", a.jackpot, leak, "J <= V leakRate: the buyer does better to bring it"
        ),
        Condition("verifier", "is silent to keep a jackpot", a.jackpot, silence, "J <= V silenceRate"),
        Condition(
            "verifier",
            "takes part",
            a.verifier_cost,
            a.fee,
            "replay + gas + interest on the seat <= f",
        ),
        Condition("whistleblower", "looks (alone)", a.answer_cost, a.income, "replay + gas + interest <= rho J"),
        Condition("whistleblower", "looks beside a verifier's sybil", a.answer_cost, a.income / 2, "c <= rho J / 2"),
        Condition(
            "whistleblower",
            "answers what was shown",
            0.0,
            -formulas.guesser_gain(rho, coin(parameters.answer_bond), prices.gas("whistleblower")),
            "0 <= rho A + gas",
        ),
        Condition(
            "whistleblower",
            "is bribed to silence",
            a.price,
            (a.finders + coin(parameters.seat) * parameters.finder_rate / MILLION),
            "P <= phi (S - n f) + phi V for each that looked: any one of them takes it all",
        ),
        Condition(
            "challenger",
            "loses cases on purpose",
            case,
            coin(parameters.case_bond) / 2,
            "opponent's gas <= B / 2",
        ),
        Condition(
            "submitter",
            "trades with itself for jackpots",
            a.income,
            a.tax,
            "rho J <= T, for every share of seats and answers it has",
        ),
        Condition("submitter", "gains by a failure", 0.0, a.fees, "refund <= escrow: no share of a stake"),
    ]


@dataclass(frozen=True)
class Limits:
    """How far honesty holds at a margin.

    `largest_ring` is a share of the seats, with whistleblowers and without; `least_whistleblowers` how many keep
    verifiers replaying (None: no number does); `dearest_answer` what a whistleblower's answer may cost, in coin;
    `awake_needed` how often somebody must dispute false failures; `rounds_to_fund` an empty pool; `largest_reward` up
    to which reward tasks like this one are worth watching (0: none is, the tax is too low).

    `unavailable_forfeit`: what an unavailable end has to cost the solver, in coin, so that serving only its
    accomplices does not pay. `starved_price`: up to which price the charge for stepping back grows with it, in coin.
    `starved_loss`: what verifiers who step back on purpose destroy (price and forfeit) for each coin they lose, at
    most, playing best.

    A proof with one false segment that saves all training (margin 1): `one_segment_audits` is how likely somebody has
    to find it undrawn (above 1: stake and price are too small); `one_segment_draws` how many segments would have to be
    drawn instead (None: all are not enough); `least_wrong` from how many false segments on it loses by the draw alone.
    """

    largest_ring: float
    largest_ring_unwatched: float
    least_whistleblowers: int | None
    payout_threshold: int
    unwatched: float
    watch_needed: float
    dearest_answer: float
    largest_reward: float
    awake_needed: float
    rounds_to_fund: float
    unavailable_forfeit: float
    starved_price: float
    starved_loss: float
    one_segment_audits: float
    one_segment_draws: int | None
    least_wrong: int | None


def limits(parameters: Parameters, situation: Situation, prices: Prices, margin: float = 2.0) -> Limits:
    """The limits of a situation at a margin (2: every deviation risks twice what it gains)."""
    a = amounts(parameters, situation, prices)
    n, fee = situation.verifiers, a.fee
    ring = (a.price, a.training_cost, a.stake_lost, a.seat_lost, fee, n)
    honest = (a.price, a.training_cost, a.stake_lost)
    most = most_step_backs(parameters, n)
    needed = min(1.0, margin * a.verifier_cost / (fee + a.seat_lost))
    seen = watched_in_a_ring(situation, a)
    least = None
    for number in range(1, 65):
        if formulas.watched(a.income / 2, a.answer_cost, number, situation.honest) >= needed:
            least = number
            break
    # Half the income, since a verifier's sybil takes the other half. The cap of the jackpot is a part of a seat: from
    # some reward on a replay costs more than watching can bring, at this task's ratio of the two.
    cap = parameters.forced_rate / MILLION * a.seat * parameters.jackpot_rate / MILLION
    fixed = a.answer_cost - a.replay_cost
    largest = situation.reward * max(0.0, cap / 2 - fixed) / a.replay_cost if a.replay_cost else math.inf
    if a.tax / 2 < a.replay_cost + fixed:
        largest = 0.0
    return Limits(
        largest_ring=formulas.largest_ring(*ring, watch=seen, margin=margin),
        largest_ring_unwatched=formulas.largest_ring(*ring, watch=0.0, margin=margin),
        least_whistleblowers=least,
        payout_threshold=formulas.payout_threshold(a.income, a.answer_cost),
        unwatched=1 - a.watched_with_sybils,
        watch_needed=needed,
        dearest_answer=a.income / 2,
        largest_reward=largest,
        awake_needed=formulas.lost_awake(a.finders, a.seat_lost),
        unavailable_forfeit=formulas.starving_forfeit(
            a.price, situation.ring, n, most, a.step_back - coin(parameters.draw_bounty)
        ),
        starved_price=coin(parameters.seat) * parameters.silence_rate / max(1, parameters.step_back_rate),
        starved_loss=formulas.starving_charge(a.price + a.forfeit, situation.ring, n, most) / a.step_back,
        one_segment_audits=formulas.one_segment_needs(*honest, situation.segments, n * situation.per_verifier),
        one_segment_draws=formulas.draws_against(*honest, situation.segments, 1),
        least_wrong=formulas.least_wrong(*honest, situation.segments, n * situation.per_verifier),
        rounds_to_fund=formulas.rounds_to_fund(a.answer_cost, parameters.forced_rate / MILLION, a.tax),
    )
