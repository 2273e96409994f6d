"""The settlement rules of the contracts (contracts/SPECIFICATION.md, section 5), one small function for each row.

Every function returns the moves between the ledger's buckets that one event causes, in wei, and does nothing else. They
are equal to the contracts' to the wei: tests replay sampled histories of the contracts and compare every bucket after
every call. The simulation pays its agents by the same functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from assay.errors import AssayError
from assay.market.parameters import Parameters

MILLION = 10**6


class LedgerError(AssayError):
    """A bucket was asked for more than it holds: the rules, or the history given to them, are wrong."""

    code = "ledger"


class Bucket(IntEnum):
    """Classes of buckets, in the order of contracts/Stakes.sol."""

    FREE = 0
    LOCKED = 1
    LEAVING = 2
    CREDIT = 3
    ESCROW = 4
    ROUND = 5
    CASE = 6
    DEMAND = 7
    RESERVE = 8
    POOL = 9


Place = tuple[Bucket, Hashable]
POOL: Place = (Bucket.POOL, 0)


class Move(NamedTuple):
    """`amount` wei from one bucket to another."""

    source: Place
    target: Place
    amount: int


Moves = list[Move]


class Ledger:
    """Buckets and what they hold, in wei. Coin enters by `enter` and `leaves` by `leave`; all else moves."""

    def __init__(self) -> None:
        self.held: dict[Place, int] = {}
        self.entered = 0

    def __getitem__(self, place: Place) -> int:
        return self.held.get(place, 0)

    def enter(self, place: Place, amount: int) -> None:
        """Coin comes in."""
        self.held[place] = self.held.get(place, 0) + amount
        self.entered += amount

    def leave(self, place: Place, amount: int) -> None:
        """Coin goes out. `LedgerError` where there is not enough."""
        if self[place] < amount:
            raise LedgerError(f"bucket {place} holds {self[place]} wei and cannot give {amount} out")
        self.enter(place, -amount)

    def apply(self, moves: Iterable[Move]) -> None:
        """Carry moves out in their order. `LedgerError` where a bucket holds too little."""
        held = self.held
        for source, target, amount in moves:
            if amount == 0:
                continue
            rest = held.get(source, 0) - amount
            if rest < 0 or amount < 0:
                raise LedgerError(f"bucket {source} holds {rest + amount} wei and cannot give {amount} to {target}")
            if rest:
                held[source] = rest
            else:
                del held[source]
            held[target] = held.get(target, 0) + amount

    def worth(self, account: Hashable) -> int:
        """Everything an account has here, in wei."""
        return sum(self[bucket, account] for bucket in (Bucket.FREE, Bucket.LOCKED, Bucket.LEAVING, Bucket.CREDIT))


@dataclass(frozen=True)
class Terms:
    """What the settlement needs of a task. Amounts in wei; `price` is the auction price once taken."""

    task: Hashable
    submitter: Hashable
    exact: bool
    verifiers: int
    highest_reward: int
    verifier_fee: int
    profiler_fee: int = 0
    price: int = 0
    solver: Hashable = None

    @property
    def escrow(self) -> Place:
        """The task's escrow."""
        return (Bucket.ESCROW, self.task)


# ---- Amounts --------------------------------------------------------------------------------------------------------


def part_down(amount: int, rate: int) -> int:
    """`amount` times parts per million, rounded down."""
    return amount * rate // MILLION


def tax_of(parameters: Parameters, terms: Terms) -> int:
    """T: jackpot tax of one round; the profile of a tolerant task is a round as well."""
    return part_down(terms.highest_reward, parameters.tax_rate) // rounds_of(terms)


def rounds_of(terms: Terms) -> int:
    """Rounds of a task: one for each verifier, and the profile in tolerant mode."""
    return terms.verifiers + (0 if terms.exact else 1)


def stake_of(parameters: Parameters, terms: Terms) -> int:
    """S: what a solver has to stake."""
    rate = part_down(terms.highest_reward, parameters.solver_stake_rate)
    return parameters.solver_stake_floor + rate + terms.verifiers * terms.verifier_fee


def escrow_of(parameters: Parameters, terms: Terms) -> int:
    """E: what a submitter pays when it posts the task."""
    per_round = parameters.draw_bounty + tax_of(parameters, terms)
    fees = terms.verifiers * terms.verifier_fee + terms.profiler_fee
    return terms.highest_reward + fees + rounds_of(terms) * per_round


def lowest_fee(parameters: Parameters, work: int) -> int:
    """Lowest fee the market accepts for a round of `work` units."""
    return parameters.fee_floor + work * parameters.fee_per_terawork // 10**12


def jackpot_of(parameters: Parameters, tax: int, pool: int) -> int:
    """J: what is reserved for a forced round: the least of tax / rate, a third of the pool, and a part of a seat."""
    if parameters.forced_rate == 0:
        return 0
    cap = part_down(parameters.seat, parameters.jackpot_rate)
    return min(tax * MILLION // parameters.forced_rate, pool // 3, cap)


def prize_of(jackpot: int, winners: int) -> int:
    """What each of k right answers to a forced round wins: J / 2^(k-1)."""
    return jackpot >> (winners - 1) if 0 < winners <= 128 else 0


# ---- Stakes and draws -----------------------------------------------------------------------------------------------


def lock(ledger: Ledger, account: Hashable, amount: int) -> Moves:
    """Stake held for a task or a round: free stake first, then leaving stake. Empty if there is not enough."""
    free = ledger[Bucket.FREE, account]
    if free >= amount:
        return [Move((Bucket.FREE, account), (Bucket.LOCKED, account), amount)]
    if free + ledger[Bucket.LEAVING, account] < amount:
        return []
    return [
        Move((Bucket.FREE, account), (Bucket.LOCKED, account), free),
        Move((Bucket.LEAVING, account), (Bucket.LOCKED, account), amount - free),
    ]


def unlock(account: Hashable, amount: int) -> Move:
    """Stake that is held no more."""
    return Move((Bucket.LOCKED, account), (Bucket.FREE, account), amount)


def draw_carried_out(parameters: Parameters, terms: Terms, caller: Hashable, first: bool, charged: bool) -> Moves:
    """The bounty of a draw: from escrow for a share's first, from the pool where the verifier before paid for it (and
    the pool holds as much: `charged`)."""
    if first:
        return [Move(terms.escrow, (Bucket.CREDIT, caller), parameters.draw_bounty)]
    return [Move(POOL, (Bucket.CREDIT, caller), parameters.draw_bounty)] if charged else []


# ---- Solvers that give up -------------------------------------------------------------------------------------------


def step_down_forfeit(parameters: Parameters, terms: Terms) -> int:
    """What stepping down in time costs a solver."""
    return part_down(stake_of(parameters, terms), parameters.step_down_rate)


def late_forfeit(parameters: Parameters, terms: Terms, held_seconds: int, train_seconds: int) -> int:
    """What a solver loses that held a task for `held_seconds`, more than its training time, without a proof."""
    stake = stake_of(parameters, terms)
    rate = parameters.step_down_rate + parameters.late_rate * held_seconds // train_seconds
    return stake if rate > MILLION else part_down(stake, rate)


def solver_gone(parameters: Parameters, terms: Terms, forfeit: int) -> Moves:
    """A solver stepped down, or was late."""
    rest = stake_of(parameters, terms) - forfeit
    return [Move((Bucket.LOCKED, terms.solver), POOL, forfeit), unlock(terms.solver, rest)]


# ---- The end of a task ----------------------------------------------------------------------------------------------


def unavailable_forfeit(parameters: Parameters, terms: Terms) -> int:
    """What a solver forfeits whose files too many drawn verifiers could not fetch."""
    return part_down(terms.price, parameters.unavailable_rate)


def unreleased(parameters: Parameters, terms: Terms, before: str) -> int:
    """What stays in escrow for rounds not yet released, when a task ends from the state `before`."""
    tax = tax_of(parameters, terms)
    if before == "Verifying":
        return terms.verifiers * (terms.verifier_fee + tax)
    return terms.profiler_fee + tax if before == "Profiling" else 0


def task_ended(
    parameters: Parameters, terms: Terms, before: str, escrow: int, charge: int = 0, earned: int = 0, forfeit: int = 0
) -> Moves:
    """A task ended, other than by failing: stake back, what the solver earned, the rest to the submitter.

    Settled tasks earn the solver its price, refuted programs `compensation`; everything else earns it nothing, and
    *Unavailable* costs it a `forfeit` (`unavailable_forfeit`). `escrow` is what the task's bucket holds, `charge` what
    clock extensions took of the stake.
    """
    rest = escrow - unreleased(parameters, terms, before) - earned
    moves: Moves = []
    if terms.solver is not None:
        moves.append(Move((Bucket.LOCKED, terms.solver), POOL, forfeit))
        moves.append(unlock(terms.solver, stake_of(parameters, terms) - charge - forfeit))
        moves.append(Move(terms.escrow, (Bucket.CREDIT, terms.solver), earned))
    moves.append(Move(terms.escrow, (Bucket.CREDIT, terms.submitter), rest))
    return moves


def compensation(parameters: Parameters, terms: Terms) -> int:
    """What a solver gets when the program is refuted after it took the task."""
    return 0 if terms.solver is None else part_down(terms.price, parameters.compensation_rate)


def refuter_bounty(parameters: Parameters, terms: Terms) -> int:
    """What the refuter of a program gets."""
    return part_down(terms.highest_reward, parameters.refuter_rate)


def program_refuted(
    parameters: Parameters, terms: Terms, before: str, escrow: int, charge: int, refuter: Hashable
) -> Moves:
    """A program was refuted: bounty and compensation from escrow, stakes back."""
    bounty = refuter_bounty(parameters, terms)
    first = Move(terms.escrow, (Bucket.CREDIT, refuter), bounty)
    earned = compensation(parameters, terms)
    return [first, *task_ended(parameters, terms, before, escrow - bounty, charge, earned)]


def finders_part(parameters: Parameters, terms: Terms, charge: int = 0) -> int:
    """(S - n f) times the finders' rate: what showing a failed proof earns."""
    fees = terms.verifiers * terms.verifier_fee
    return part_down(stake_of(parameters, terms) - charge - fees, parameters.finder_rate)


def task_failed(parameters: Parameters, terms: Terms, escrow: int, charge: int, finder: Hashable = None) -> Moves:
    """A proof failed: refund, and the stake to the finders, the fees and the pool.

    With a `finder` (accusation, training case, chunk not served) it is paid at once; without one the finders' part
    waits in escrow for the rounds that found the failure (`failure_shared`).
    """
    stake = stake_of(parameters, terms) - charge
    fees = terms.verifiers * terms.verifier_fee
    share = finders_part(parameters, terms, charge)
    locked = (Bucket.LOCKED, terms.solver)
    moves = [
        Move(terms.escrow, (Bucket.CREDIT, terms.submitter), escrow),
        Move(locked, terms.escrow, fees if finder is not None else fees + share),
        Move(locked, POOL, stake - fees - share),
    ]
    if finder is not None:
        moves.append(Move(locked, (Bucket.CREDIT, finder), share))
    return moves


def failure_shared(terms: Terms, share: int, failing: int) -> tuple[int, Moves]:
    """The part of each of the `failing` rounds, and the move of what does not divide."""
    return share // failing, [Move(terms.escrow, POOL, share % failing)]


# ---- The end of a round ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Released:
    """A round of an ended task, about to be released. `seat` is what is left of it after charges, in wei.

    `charged` is what verifiers that stepped back paid for the next, in the bucket `charges`; `reserve` the jackpot
    reserved; `right` the number of answers equal to the root that stands; `unit` the round's part of a failed stake.
    """

    terms: Terms
    id: Hashable
    verifier: Hashable
    seat: int
    charges: Hashable
    charged: int
    failed: bool = False
    is_profile: bool = False
    unit: int = 0
    right: int = 0
    reserve: int = 0

    @property
    def fee(self) -> int:
        """The fee of this round."""
        return self.terms.profiler_fee if self.is_profile else self.terms.verifier_fee


def fee_paid(released: Released, earner: Hashable, returned_tax: int) -> Moves:
    """The fee and what earlier verifiers paid go to `earner`; without one back to where they came from."""
    terms = released.terms
    charges = (Bucket.ROUND, released.charges)
    home: Place = POOL if released.failed else (Bucket.CREDIT, terms.submitter)
    if earner is None:
        return [Move(charges, POOL, released.charged), Move(terms.escrow, home, released.fee + returned_tax)]
    credit = (Bucket.CREDIT, earner)
    return [
        Move(terms.escrow, credit, released.fee),
        Move(charges, credit, released.charged),
        Move(terms.escrow, home, returned_tax),
    ]


def winners_fixed(released: Released) -> tuple[int, Moves]:
    """What each right answer wins of a forced round's jackpot, and the moves of what was reserved."""
    each = prize_of(released.reserve, released.right)
    due = each * released.right
    reserve = (Bucket.RESERVE, released.id)
    rest = released.reserve - due
    return each, [Move(reserve, (Bucket.ROUND, released.id), due), Move(reserve, POOL, rest)]


def round_stood(parameters: Parameters, released: Released) -> tuple[int, Moves]:
    """The verifier's own claim stands: seat, fee, and its part of a failed stake. Returns each right answer's prize."""
    tax = 0 if released.failed and not released.is_profile else tax_of(parameters, released.terms)
    each, fixed = winners_fixed(released)
    moves = [
        unlock(released.verifier, released.seat),
        Move(released.terms.escrow, (Bucket.CREDIT, released.verifier), released.unit),
        *fixed,
        Move(released.terms.escrow, POOL, tax),
        *fee_paid(released, released.verifier, 0),
    ]
    return each, moves


def round_fell(parameters: Parameters, released: Released, claimant: Hashable, answered: bool) -> tuple[int, Moves]:
    """The verifier's claim fell: equal shares of its seat, and of a failed stake, to all whose answer stands.

    `claimant` opened the case that won; `answered` says whether it had also revealed that answer as a whistleblower.
    Returns what each right answer collects, prize included.
    """
    tax = 0 if released.failed and not released.is_profile else tax_of(parameters, released.terms)
    found = part_down(released.seat, parameters.finder_rate)
    finders = released.right + (0 if answered else 1)
    each = (found + released.unit) // finders
    locked, bucket = (Bucket.LOCKED, released.verifier), (Bucket.ROUND, released.id)
    moves = [
        Move(locked, POOL, released.seat - found),
        Move(locked, bucket, found),
        Move(released.terms.escrow, bucket, released.unit),
    ]
    if not answered:
        moves.append(Move(bucket, (Bucket.CREDIT, claimant), each))
    moves.append(Move(bucket, POOL, found + released.unit - each * finders))
    prize, fixed = winners_fixed(released)
    moves += [*fixed, Move(released.terms.escrow, POOL, tax), *fee_paid(released, None, 0)]
    return each + prize, moves


def round_ended_with_its_task(
    parameters: Parameters, released: Released, disclosed: bool, committed: bool = False
) -> Moves:
    """The task ended under a round: seat back, the fee to a verifier that had disclosed, jackpot back to the pool.

    The tax goes back to the submitter, unless the verifier had committed, and so had its lottery: then to the pool.
    """
    tax = 0 if released.failed and not released.is_profile else tax_of(parameters, released.terms)
    _, fixed = winners_fixed(released)
    paid = fee_paid(released, released.verifier if disclosed else None, 0 if committed else tax)
    kept = [Move(released.terms.escrow, POOL, tax)] if committed else []
    return [unlock(released.verifier, released.seat), *fixed, *kept, *paid]


def share_without_round(parameters: Parameters, released: Released) -> Moves:
    """A share that nobody worked on when its task ended."""
    tax = 0 if released.failed and not released.is_profile else tax_of(parameters, released.terms)
    return fee_paid(released, None, tax)


# ---- Verifiers that fail --------------------------------------------------------------------------------------------


def seat_lost(
    parameters: Parameters, verifier: Hashable, lost: int, bringer: Hashable = None, bounty: int = 0
) -> Moves:
    """Part of a seat lost: silence, a wrong claim shown, or a secret that `bringer` brought."""
    locked = (Bucket.LOCKED, verifier)
    moves = [Move(locked, POOL, lost - bounty), unlock(verifier, parameters.seat - lost)]
    return [Move(locked, (Bucket.CREDIT, bringer), bounty), *moves] if bounty else moves


def verifier_silent(parameters: Parameters, verifier: Hashable) -> Moves:
    """Did not commit, show or disclose in time."""
    return seat_lost(parameters, verifier, part_down(parameters.seat, parameters.silence_rate))


def secret_leaked(parameters: Parameters, verifier: Hashable, bringer: Hashable) -> Moves:
    """Somebody brought the verifier's secret before answers closed."""
    bounty = part_down(parameters.seat, parameters.leak_rate)
    return seat_lost(parameters, verifier, parameters.seat, bringer, bounty)


def step_back_charge(parameters: Parameters, price: int) -> int:
    """What stepping back costs: a part of a seat, or of the price where that is more; at most what silence costs."""
    charge = part_down(max(parameters.seat, price), parameters.step_back_rate)
    return min(charge, part_down(parameters.seat, parameters.silence_rate))


def most_step_backs(parameters: Parameters, verifiers: int) -> int:
    """How many verifiers step back from a proof (or, with 0 verifiers, a profile) before its task is unavailable."""
    return max(parameters.maximal_step_backs, verifiers + 2 if verifiers else 0)


def stepped_back(parameters: Parameters, verifier: Hashable, charges: Hashable, price: int = 0) -> Moves:
    """A verifier steps back before committing: pays the next draw, and the next verifier that can work.

    `price` is the task's; 0 before the auction.
    """
    charge = step_back_charge(parameters, price)
    locked = (Bucket.LOCKED, verifier)
    return [
        Move(locked, POOL, parameters.draw_bounty),
        Move(locked, (Bucket.ROUND, charges), charge - parameters.draw_bounty),
        unlock(verifier, parameters.seat - charge),
    ]


# ---- Whistleblowers -------------------------------------------------------------------------------------------------


def joined(parameters: Parameters, round_id: Hashable, account: Hashable) -> Moves:
    """The bond of a whistleblower that joins."""
    return [Move((Bucket.FREE, account), (Bucket.ROUND, round_id), parameters.answer_bond)]


def jackpot_reserved(parameters: Parameters, terms: Terms, round_id: Hashable, pool: int) -> Moves:
    """A forced round with at least one revealed answer was disclosed."""
    return [Move(POOL, (Bucket.RESERVE, round_id), jackpot_of(parameters, tax_of(parameters, terms), pool))]


def answer_collected(
    parameters: Parameters, round_id: Hashable, account: Hashable, right: bool, void: bool, each: int
) -> Moves:
    """A whistleblower's bond and prize: both if right, the bond if voided, nothing if wrong or missing."""
    bucket = (Bucket.ROUND, round_id)
    if not (right or void):
        return [Move(bucket, POOL, parameters.answer_bond)]
    moves = [Move(bucket, (Bucket.FREE, account), parameters.answer_bond)]
    return [*moves, Move(bucket, (Bucket.CREDIT, account), each)] if right and not void else moves


# ---- Cases, accusations, demands ------------------------------------------------------------------------------------


def bond_forfeited(bond: Hashable, held: int, opponent: Hashable = None) -> Moves:
    """A lost bond: half to the opponent, if there is one, the rest to the pool."""
    case = (Bucket.CASE, bond)
    half = 0 if opponent is None else held // 2
    moves = [Move(case, POOL, held - half)]
    return moves if opponent is None else [Move(case, (Bucket.CREDIT, opponent), half), *moves]


def bond_returned(bond: Hashable, held: int, owner: Hashable) -> Moves:
    """A bond goes back to its owner."""
    return [Move((Bucket.CASE, bond), (Bucket.CREDIT, owner), held)]


def clock_charged(place: Place, available: int, charge: int) -> Moves:
    """Clock extensions, paid from a bond or a stake as far as it reaches."""
    return [Move(place, POOL, min(charge, available))]


def demand_ended(demand: Hashable, price: int, to: Hashable) -> Moves:
    """The price of a demanded chunk: to the solver that served it, or back to the asker."""
    return [Move((Bucket.DEMAND, demand), (Bucket.CREDIT, to), price)]
