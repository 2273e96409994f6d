"""What anybody can try with a chain's means: coming first with somebody else's transaction, twice with one's own, or
with calls that are not for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from arena import BOUNTY, Arena
from cheating_verifiers import SilentVerifier
from parties import Party, Pending, RefusedError

from assay.market.types import MILLION, Class, RoundState, TaskState
from assay.market.verification import leak_commitment
from assay.roles.solver import Solver
from assay.roles.subjects import subject_of_round
from assay.roles.verifier import Verifier, hidden_claims
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions


def begin(arena: Arena, verifier: Verifier | None = None) -> int:
    """A task of honest people, until it is taken."""
    arena.enter("verifier", verifier or Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    return arena.submit()


def promises(arena: Arena, task: int) -> dict[str, int]:
    return {
        "solver": arena.price_of(task), "verifier": arena.fee_of(task), "whistleblower": 0,
        "submitter": -arena.cost_of(task),
    }  # fmt: skip


def test_copying_everything_everybody_sends_and_coming_first_gains_the_draw_bounty_at_most(arena: Arena) -> None:
    """A thief copies every transaction of a whole task while it waits, and is mined first. Calls that only their author
    may make are refused; those that anybody may make (draws, settling) do what they are for, and pay their bounty."""
    task = begin(arena)
    thief = arena.account("thief")
    stolen: dict[bool, int] = {True: 0, False: 0}
    honest = {arena.address(name) for name in ("solver", "verifier", "whistleblower")}
    for _ in range(200):
        with arena.waiting() as waiting:
            for _ in range(2):
                arena.turn()
            seen = [each for each in waiting() if each.sender in honest and not each.call.value]
            copies = [thief.send_ahead(each) for each in seen[:1]]
        for copy in copies:
            stolen[arena.succeeded(copy)] += 1
        if not copies:
            arena.tick()
        if arena.task(task).state.is_over:
            break
    assert stolen[False] >= 5  # take, register, commit, show, answer, reveal: at least these
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    arena.conclude("thief", honest=BOUNTY + 1, promised=promises(arena, task), most=BOUNTY)


def test_a_copied_leak_comes_too_late(arena: Arena) -> None:
    """The secret is public once its second step is sent; who did not commit to it a block before has nothing of it."""
    task = begin(arena, SilentVerifier("show"))
    arena.play(lambda: bool(arena.task(task).rounds))
    (number,) = arena.task(task).rounds
    arena.play(lambda: arena.view.rounds[number].state is RoundState.COMMITTED)
    found, node = arena.view.rounds[number], arena.nodes["verifier"]
    claims = hidden_claims(
        node.secret(f"round:{found.id:x}:{found.draw_seed:x}"),
        node.jobs.result(subject_of_round(arena.view, found).key),
        found,
    )
    bringer, thief = arena.account("bringer"), arena.account("thief")
    verification = arena.market.verification
    bringer.send(verification.commit_leak(leak_commitment(claims.secret, bringer.address, number)))
    assert found.hidden is not None
    leak = verification.leak(number, claims.secret, claims.order, found.hidden)
    with arena.waiting():
        first = thief.send_ahead(Pending(thief.address, verification.commit_leak(
            leak_commitment(claims.secret, thief.address, number)
        )))  # fmt: skip
        second = thief.send_ahead(Pending(thief.address, leak), after=1)
        bringer.send_ahead(Pending(bringer.address, leak), tip=1)
    assert arena.succeeded(first)
    assert not arena.succeeded(second)
    arena.leave("verifier")
    arena.enter("another verifier", Verifier())
    arena.play_task(task)
    bounty = arena.parameters.seat * arena.parameters.leak_rate // MILLION
    arena.conclude(
        "thief",
        honest=0,
        promised={
            "bringer": bounty, "solver": arena.price_of(task), "another verifier": arena.fee_of(task),
            "submitter": -arena.cost_of(task),
        },
    )  # fmt: skip


def test_what_was_paid_once_is_not_paid_again(arena: Arena) -> None:
    """Settling, releasing, collecting and withdrawing a second time, by anybody."""
    task = begin(arena)
    arena.play_task(task)
    (number,) = arena.task(task).rounds
    thief = arena.account("thief")
    market = arena.market
    before = arena.conclude("thief", honest=1, promised=promises(arena, task))
    again = [
        market.settlement.settle(task),
        market.settlement.release(task, 0),
        market.answers.collect(number, arena.address("whistleblower")),
        market.verification.draw(task, 0),
        market.verification.timeout(number),
        market.tasks.late(task),
        market.tasks.expire(task),
        market.tasks.cancel(task),
    ]
    for call in again:
        with pytest.raises(RefusedError):
            thief.send(call)
    thief.send(market.stakes.withdraw())
    assert dict(arena.conclude("thief", honest=0, promised=promises(arena, task))) == dict(before)


def test_nobody_ends_anything_before_its_time(arena: Arena) -> None:
    """At every stage of a task and its round, everything that ends what has timed out, or is over, is refused."""
    task = begin(arena)
    thief, market = arena.account("thief"), arena.market

    def is_in(state: RoundState) -> bool:
        return any(arena.view.rounds[number].state is state for number in arena.task(task).rounds)

    stages: list[Callable[[], bool]] = [
        lambda: arena.state(task) is TaskState.OPEN,
        lambda: arena.state(task) is TaskState.TAKEN,
        *(partial(is_in, each) for each in (
            RoundState.DRAWN, RoundState.COMMITTED, RoundState.SHOWN, RoundState.DISCLOSED
        )),
    ]  # fmt: skip
    for stage in stages:
        arena.play(stage)
        for call in (
            market.tasks.expire(task),
            market.tasks.late(task),
            market.settlement.settle(task),
            market.settlement.release(task, 0),
            market.verification.give_up(task, 0),
            *(market.verification.timeout(number) for number in arena.task(task).rounds),
        ):
            with pytest.raises(RefusedError):
                thief.send(call)
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    arena.conclude("thief", honest=0, promised=promises(arena, task))


def test_what_was_sent_in_a_dropped_fork_is_done_once(arena: Arena) -> None:
    """The chain drops the blocks with the proof and the draw; a thief sends everything again that was in them, as it
    was signed. It does what its author does anyway, or nothing."""
    task = begin(arena)
    arena.play(lambda: arena.state(task) is TaskState.TAKEN)
    fork = arena.rpc("evm_snapshot")
    arena.play(lambda: any(arena.view.rounds[n].state is RoundState.COMMITTED for n in arena.task(task).rounds))
    dropped = sent_by_roles(arena)
    assert arena.rpc("evm_revert", fork)
    arena.tick()
    sent = 0
    for raw in dropped:
        with suppress(Exception):  # those before the fork are refused
            arena.market.chain.web3.eth.send_raw_transaction(raw)
            sent += 1
    assert 0 < sent < len(dropped)
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    arena.account("thief")
    arena.conclude("thief", honest=1, promised=promises(arena, task))


def test_a_transaction_sent_again_is_no_second_transaction(arena: Arena) -> None:
    """Every signed transaction of a whole task is broadcast once more, as it is, and signed for another chain."""
    task = begin(arena)
    arena.play_task(task)
    thief = arena.account("thief")
    before = arena.conclude("thief", honest=1, promised=promises(arena, task))
    eth = arena.market.chain.web3.eth
    raws = sent_by_roles(arena)
    assert len(raws) > 10
    for raw in raws:
        with pytest.raises(Exception, match="nonce too low|already"):
            eth.send_raw_transaction(raw)
    with pytest.raises(Exception, match=r"chain|signature|incompatible"):
        eth.send_raw_transaction(signed_for_another_chain(thief))
    assert dict(arena.books.gains()) == dict(before)


def sent_by_roles(arena: Arena) -> list[bytes]:
    """The signed transactions of all roles that succeeded."""
    return [row["raw"] for node in arena.nodes.values() for row in node.sender._rows("outcome = 'succeeded'")]


def signed_for_another_chain(party: Party) -> bytes:
    signed = party.signer.sign_transaction(
        {
            "type": 2, "chainId": 1, "nonce": 0, "to": party.address, "value": 1, "gas": 21_000,
            "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 0, "data": b"",
        }
    )  # fmt: skip
    return bytes(signed.raw_transaction)


def test_nobody_but_the_contracts_moves_the_ledgers_coin(arena: Arena) -> None:
    task = begin(arena)
    arena.play(lambda: arena.state(task) is TaskState.VERIFYING)
    thief = arena.account("thief")
    victim, own = int(arena.address("solver"), 16), int(thief.address, 16)
    stakes, market = arena.market.stakes, arena.market
    for call in (
        stakes.call("move", Class.LOCKED, victim, Class.CREDIT, own, 10**17),
        stakes.call("move", Class.ESCROW, task, Class.CREDIT, own, 10**17),
        stakes.call("move", Class.POOL, 0, Class.CREDIT, own, 0),
        stakes.call("enter", Class.CREDIT, own, value=0),
        stakes.call("lock", arena.address("verifier"), 10**17),
        stakes.call("noteJoin", thief.address),
        stakes.call("restake", 10**17),
        stakes.call("leave", 10**17),
        market.tasks.call("settled", task),
        market.tasks.call("failed", task, thief.address),
        market.tasks.call("refuted", task, thief.address),
        market.tasks.call("chargeSolver", task, 10**17),
        market.claims.call("programRefuted", task, thief.address),
        market.claims.call("caseClosed", 1, 1, True, 0),
        market.jackpot.call("reserve", 1, 10**18),
        market.verification.call("markVoid", 1),
        market.answers.call("resolve", 1, bytes(32), 10**18),
    ):
        with pytest.raises(RefusedError):
            thief.send(call)
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    arena.conclude("thief", honest=0, promised=promises(arena, task))
