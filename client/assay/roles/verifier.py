"""The verifier: serves when drawn (replays, profiles), hides its true claim behind a derived false one, discloses,
defends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from assay.chain.sender import Call
from assay.commitments import tree
from assay.commitments.derivation import false_trace
from assay.commitments.execution import (
    PROFILE_LEAF_DOMAIN,
    REPLAY_LEAF_DOMAIN,
    ReplayLeaf,
    claim_root,
    derived_false_claim,
)
from assay.market.records import RoundRecord, ShareRecord, TaskRecord
from assay.market.tasks import exponent_of
from assay.market.types import NO_DERIVATION, PROFILE, Derivation, RoundState, ShareState, TaskState
from assay.market.verification import hidden_of, is_forced, salt_of
from assay.roles.context import Action, Context, Send
from assay.roles.disputes import claim_work, court_moves
from assay.roles.jobs import FETCH_ATTEMPTS
from assay.roles.subjects import HashedLeaf, profiles_on_chain, replays_on_chain, subject_of_round
from assay.roles.upkeep import deposit, upkeep, withdrawal


@dataclass(frozen=True)
class VerifierOptions:
    """What a verifier offers. `limit` is the exponent of the largest share served, in units of work."""

    seats: int = 1
    stake: int = 0  # wei deposited at the start; 0: what the seats need
    limit: int = 50
    volunteer: bool = True  # whether it serves shares for which nobody could be drawn
    least_withdrawal: int = 10**15
    fetch_attempts: int = FETCH_ATTEMPTS


@dataclass(frozen=True)
class HiddenClaims:
    """What a verifier commits to in a round. `order` is the place (0 or 1) of the true claim."""

    secret: bytes
    order: int
    true: tuple[HashedLeaf, ...]
    false: tuple[HashedLeaf, ...]

    def shown(self, forced: bool) -> tuple[int, tuple[HashedLeaf, ...]]:
        """Place and leaves of the claim that the lottery demands."""
        return (1 - self.order, self.false) if forced else (self.order, self.true)


def hidden_claims(secret: bytes, leaves: Sequence[HashedLeaf], found: RoundRecord) -> HiddenClaims:
    """The two claims of a round; the order is a bit of the secret's hash, which nobody else knows."""
    order = sha256(secret).digest()[0] & 1
    false = derived_false_claim(leaves, secret, found.task_id, found.id)
    return HiddenClaims(secret, order, tuple(leaves), tuple(false))


def derivation(claims: HiddenClaims, found: RoundRecord) -> Derivation:
    """What turns the shown false claim back into the true one."""
    word = false_trace(claims.secret, found.task_id, found.id)
    place = int.from_bytes(word, "big") % len(claims.true)
    leaf = claims.true[place]
    levels = tree.levels([each.leaf() for each in claims.true])
    domain = REPLAY_LEAF_DOMAIN if isinstance(leaf, ReplayLeaf) else PROFILE_LEAF_DOMAIN
    # The trace root is the last field of either record.
    return Derivation(domain + leaf.encode()[:-32], leaf.trace_root, tuple(tree.proof_of(levels, place)))


class Verifier:
    """Decisions of a verifier."""

    name = "verifier"

    def __init__(self, options: VerifierOptions | None = None) -> None:
        self.options = options or VerifierOptions()

    def plan(self, context: Context) -> Sequence[Action]:
        """What the verifier does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        yield from self.enlisting(context)
        yield from self.duties(context)
        if self.options.volunteer:
            yield from self._volunteer(context)
        yield from court_moves(context)
        yield from upkeep(context, 6)
        yield from withdrawal(context, self.options.least_withdrawal)

    def duties(self, context: Context) -> Iterator[Action]:
        """What the rounds it was drawn for ask of it."""
        for found in context.view.rounds_holding(context.me):
            task = context.view.task(found.task_id)
            live = TaskState.PROFILING if found.is_profile else TaskState.VERIFYING
            if found.verifier == context.me and task.state is live:
                yield from self._serve(context, found, task)

    def enlisting(self, context: Context) -> Iterator[Action]:
        """Bring the stake and take seats on the roll."""
        purse, options = context.purse, self.options
        deposits = context.view.accounts.deposits[context.me]
        needed = max(options.stake, options.seats * context.market.parameters.seat)
        if purse.seats >= options.seats:
            return
        # Stake is put in once; what a slashing takes is never replaced by itself.
        if deposits == 0:
            yield deposit(context, needed)
        elif purse.free + purse.locked >= options.seats * context.market.parameters.seat:
            call = context.market.stakes.enlist(options.seats - purse.seats, options.limit)
            yield Send(f"enlist:{purse.seats}:{options.seats}:{deposits}", call)

    # ---- Volunteering -----------------------------------------------------------------------------------------------

    def _volunteer(self, context: Context) -> Iterator[Action]:
        if context.purse.free < context.market.parameters.seat:
            return
        for task in context.view.running():
            for share in task.shares.values():
                if share.state is ShareState.VOLUNTEERS and self.may_volunteer(context, task, share):
                    call = context.market.verification.volunteer(task.id, share.number)
                    yield Send(f"volunteer:{task.id:x}:{share.number}:{share.attempt}", call, task.id)
                    return

    def may_volunteer(self, context: Context, task: TaskRecord, share: ShareRecord) -> bool:
        """Whether a share that waits for volunteers can be served: volunteers answer to the rules of those drawn."""
        me, view = context.me, context.view
        is_profile = share.number == PROFILE
        served = any(each.verifier == me and each.is_profile == is_profile for each in view.rounds_of(task.id))
        fits = exponent_of(task.work_of(share.number)) <= self.options.limit
        return fits and not served and me not in (task.submitter, task.solver) and view.time <= share.deadline

    # ---- A round ----------------------------------------------------------------------------------------------------

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        if found.state not in (RoundState.DRAWN, RoundState.COMMITTED, RoundState.SHOWN):
            return
        subject = subject_of_round(context.view, found)
        leaves = context.results.result(subject.key)
        if leaves is None:
            if found.state is RoundState.DRAWN and context.results.failures(subject.key) >= self.options.fetch_attempts:
                call = context.market.verification.step_back(found.id)
                yield Send(f"step-back:{found.id:x}", call, task.id)
            else:
                yield claim_work(context, subject)
            return
        secret = context.secret(f"round:{found.id:x}:{found.draw_seed:x}")
        claims = hidden_claims(secret, leaves, found)
        if found.state is RoundState.DRAWN:
            yield from self._commit(context, found, claims)
        elif found.state is RoundState.COMMITTED:
            yield from self._show(context, found, task, claims)
        else:
            yield from self._disclose(context, found, claims)

    def _commit(self, context: Context, found: RoundRecord, claims: HiddenClaims) -> Iterator[Action]:
        if context.view.time > found.deadline:
            return
        hidden = hidden_of(
            claims.secret, claims.order, context.me, found.id, claim_root(claims.true), claim_root(claims.false)
        )
        call = context.market.verification.commit(found.id, hidden)
        yield Send(f"commit:{found.id:x}:{found.draw_seed:x}", call, found.task_id)

    def _show(self, context: Context, found: RoundRecord, task: TaskRecord, claims: HiddenClaims) -> Iterator[Action]:
        seed = context.seeds.get(found.id)
        if seed is None or found.hidden is None or context.view.block > found.show_until_block:
            return
        forced = is_forced(claims.secret, seed, context.market.parameters.forced_rate)
        yield Send(f"show:{found.id:x}:{seed.hex()}", self._shown(context, found, task, claims, forced), found.task_id)

    def _shown(
        self, context: Context, found: RoundRecord, task: TaskRecord, claims: HiddenClaims, forced: bool
    ) -> Call:
        index, leaves = claims.shown(forced)
        assert found.hidden is not None
        salt = salt_of(claims.secret, found.id, index)
        verification = context.market.verification
        if found.is_profile:
            return verification.show_profile(found.id, found.hidden, index, salt, profiles_on_chain(leaves))
        openings = context.bench.checkpoint_openings(task, found.segments)
        return verification.show_replay(found.id, found.hidden, index, salt, replays_on_chain(leaves), openings)

    def _disclose(self, context: Context, found: RoundRecord, claims: HiddenClaims) -> Iterator[Action]:
        shown = found.shown
        if shown is None or not found.answers_closed(context.view.time) or context.view.time > found.deadline:
            return
        forced = is_forced(claims.secret, shown.seed, context.market.parameters.forced_rate)
        call = context.market.verification.disclose(
            found.id,
            claims.secret,
            claims.order,
            shown,
            derivation(claims, found) if forced else NO_DERIVATION,
        )
        yield Send(f"disclose:{found.id:x}:{shown.seed.hex()}", call, found.task_id)
