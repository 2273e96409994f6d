"""What a submitter should pay and demand for one task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from assay.economics import formulas
from assay.economics.conditions import Amounts, Condition, Limits, Situation, amounts, conditions, limits
from assay.economics.prices import Prices, coin, round_seconds
from assay.economics.settlement import Terms, escrow_of, lowest_fee, most_step_backs, stake_of
from assay.errors import AssayError
from assay.market.parameters import COIN, Parameters

MOST_VERIFIERS, MOST_SEGMENTS = 8, 16  # contracts/libraries/Postings.sol


class AdviceError(AssayError):
    """There is no advice for what was asked."""

    code = "advice"


@dataclass(frozen=True)
class Wish:
    """A task to be posted. Work in units of the program's header; costs in coin.

    A proof of which `fraction` is wrong (0: one segment) shall be hit by the draw with `certainty`; `audits` is the
    chance that a wrong segment is found that was not drawn, by the submitter or anybody else. `training_cost` and
    `replay_ratio` come from the prices unless given. `segments` 0: as many as make looking worth a whistleblower's
    while.
    """

    step_work: float
    steps: int
    segments: int = 0
    exact: bool = False
    fraction: float = 0.25
    certainty: float = 0.9
    margin: float = 2.0
    ring: float = 0.15
    audits: float = 0.0
    whistleblowers: int = 10
    training_cost: float | None = None
    replay_ratio: float | None = None
    headroom: float = 2.0


@dataclass(frozen=True)
class Advice:
    """What to put in a posting, what it costs, what remains. Amounts in coin."""

    lowest_reward: float
    highest_reward: float
    verifiers: int
    per_verifier: int
    segments: int
    interval: int
    verifier_fee: float
    profiler_fee: float
    solver_stake: float
    escrow: float
    training_cost: float
    replay_ratio: float
    train_seconds: int
    round_seconds: float
    detection: dict[str, float]
    draws: dict[str, int | None]
    amounts: Amounts
    conditions: list[Condition]
    limits: Limits
    warnings: list[str]


def advise(parameters: Parameters, wish: Wish, prices: Prices) -> Advice:
    """Choose shares, segments, fees and rewards for a task. `AdviceError` for a task that has no work."""
    if wish.step_work <= 0 or wish.steps <= 0:
        raise AdviceError(f"a task of {wish.steps} steps of {wish.step_work} units has no work: give both above 0")
    if not 0 <= wish.fraction <= 1 or not 0 < wish.certainty < 1 or not 0 <= wish.audits <= 1:
        raise AdviceError(
            f"fraction {wish.fraction}, certainty {wish.certainty} and audits {wish.audits} must lie between 0 and 1"
        )
    work = wish.step_work * wish.steps
    cost = prices.training(work) if wish.training_cost is None else wish.training_cost
    ratio = wish.replay_ratio
    if ratio is None:
        ratio = prices.replay(work) / prices.training(work)
    lowest = cost + prices.gas("solver")
    base = Situation(
        reward=wish.headroom * lowest,
        price=lowest,
        training_cost=cost,
        exact=wish.exact,
        replay_ratio=ratio,
        whistleblowers=wish.whistleblowers,
        ring=wish.ring,
        audits=wish.audits,
    )
    best = None
    counts = [wish.segments] if wish.segments else _candidates(wish)
    for segments in counts:
        best = _situation(parameters, wish, prices, base, segments)
        a = amounts(parameters, best, prices)
        if a.income / 2 >= wish.margin * a.answer_cost:
            break
    assert best is not None
    return _advice(parameters, wish, prices, best, lowest, cost, ratio)


def _candidates(wish: Wish) -> list[int]:
    """Numbers of segments to try: a checkpoint is a whole state to be stored, so as few as will do."""
    sizes = {min(wish.steps, size) for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)}
    return sorted(size for size in sizes if wish.steps // size >= 1)


def _situation(parameters: Parameters, wish: Wish, prices: Prices, base: Situation, segments: int) -> Situation:
    """The fewest verifiers that keep the coalition out, and the fewest segments each that reach the certainty."""
    drawn = formulas.least_drawn(max(wish.fraction, 1 / segments), wish.certainty, segments)
    drawn = min(drawn, MOST_VERIFIERS * MOST_SEGMENTS)
    found = base
    for verifiers in range(1, MOST_VERIFIERS + 1):
        per = math.ceil(drawn / verifiers)
        if per > MOST_SEGMENTS or per * verifiers > segments:
            continue
        interval = math.ceil(wish.steps / segments)
        found = replace(
            base, segments=segments, verifiers=verifiers, per_verifier=per, share_work=per * interval * wish.step_work
        )
        a = amounts(parameters, found, prices)
        found = replace(found, fee=max(a.fee, coin(lowest_fee(parameters, round(found.share_work)))))
        a = amounts(parameters, found, prices)
        ring = (a.price, a.training_cost, a.stake_lost, a.seat_lost, a.fee, verifiers, wish.ring)
        most = most_step_backs(parameters, verifiers)
        starving = formulas.starving_forfeit(a.price, wish.ring, verifiers, most, a.step_back)
        is_kept_out = formulas.ring_margin(*ring, watch=a.watched_with_sybils) >= wish.margin
        if is_kept_out and a.forfeit >= wish.margin * starving:
            break
    return found


def _advice(
    parameters: Parameters, wish: Wish, prices: Prices, found: Situation, lowest: float, cost: float, ratio: float
) -> Advice:
    a = amounts(parameters, found, prices)
    terms = Terms(
        "task",
        "submitter",
        wish.exact,
        found.verifiers,
        round(found.reward * COIN),
        round(a.fee * COIN),
        0 if wish.exact else round(2 * a.fee * COIN),
    )
    drawn = found.verifiers * found.per_verifier
    table = {f"{f:.0%}": formulas.detection(f, found.segments, drawn) for f in (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)}
    # Even where a few false segments save the whole training, which is the most that they can.
    wrongs = {"1 segment": 1, **{f"{f:.0%}": math.ceil(f * found.segments) for f in (0.01, 0.05, 0.1, 0.25, 0.5)}}
    honest = (a.price, a.training_cost, a.stake_lost)
    draws = {name: formulas.draws_against(*honest, found.segments, wrong) for name, wrong in wrongs.items()}
    checked = conditions(parameters, found, prices)
    warnings = [
        f"{c.role} {c.name}: margin {c.margin:.2f}, below {wish.margin:g} ({c.rule})"
        for c in checked
        if c.margin < wish.margin
    ]
    hit = formulas.detection(max(wish.fraction, 1 / found.segments), found.segments, drawn)
    if hit < wish.certainty - 1e-9:
        warnings.append(
            f"the market draws at most {MOST_VERIFIERS * MOST_SEGMENTS} segments of a proof, which hit it with "
            f"{hit:.1%} instead of {wish.certainty:.1%}: write fewer, longer segments"
        )
    audits = formulas.one_segment_needs(*honest, found.segments, drawn)
    if audits > wish.audits:
        dear = draws["1 segment"]
        warnings.append(
            "one false segment can save all training (a checkpoint of NaN, the seam of two runs), and the draw finds "
            f"it with {drawn / found.segments:.1%}: "
            + (
                f"look yourself before the task settles (`assay task audit`), so that it is found with {audits:.0%}, "
                f"or draw {dear} of {found.segments} segments"
                if dear is not None and audits <= 1
                else "no audit is enough at this price and stake; raise the lowest reward"
            )
        )
    if a.income / 2 < a.answer_cost:
        warnings.append(
            f"no whistleblower will look: an answer costs {a.answer_cost:.4g} coin and brings {a.income / 2:.4g} "
            "beside a verifier's own identity; take more segments, fewer a share, a higher reward, or cheaper replays"
        )
    fees = a.fees + coin(terms.profiler_fee)
    if fees > 0.2 * found.reward:
        warnings.append(
            f"checking would cost {fees:.4g} coin in fees beside a highest reward of {found.reward:.4g}: put more "
            "training into one task, or draw fewer segments (stakes deter more than draws do)"
        )
    if a.fee > 3 * a.verifier_cost:
        warnings.append(
            f"the market's lowest fee {a.fee:.4g} is {a.fee / a.verifier_cost:.3g} times what a verifier's work "
            "costs at these prices"
        )
    train_seconds = parameters.train_seconds + round(wish.step_work * wish.steps) // parameters.training_per_second
    seconds = round_seconds(parameters, found.share_work)
    if train_seconds >= 1 << 32:
        warnings.append(
            f"the market accepts no training time below {train_seconds:.3g} s for this work and none above 2^32 s: it "
            f"refuses the task (training_per_second {parameters.training_per_second:.3g})"
        )
    if seconds > parameters.unbonding_seconds:
        warnings.append(
            f"a round can last {seconds / 86400:.3g} days at the market's {parameters.work_per_second:.3g} units a "
            f"second, longer than stakes stay bound ({parameters.unbonding_seconds / 86400:.3g} days): draw fewer or "
            "shorter segments"
        )
    if ratio > 5:
        warnings.append(
            f"a replayed step costs {ratio:.3g} times a trained one at these prices: verifiers need devices like the "
            "solver's, or fees will rival the reward"
        )
    return Advice(
        lowest_reward=lowest,
        highest_reward=found.reward,
        verifiers=found.verifiers,
        per_verifier=found.per_verifier,
        segments=found.segments,
        interval=math.ceil(wish.steps / found.segments),
        verifier_fee=a.fee,
        profiler_fee=coin(terms.profiler_fee),
        solver_stake=coin(stake_of(parameters, terms)),
        escrow=coin(escrow_of(parameters, terms)),
        training_cost=cost,
        replay_ratio=ratio,
        train_seconds=train_seconds,
        round_seconds=seconds,
        detection=table,
        draws=draws,
        amounts=a,
        conditions=checked,
        limits=limits(parameters, found, prices, wish.margin),
        warnings=warnings,
    )
