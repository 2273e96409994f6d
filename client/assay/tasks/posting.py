"""Between a bundle and the chain: the posting a bundle and its terms make; whether fetched files are a posting's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.market.explain import coins
from assay.market.parameters import Parameters
from assay.market.types import Posting
from assay.program.encoding import encode_header
from assay.program.operator import Program, Role
from assay.tasks.bundle import Bundle
from assay.tasks.errors import BundleError, TaskFileError
from assay.training.task import Mode

if TYPE_CHECKING:
    # Reading task files imports PyTorch, which roles that only check postings need not wait for.
    from assay.tasks.task_file import MarketTerms

MILLION = 1_000_000
TERAWORK = 10**12


@dataclass(frozen=True)
class Work:
    """Units of work (operator elements times fold length times weight)."""

    step: int
    training: int  # all steps
    replay: int  # one verifier's share
    profile: int  # 0 in exact mode


@dataclass(frozen=True)
class Estimate:
    """What a task costs its submitter, in wei, and what it asks of others. Computed as the contracts do."""

    work: Work
    lowest_reward: int
    highest_reward: int
    verifier_fee: int  # each
    verifiers: int
    profiler_fee: int
    draw_bounties: int
    tax: int
    escrow: int  # the sum, paid at submission
    solver_stake: int
    training_seconds: int
    transaction_gas: int = 0  # of the submission; 0 if it was not asked for
    gas_cost: int = 0


def work_of(program: Program, steps: int, interval: int, exact: bool, shares: int, profiled: int) -> Work:
    """The work of training and of checking it (Market._check)."""
    step = program.section(Role.STEP).work
    distance = 0 if exact else program.section(Role.DISTANCE).work
    replay = shares * (interval * step + distance)
    profile = 0
    if not exact:
        noisy, deviation = program.section(Role.NOISY_STEP).work, program.section(Role.DEVIATION).work
        profile = profiled * (interval * (step + noisy) + deviation)
    return Work(step, steps * step, replay, profile)


def lowest_fee(work: int, parameters: Parameters) -> int:
    """Lowest fee of a round with so much work (Market.lowestFee)."""
    return parameters.fee_floor + work * parameters.fee_per_terawork // TERAWORK


def least_training_seconds(work: Work, parameters: Parameters) -> int:
    """The least time the market lets a submitter give a solver."""
    return parameters.train_seconds + work.training // parameters.training_per_second


def make_posting(bundle: Bundle, terms: MarketTerms, locations: str, parameters: Parameters) -> Posting:
    """The posting of a bundle. Fees and times that the task file leaves open are what the contracts make the least
    (twice that for the training)."""
    task, manifest = bundle.task, bundle.manifest
    exact = task.mode is Mode.EXACT
    work = work_of(task.program, task.steps, task.interval, exact, terms.segments_per_verifier, terms.profile_segments)
    verifier_fee = lowest_fee(work.replay, parameters) if terms.verifier_fee is None else terms.verifier_fee
    profiler_fee = 0
    if not exact:
        profiler_fee = lowest_fee(work.profile, parameters) if terms.profiler_fee is None else terms.profiler_fee
    seconds = terms.training_seconds
    return Posting(
        header=encode_header(task.program),
        graph_hash=manifest.graph_hash,
        lowering=manifest.lowering,
        data_root=manifest.data_root,
        initial_root=manifest.initial_root,
        base_task=terms.base_task,
        task_seed=manifest.seed,
        steps=task.steps,
        interval=task.interval,
        exact=exact,
        verifiers=terms.verifiers,
        per_verifier=terms.segments_per_verifier,
        profile_segments=terms.profile_segments,
        lowest_reward=terms.lowest_reward,
        highest_reward=terms.highest_reward,
        verifier_fee=verifier_fee,
        profiler_fee=profiler_fee,
        auction_seconds=terms.auction_seconds,
        train_seconds=2 * least_training_seconds(work, parameters) if seconds is None else seconds,
        locations=locations,
    )


def check_terms(posting: Posting, program: Program, parameters: Parameters) -> None:
    """Raise `TaskFileError` naming the key of task.toml that a deployment with these parameters would refuse."""
    work = work_of(
        program, posting.steps, posting.interval, posting.exact, posting.per_verifier, posting.profile_segments
    )
    fees = [("verifier_fee", posting.verifier_fee, lowest_fee(work.replay, parameters))]
    if not posting.exact:
        fees.append(("profiler_fee", posting.profiler_fee, lowest_fee(work.profile, parameters)))
    for key, fee, least in fees:
        if fee < least:
            raise TaskFileError(
                f"market.{key} is {coins(fee)}: this deployment asks for at least {coins(least)} for that much work; "
                "raise it, or leave it out"
            )
    seconds = least_training_seconds(work, parameters)
    if posting.train_seconds < seconds:
        raise TaskFileError(
            f"market.training_seconds is {posting.train_seconds}: this deployment asks for at least {seconds} for that "
            "much work; raise it, or leave it out"
        )


def estimate(posting: Posting, program: Program, parameters: Parameters) -> Estimate:
    """What a posting costs (Market.escrowOf) and what it asks of a solver (Market.stakeOf)."""
    rounds = posting.verifiers + (0 if posting.exact else 1)
    tax = (posting.highest_reward * parameters.tax_rate // MILLION) // rounds * rounds
    bounties = rounds * parameters.draw_bounty
    fees = posting.verifiers * posting.verifier_fee
    stake = parameters.solver_stake_floor + posting.highest_reward * parameters.solver_stake_rate // MILLION + fees
    return Estimate(
        work_of(
            program, posting.steps, posting.interval, posting.exact, posting.per_verifier, posting.profile_segments
        ),
        posting.lowest_reward,
        posting.highest_reward,
        posting.verifier_fee,
        posting.verifiers,
        posting.profiler_fee,
        bounties,
        tax,
        posting.highest_reward + fees + posting.profiler_fee + bounties + tax,
        stake,
        posting.train_seconds,
    )


def check_posting(bundle: Bundle, posting: Posting) -> None:
    """Raise `BundleError` unless fetched files are those that a posting commits to. Do this before using them."""
    manifest, task = bundle.manifest, bundle.task
    pairs: tuple[tuple[str, object, object], ...] = (
        ("program header", encode_header(task.program).hex(), posting.header.hex()),
        ("graph hash", manifest.graph_hash.hex(), posting.graph_hash.hex()),
        ("lowering version", manifest.lowering, posting.lowering),
        ("data root", manifest.data_root.hex(), posting.data_root.hex()),
        ("initial root", manifest.initial_root.hex(), posting.initial_root.hex()),
        ("seed", task.seed, posting.task_seed),
        ("number of steps", task.steps, posting.steps),
        ("checkpoint interval", task.interval, posting.interval),
        ("mode", task.mode is Mode.EXACT, posting.exact),
    )
    for what, found, expected in pairs:
        if found != expected:
            raise BundleError(
                f"the task's files have the {what} {found}, the chain says {expected}: they are not this task's"
            )
