"""The picture of the market: made from events, equal to what the contracts say, right after reorganisations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf as ClaimLeaf
from assay.commitments.execution import claim_root, derived_false_claim
from assay.market.errors import UnknownTaskError
from assay.market.events import CoinMoved, RoundDisclosed, TaskSubmitted
from assay.market.reader import MarketReader
from assay.market.records import true_leaves
from assay.market.types import (
    NO_DERIVATION,
    AnswerState,
    Checkpoint,
    Class,
    Derivation,
    ReplayLeaf,
    RoundState,
    ShareState,
    TaskState,
)
from assay.market.verification import hidden_of, is_forced, round_id_of, salt_of

from .conftest import COIN, PostingMaker, World

SUBMITTER, SOLVER, VERIFIER, WATCHER = 1, 2, 3, 4


def submitted(world: World, make_posting: PostingMaker, **changes: object) -> int:
    posting = make_posting(**changes)
    reader = MarketReader(world.market)
    reader.poll()
    world.do(SUBMITTER, world.market.tasks.submit(posting, world.market.tasks.escrow_of(posting)))
    (event,) = [each.event for each in reader.poll() if isinstance(each.event, TaskSubmitted)]
    return event.task_id


def test_a_posting_whose_locations_are_no_text_keeps_nobody_from_reading_on(
    world: World, make_posting: PostingMaker
) -> None:
    text = "somewhere else"
    posting = make_posting(locations=text)
    call = world.market.tasks.submit(posting, world.market.tasks.escrow_of(posting))
    world.do(SUBMITTER, replace(call, data=call.data.replace(text.encode(), b"\xff" * len(text))))
    honest = submitted(world, make_posting)
    reader = MarketReader(world.market)
    reader.poll()
    assert [task.posting.locations for task in reader.view.tasks.values()][:1] == ["\ufffd" * len(text)]
    assert reader.view.task(honest).state is TaskState.OPEN


def agree(world: World, reader: MarketReader) -> None:
    """The view says of every task what the contracts say."""
    reader.poll()
    for number, record in reader.view.tasks.items():
        task = world.market.tasks.task(number)
        assert record.state is task.state
        assert (record.submitter, record.segments, record.relists) == (task.submitter, task.segments, task.relists)
        assert (record.replay_work, record.profile_work) == (task.replay_work, task.profile_work)
        assert (record.checkpoint_root, record.final_root) == (task.checkpoint_root, task.final_root)
        if record.state is TaskState.OPEN:
            assert record.price_at(reader.view.time) == world.market.tasks.price(number)
        if record.state in (TaskState.TAKEN, TaskState.VERIFYING):
            assert (record.solver, record.price, record.stake) == (
                task.solver,
                task.price,
                world.market.tasks.stake(number),
            )
        for share in record.shares.values():
            found = world.market.verification.share(number, share.number)
            assert share.state is found.state or (share.state is ShareState.VOLUNTEERS and record.state.is_over)
            assert share.attempt == found.attempt
        for each in reader.view.rounds_of(number):
            found_round = world.market.verification.round(each.id)
            assert (each.state, each.verifier, each.draw_seed) == (
                found_round.state, found_round.verifier, found_round.draw_seed,
            )  # fmt: skip


def test_a_task_is_submitted_priced_cancelled_and_refunded(world: World, make_posting: PostingMaker) -> None:
    posting = make_posting()
    escrow = world.market.tasks.escrow_of(posting)
    task = submitted(world, make_posting)
    reader = MarketReader(world.market)
    agree(world, reader)
    record = reader.view.task(task)
    assert (record.posting, record.state) == (posting, TaskState.OPEN)
    assert [each.id for each in reader.view.in_state(TaskState.OPEN)] == [task]
    world.pass_time(37)
    agree(world, reader)
    assert COIN < record.price_at(reader.view.time) < 2 * COIN
    world.do(SUBMITTER, world.market.tasks.cancel(task))
    agree(world, reader)
    assert reader.view.task(task).state is TaskState.CANCELLED
    assert list(reader.view.running()) == []
    assert world.market.stakes.credit(world.address(SUBMITTER)) == escrow
    payments = [each.event for each in reader.history(task) if isinstance(each.event, CoinMoved)]
    assert [(each.from_, each.to, each.amount) for each in payments] == [(Class.ESCROW, Class.CREDIT, escrow)]
    world.do(SUBMITTER, world.market.stakes.withdraw())
    assert world.market.stakes.total() == 0


def test_tasks_are_found_by_the_beginning_of_their_number(world: World, make_posting: PostingMaker) -> None:
    tasks = [submitted(world, make_posting) for _ in range(3)]
    reader = MarketReader(world.market)
    reader.poll()
    for task in tasks:
        assert reader.view.find_task(f"{task:#066x}"[:14]).id == task
    for wrong in ("0x", "", "zz", "0x" + "0" * 65, "-1"):
        with pytest.raises(UnknownTaskError):
            reader.view.find_task(wrong)


def test_a_whole_round_up_to_settlement(world: World, make_posting: PostingMaker) -> None:
    market = world.market
    for account, amount in ((SOLVER, 5), (VERIFIER, 2), (WATCHER, 1)):
        world.do(account, market.stakes.deposit(amount * COIN))
    world.do(VERIFIER, market.stakes.enlist(1, 80))
    roots = [bytes([3]) * 32, *(bytes([100 + n]) * 32 for n in range(8))]
    levels = tree.levels(roots)
    task = submitted(world, make_posting)
    reader = MarketReader(market)
    world.do(SOLVER, market.tasks.take(task, COIN))
    agree(world, reader)
    world.do(
        SOLVER,
        market.tasks.register(
            task, levels[-1][0], roots[-1], tree.proof_of(levels, 0), tree.proof_of(levels, 8), "dir:proof"
        ),
    )
    agree(world, reader)
    assert reader.view.task(task).shares[0].state is ShareState.AWAITING
    world.pass_time(1, 4)
    world.do(WATCHER, market.verification.draw(task, 0))
    agree(world, reader)
    drawn = reader.view.current_round(task, 0)
    assert drawn is not None
    assert (drawn.id, drawn.verifier) == (round_id_of(task, 0, 0), world.address(VERIFIER))
    assert drawn.segments == market.verification.segments(task, 0)
    # The verifier replays honestly, and shows what the lottery says.
    claim = [ClaimLeaf(segment, roots[segment + 1], 0, bytes([9]) * 32) for segment in drawn.segments]
    secret = bytes([5]) * 32
    lie = derived_false_claim(claim, secret, task, drawn.id)
    world.do(
        VERIFIER,
        market.verification.commit(
            drawn.id, hidden := hidden_of(secret, 1, drawn.verifier, drawn.id, claim_root(claim), claim_root(lie))
        ),
    )
    world.do(WATCHER, market.answers.join(drawn.id))
    world.pass_time(1, market.parameters.join_blocks + 1)
    agree(world, reader)
    drawn = reader.view.rounds[drawn.id]
    assert drawn.answers == {world.address(WATCHER): AnswerState.JOINED}
    seed = market.seeds.lottery(drawn.lottery_block, drawn.id)
    forced = is_forced(secret, seed, market.parameters.forced_rate)
    shown_claim, index = (lie, 0) if forced else (claim, 1)
    leaves = [ReplayLeaf(each.end_root, each.distance_bits, each.trace_root) for each in shown_claim]
    opened = [Checkpoint(roots[s + 1], tuple(tree.proof_of(levels, s + 1))) for s in drawn.segments]
    world.do(
        VERIFIER,
        market.verification.show_replay(drawn.id, hidden, index, salt_of(secret, drawn.id, index), leaves, opened),
    )
    agree(world, reader)
    drawn = reader.view.rounds[drawn.id]
    assert drawn.shown is not None
    assert drawn.shown.passes
    world.pass_time(drawn.reveals_until - reader.view.time + 1)
    derivation = NO_DERIVATION
    if forced:
        place = next(n for n, (one, other) in enumerate(zip(claim, lie, strict=True)) if one != other)
        proof = tree.proof_of(tree.levels([leaf.leaf() for leaf in lie]), place)
        derivation = Derivation(b"\x05" + claim[place].encode()[:-32], claim[place].trace_root, tuple(proof))
    world.do(VERIFIER, market.verification.disclose(drawn.id, secret, 1, drawn.shown, derivation))
    agree(world, reader)
    drawn = reader.view.rounds[drawn.id]
    assert (drawn.state, drawn.forced, drawn.secret) == (RoundState.DISCLOSED, forced, secret)
    assert [each.trace for each in true_leaves(drawn)] == [bytes([9]) * 32] * 2
    line = reader.view.claims.lines[drawn.id]
    assert (line.root, line.claimant, line.passes) == (claim_root(claim), drawn.verifier, True)
    world.pass_time(line.until - reader.view.time + 1)
    reader.poll()
    assert reader.view.claims.is_standing(drawn.id, reader.view.time)
    assert market.claims.is_standing(drawn.id)
    world.do(WATCHER, market.settlement.settle(task))
    world.do(WATCHER, market.answers.collect(drawn.id, world.address(WATCHER)))
    agree(world, reader)
    assert reader.view.task(task).state is TaskState.SETTLED
    assert reader.view.rounds[drawn.id].answers == {world.address(WATCHER): AnswerState.COLLECTED}
    kinds = [type(each.event) for each in reader.history(task)]
    assert RoundDisclosed in kinds
    # The same from a fresh reader, and through a cache on disk.
    cache = world.folder / "cache" / "logs.sqlite"
    first = MarketReader(market, cache)
    agree(world, first)
    first.close()
    second = MarketReader(market, cache)
    assert second.view.tasks == reader.view.tasks
    assert second.view.rounds == reader.view.rounds == first.view.rounds
    assert second.view.claims.lines == reader.view.claims.lines
    assert second.poll() == []


def test_a_reorganisation_takes_tasks_back(world: World, make_posting: PostingMaker) -> None:
    first = submitted(world, make_posting)
    reader = MarketReader(world.market)
    reader.poll()
    snapshot = world.request("evm_snapshot")
    second = submitted(world, make_posting, task_seed=8)
    world.do(SUBMITTER, world.market.tasks.cancel(first))
    agree(world, reader)
    assert set(reader.view.tasks) == {first, second}
    world.request("evm_revert", snapshot)
    # The other branch is as long, and holds other things.
    world.pass_time(5, 6)
    agree(world, reader)
    assert set(reader.view.tasks) == {first}
    assert reader.view.task(first).state is TaskState.OPEN
    assert len([each for each in reader.history(first) if isinstance(each.event, TaskSubmitted)]) == 1


def test_a_damaged_or_foreign_cache_is_made_anew(world: World, make_posting: PostingMaker, tmp_path: Path) -> None:
    task = submitted(world, make_posting)
    path = tmp_path / "logs.sqlite"
    path.write_bytes(b"no database" * 1000)
    reader = MarketReader(world.market, path)
    reader.poll()
    assert set(reader.view.tasks) == {task}
    reader._database.execute("UPDATE meta SET value = 'another' WHERE key = 'identity'")
    reader._database.execute("UPDATE logs SET data = x'00'")
    reader._database.commit()
    reader.close()
    again = MarketReader(world.market, path)
    again.poll()
    assert set(again.view.tasks) == {task}
    # A second reader does not wait for the first: it keeps its own logs.
    beside = MarketReader(world.market, path)
    assert beside.poll()
    assert beside.view.tasks == again.view.tasks
    assert again.poll() == []
