"""Closed forms: chances of being found out, gains of each way to cheat, and the numbers at which honesty stops paying.

Amounts are floats in one unit throughout (coin); symbols are those of contracts/SPECIFICATION.md, section 5: R highest
reward, P price, C training cost, S solver's stake, V seat, f fee, n verifiers, T tax of a round, J jackpot, A answer
bond, phi finders' rate, rho forced rate.
"""

from __future__ import annotations

import math


def missed(wrong: int, segments: int, drawn: int) -> float:
    """Probability that none of `drawn` segments is among `wrong` ones of `segments`: C(N-w, d) / C(N, d).

    Draws are a keyed permutation, that is, without replacement.
    """
    if wrong <= 0 or drawn <= 0:
        return 1.0
    if wrong + drawn > segments:
        return 0.0
    # The smaller of the two loops: hypergeometric weights are symmetric in what is wrong and what is drawn.
    few, many = sorted((wrong, drawn))
    return math.prod((segments - many - i) / (segments - i) for i in range(few)) if few else 1.0


def detection(fraction: float, segments: int, drawn: int) -> float:
    """Chance that the draw hits a proof of which `fraction` (rounded up to a segment) is wrong."""
    return 1.0 - missed(math.ceil(fraction * segments - 1e-9), segments, drawn)


def caught(fraction: float, segments: int, verifiers: int, per_verifier: int, truthful: float) -> float:
    """Chance that a cheat is found by shares each of which ends in the truth independently with chance `truthful`.

    The cheat escapes if no truthful share holds a wrong segment, so with i truthful shares of m segments it escapes
    with `missed(w, N, i m)`; i is binomial.
    """
    wrong = math.ceil(fraction * segments - 1e-9)
    escape = 0.0
    for i in range(verifiers + 1):
        weight = math.comb(verifiers, i) * math.pow(truthful, i) * math.pow(1 - truthful, verifiers - i)
        escape += weight * missed(wrong, segments, i * per_verifier)
    return 1.0 - escape


def least_drawn(fraction: float, certainty: float, segments: int) -> int:
    """Fewest drawn segments that hit a proof of which `fraction` is wrong with at least `certainty`."""
    for drawn in range(1, segments + 1):
        if detection(fraction, segments, drawn) >= certainty - 1e-12:
            return drawn
    return segments


def out_of_reach(stake: float, fees: float, finder_rate: float) -> float:
    """What a caught solver loses even if its own second identity is the finder: S - phi (S - n f).

    The finders' part comes back to it; the fees go to verifiers and the rest to the pool.
    """
    return stake - finder_rate * (stake - fees)


def seat_at_risk(seat: float, finder_rate: float, silence_rate: float) -> float:
    """What a verifier with a false claim loses at least: it can fall silent, or let its own identity be the finder.

    A liar that sees honest whistleblowers join can still choose silence (V * silenceRate) over a fallen claim; one that
    is sure to fall can have its second identity fell it, which saves V * phi. The cheaper of both counts.
    """
    return seat * min(silence_rate, 1 - finder_rate)


# ---- Whistleblowers -------------------------------------------------------------------------------------------------


def jackpot(tax: float, forced_rate: float, pool: float, cap: float) -> float:
    """J = min(T / rho, pool / 3, V * jackpotRate)."""
    return min(tax / forced_rate, pool / 3, cap) if forced_rate > 0 else 0.0


def payout_threshold(income: float, cost: float) -> int:
    """k*: the most answers to one claim with which each still pays: rho J / 2^(k-1) >= c, `income` being rho J."""
    if cost <= 0:
        return 1 << 30
    return 0 if income < cost else 1 + int(math.log2(income / cost) + 1e-12)


def join_chance(income: float, cost: float, others: int) -> float:
    """p: with which chance each of `others` + 1 equal whistleblowers joins a claim, none seeing the others.

    Indifference: rho J E[2^-K] = c with K ~ Binomial(others, p), and E[2^-K] = (1 - p/2)^others, so
    p = 2 (1 - (c / rho J)^(1/others)), at most 1; alone one joins if it pays at all.
    """
    if income < cost or income <= 0:
        return 0.0
    if others <= 0 or cost <= 0:
        return 1.0
    return min(1.0, 2 * (1 - math.pow(cost / income, 1 / others)))


def watched(income: float, cost: float, whistleblowers: int, honest: float = 1.0) -> float:
    """omega: chance that at least one honest whistleblower joins a claim: 1 - (1 - p h)^W.

    For many whistleblowers, all honest, (1 - p)^W tends to (c / rho J)^2: one claim in (rho J / c)^2 is unwatched.
    """
    if whistleblowers <= 0:
        return 0.0
    return 1 - math.pow(1 - honest * join_chance(income, cost, whistleblowers - 1), whistleblowers)


def income_for(unwatched: float, cost: float) -> float:
    """rho J that leaves at most `unwatched` of the claims without any whistleblower, however many there are."""
    return cost / math.sqrt(unwatched)


def sybil_gain(prize: float, honest: int, own: int) -> float:
    """What a verifier's `own` identities win of a forced round beside `honest` right answers: m J / 2^(k+m-1).

    The verifier knows the answer, so its identities need no replay. m / 2^m is 1/2 for one and two, then falls: a
    second identity wins nothing. With k honest ones beside it, J / 2^k.
    """
    return own * prize * 0.5 ** (honest + own - 1) if own > 0 else 0.0


def guesser_gain(forced_rate: float, bond: float, gas: float) -> float:
    """What answering with the shown claim, without a replay, brings: nothing in true rounds, -A in forced ones."""
    return -forced_rate * bond - gas


# ---- Who deviates ---------------------------------------------------------------------------------------------------


def cheat_margin(
    price: float, cost: float, lost: float, segments: int, verifiers: int, per_verifier: int, truthful: float
) -> tuple[float, float]:
    """Smallest ratio of what cheating risks to what it saves, and the fraction at which it is smallest.

    A solver that fakes a fraction x saves x C, and with chance D(x) loses price and stake: honesty pays best while
    D(x) (P + S) >= x C. D is concave in x and D(1) is least in proportion, so with every share truthful the worst case
    is x = 1 and the margin (P + S) / C; shares that may lie lower D.
    """
    worst, at = math.inf, 1.0
    for wrong in sorted({1, *(max(1, round(segments * i / 40)) for i in range(1, 41))}):
        fraction = wrong / segments
        chance = caught(fraction, segments, verifiers, per_verifier, truthful)
        ratio = chance * (price + lost) / (fraction * cost) if cost > 0 else math.inf
        if ratio < worst:
            worst, at = ratio, fraction
    return worst, at


def ring_margin(
    price: float, cost: float, lost: float, seat: float, fee: float, verifiers: int, share: float, watch: float
) -> float:
    """Ratio of risk to gain for a solver that trains nothing and owns `share` of the seats.

    It succeeds if every drawn verifier is its own (share^n) and no claim is watched ((1-omega)^n): x = (share
    (1-omega))^n, and wins P + n f. Otherwise it loses S, and n seats where its own verifiers lied and were seen. Where
    one honest verifier is drawn its own do not lie: they collect the finders' part, which `lost` is already net of. An
    honest ring would have kept P - C.
    """
    success = (share * (1 - watch)) ** verifiers
    gain = success * (price + verifiers * fee)
    risk = (1 - success) * lost + (share**verifiers - success) * verifiers * seat + (price - cost)
    return math.inf if gain <= 0 else risk / gain


def largest_ring(
    price: float, cost: float, lost: float, seat: float, fee: float, verifiers: int, watch: float, margin: float = 1.0
) -> float:
    """Largest share of the seats with which `ring_margin` is at least `margin`, by bisection."""
    low, high = 0.0, 1.0
    if ring_margin(price, cost, lost, seat, fee, verifiers, 1.0, watch) >= margin:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if ring_margin(price, cost, lost, seat, fee, verifiers, middle, watch) >= margin:
            low = middle
        else:
            high = middle
    return low


def one_segment_needs(price: float, saved: float, lost: float, segments: int, drawn: int) -> float:
    """Least chance A that a wrong segment which was not drawn is found, so that a proof with a single one does not pay.

    One wrong segment can save everything: behind a checkpoint of NaN, or at the seam of two runs, every other segment
    is true. The draw finds it with d / N, so (1 - (1 - d/N) (1 - A)) (P + S') >= C. Above 1: no audit is enough.
    """
    needed = saved / (price + lost)
    found = drawn / segments
    if needed <= found:
        return 0.0
    return (needed - found) / (1 - found) if found < 1 else math.inf


def draws_against(price: float, saved: float, lost: float, segments: int, wrong: int) -> int | None:
    """Fewest drawn segments that make it a loss to save `saved` by `wrong` false segments: D (P + S') >= saved.

    None where even a proof that is replayed as a whole does not (P + S' < saved).
    """
    needed = saved / (price + lost)
    return None if needed > 1 else least_drawn(wrong / segments, needed, segments)


def least_wrong(price: float, saved: float, lost: float, segments: int, drawn: int) -> int | None:
    """Fewest false segments at which a cheat that saves `saved` loses by the draw alone; None where none does."""
    for wrong in range(1, segments + 1):
        if (1 - missed(wrong, segments, drawn)) * (price + lost) >= saved * (1 - 1e-12):
            return wrong
    return None


# ---- Files that are not served --------------------------------------------------------------------------------------


def served_to_accomplices(share: float, verifiers: int, most: int) -> tuple[float, float]:
    """A solver serves its files to its own verifiers only: the chance that every share gets one, and the step backs.

    Everybody else who is drawn steps back, and the `most`-th of them ends the task. The k honest ones drawn before the
    n-th accomplice follow a negative binomial law: s = sum over k < most of C(n-1+k, k) b^n (1-b)^k. The second number
    is the expected count of step backs where it succeeds: they pay the accomplices.
    """
    n = verifiers
    chances = [math.comb(n - 1 + k, k) * math.pow(share, n) * math.pow(1 - share, k) for k in range(most)]
    return min(1.0, sum(chances)), sum(k * chance for k, chance in enumerate(chances))


def starving_forfeit(price: float, share: float, verifiers: int, most: int, charge: float = 0.0) -> float:
    """What an *unavailable* end has to cost a solver, so that serving only its accomplices does not pay.

    It wins the price with chance s, and the charges of those who stepped back, and forfeits F otherwise:
    s P + E[k] charge <= (1 - s) F.
    """
    success, backs = served_to_accomplices(share, verifiers, most)
    return math.inf if success >= 1 else (success * price + backs * charge) / (1 - success)


def starving_value(prize: float, charge: float, share: float, verifiers: int, most: int) -> float:
    """What verifiers expect who step back on purpose, for a `prize` once the task has ended so, playing their best.

    V(k, j) with k step backs made and j shares open: an honest verifier serves one (V(k, j-1)); one of theirs pays the
    charge for V(k+1, j), or serves as well.
    """
    values = [prize] * (verifiers + 1)
    values[0] = 0.0
    for _ in range(most):
        # values[j] is V(k+1, j) before, and V(k, j) after this pass; a task served in every share has V = 0.
        fresh = [0.0]
        for j in range(1, verifiers + 1):
            fresh.append((1 - share) * fresh[j - 1] + share * max(values[j] - charge, fresh[j - 1]))
        values = fresh
    return values[verifiers]


def starving_charge(prize: float, share: float, verifiers: int, most: int) -> float:
    """Least charge for stepping back at which ending a task on purpose brings nothing (`starving_value` is 0)."""
    if prize <= 0 or share <= 0:
        return 0.0
    low, high = 0.0, prize
    for _ in range(60):
        middle = (low + high) / 2
        if starving_value(prize, middle, share, verifiers, most) > 0:
            low = middle
        else:
            high = middle
    return high


def lost_awake(finders_part: float, seat: float) -> float:
    """Least chance that somebody disputes a false accusation in a round, so that making it does not pay.

    A verifier that fails an honest proof gets the finders' part if nobody disputes, and loses its seat if anybody
    does: a >= phi (S - n f) / (phi (S - n f) + V).
    """
    return finders_part / (finders_part + seat) if finders_part > 0 else 0.0


def rounds_to_fund(cost: float, forced_rate: float, tax: float) -> float:
    """Rounds after which an empty pool pays for one whistleblower: a third of it times rho must reach c."""
    return math.inf if tax <= 0 or forced_rate <= 0 else 3 * cost / (forced_rate * tax)
