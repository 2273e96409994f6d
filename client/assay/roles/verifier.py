"""The verifier: serves when drawn, hides its true claim behind a derived false one, discloses, defends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf, claim_root, derived_false_claim
from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import NO_DERIVATION, Derivation, RoundState, TaskState
from assay.market.verification import hidden_of, is_forced, salt_of
from assay.roles.bench import on_chain
from assay.roles.common import court_moves, deposit, replay_key, replay_work, upkeep, withdrawal
from assay.roles.context import Action, Context, Send


@dataclass(frozen=True)
class VerifierOptions:
    """What a verifier offers. `limit` is the exponent of the largest share served, in units of work."""

    seats: int = 1
    stake: int = 0  # wei deposited at the start; 0: what the seats need
    limit: int = 50
    least_withdrawal: int = 10**15
    fetch_attempts: int = 8


@dataclass(frozen=True)
class HiddenClaims:
    """What a verifier commits to in a round. `order` is the place (0 or 1) of the true claim."""

    secret: bytes
    order: int
    true: tuple[ReplayLeaf, ...]
    false: tuple[ReplayLeaf, ...]

    def shown(self, forced: bool) -> tuple[int, tuple[ReplayLeaf, ...]]:
        """Place and leaves of the claim that the lottery demands."""
        return (1 - self.order, self.false) if forced else (self.order, self.true)


def hidden_claims(secret: bytes, leaves: Sequence[ReplayLeaf], found: RoundRecord) -> HiddenClaims:
    """The two claims of a round; the order is a bit of the secret's hash, which nobody else knows."""
    order = sha256(secret).digest()[0] & 1
    false = derived_false_claim(leaves, secret, found.task_id, found.id)
    return HiddenClaims(secret, order, tuple(leaves), tuple(false))


def derivation(claims: HiddenClaims, found: RoundRecord) -> Derivation:
    """What turns the shown false claim back into the true one."""
    word = sha256(claims.secret + found.task_id.to_bytes(32, "big") + found.id.to_bytes(32, "big")).digest()
    place = int.from_bytes(word, "big") % len(claims.true)
    leaf = claims.true[place]
    levels = tree.levels([each.leaf() for each in claims.true])
    prefix = b"\x05" + leaf.encode()[:-32]
    return Derivation(prefix, leaf.trace_root, tuple(tree.proof_of(levels, place)))


class Verifier:
    """Decisions of a verifier."""

    name = "verifier"

    def __init__(self, options: VerifierOptions | None = None) -> None:
        self.options = options or VerifierOptions()

    def plan(self, context: Context) -> Sequence[Action]:
        """What the verifier does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        yield from self._enlist(context)
        for found in context.view.rounds_holding(context.me):
            task = context.view.task(found.task_id)
            if found.verifier == context.me and task.state is TaskState.VERIFYING:
                yield from self._serve(context, found, task)
        yield from court_moves(context)
        yield from upkeep(context, 6)
        yield from withdrawal(context, self.options.least_withdrawal)

    def _enlist(self, context: Context) -> Iterator[Action]:
        purse, options = context.purse, self.options
        deposits = context.view.deposits[context.me]
        needed = max(options.stake, options.seats * context.market.parameters.seat)
        if purse.seats >= options.seats:
            return
        # Stake is put in once; what a slashing takes is never replaced by itself.
        if deposits == 0:
            yield deposit(context, needed)
        elif purse.free + purse.locked >= options.seats * context.market.parameters.seat:
            call = context.market.stakes.enlist(options.seats - purse.seats, options.limit)
            yield Send(f"enlist:{purse.seats}:{options.seats}:{deposits}", call)

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        if found.state not in (RoundState.DRAWN, RoundState.COMMITTED, RoundState.SHOWN):
            return
        key = replay_key(found)
        leaves = context.results.result(key)
        if leaves is None:
            if found.state is RoundState.DRAWN and context.results.failures(key) >= self.options.fetch_attempts:
                call = context.market.verification.step_back(found.id)
                yield Send(f"step-back:{found.id:x}", call, task.id)
            else:
                yield replay_work(context, found, task)
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
        index, leaves = claims.shown(forced)
        call = context.market.verification.show_replay(
            found.id,
            found.hidden,
            index,
            salt_of(claims.secret, found.id, index),
            [on_chain(leaf) for leaf in leaves],
            context.bench.checkpoint_openings(task, found.segments),
        )
        yield Send(f"show:{found.id:x}:{seed.hex()}", call, found.task_id)

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
