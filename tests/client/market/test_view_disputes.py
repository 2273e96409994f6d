"""The view of cases, fallen claims and demands, held against what the contracts say. The court is the stand-in whose
cases end as the test says."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from assay.chain.sender import Call
from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf as ClaimLeaf
from assay.commitments.execution import claim_root, derived_false_claim
from assay.contracts import load_contract
from assay.market.abi import Interface
from assay.market.claims import accusation_of, claim_id_of, training_line_of
from assay.market.explain import explain
from assay.market.payments import payments
from assay.market.reader import MarketReader
from assay.market.records import RoundRecord
from assay.market.types import (
    NO_DERIVATION,
    Checkpoint,
    Entry,
    Place,
    ReplayLeaf,
    RoundState,
    TaskState,
)
from assay.market.verification import hidden_of, is_forced, salt_of

from .conftest import COIN, PostingMaker, World, disclosed_profile, header

SUBMITTER, SOLVER, VERIFIER, CHALLENGER = 1, 2, 3, 4
ROOTS = [bytes([3]) * 32, *(bytes([100 + n]) * 32 for n in range(8))]
DATA_ENTRY = Entry(0, 0, 0, 300, ())


def court(world: World, function: str, *arguments: Any, value: int = 0) -> Call:
    interface = Interface("HarnessCourt", load_contract("HarnessCourt").abi)
    return Call(world.market.address("Court"), interface.encode(function, arguments), value)


def claim_of(segments: tuple[int, ...], trace: int, end: int | None = None) -> list[ClaimLeaf]:
    ends = [ROOTS[s + 1] if end is None else bytes([end]) * 32 for s in segments]
    return [ClaimLeaf(s, root, 0, bytes([trace]) * 32) for s, root in zip(segments, ends, strict=True)]


def leaves_of(claim: list[ClaimLeaf]) -> list[ReplayLeaf]:
    return [ReplayLeaf(each.end_root, each.distance_bits, each.trace_root) for each in claim]


def openings(segments: tuple[int, ...]) -> list[Checkpoint]:
    levels = tree.levels(ROOTS)
    return [Checkpoint(ROOTS[s + 1], tuple(tree.proof_of(levels, s + 1))) for s in segments]


def disclosed(world: World, make_posting: PostingMaker) -> tuple[MarketReader, RoundRecord]:
    """A task whose only round is disclosed."""
    market = world.market
    for account in (SOLVER, VERIFIER, CHALLENGER):
        world.do(account, market.stakes.deposit(5 * COIN))
    world.do(VERIFIER, market.stakes.enlist(1, 80))
    table = sha256(b"\x09" + bytes([DATA_ENTRY.element_type]) + DATA_ENTRY.count.to_bytes(4, "big")).digest()
    posted = make_posting(header=header(True)[:12] + table + header(True)[44:])
    world.do(SUBMITTER, market.tasks.submit(posted, market.tasks.escrow_of(posted)))
    reader = MarketReader(market)
    reader.poll()
    (task,) = reader.view.tasks
    levels = tree.levels(ROOTS)
    world.do(SOLVER, market.tasks.take(task))
    first, last = tree.proof_of(levels, 0), tree.proof_of(levels, 8)
    world.do(SOLVER, market.tasks.register(task, levels[-1][0], ROOTS[-1], first, last, "dir:proof"))
    world.pass_time(1, 4)
    world.do(CHALLENGER, market.verification.draw(task, 0))
    reader.poll()
    found = reader.view.current_round(task, 0)
    assert found is not None
    secret, claim = bytes([5]) * 32, claim_of(found.segments, 9)
    lie = derived_false_claim(claim, secret, task, found.id)
    hidden = hidden_of(secret, 0, found.verifier, found.id, claim_root(claim), claim_root(lie))
    world.do(VERIFIER, market.verification.commit(found.id, hidden))
    world.pass_time(1, market.parameters.join_blocks + 1)
    assert not is_forced(secret, bytes(32), market.parameters.forced_rate)
    world.do(
        VERIFIER,
        market.verification.show_replay(
            found.id, hidden, 0, salt_of(secret, found.id, 0), leaves_of(claim), openings(found.segments)
        ),
    )
    reader.poll()
    shown = reader.view.rounds[found.id].shown
    assert shown is not None
    world.do(VERIFIER, market.verification.disclose(found.id, secret, 0, shown, NO_DERIVATION))
    reader.poll()
    assert reader.view.rounds[found.id].state is RoundState.DISCLOSED
    return reader, reader.view.rounds[found.id]


def agree(world: World, reader: MarketReader, line: int) -> None:
    """The view says of a line what the contract says."""
    reader.poll()
    record, found = reader.view.claims.lines[line], world.market.claims.line(line)
    assert (record.root, record.claimant, record.passes, record.has_fallen) == (
        found.root, found.claimant, found.passes, found.has_fallen,
    )  # fmt: skip
    assert len(record.open_cases) == found.open_cases
    assert record.until == found.until
    assert reader.view.claims.is_standing(line, reader.view.time) == world.market.claims.is_standing(line)


def sentences(world: World, reader: MarketReader, task: int) -> str:
    return " ".join(explain(reader.view, reader.view.task(task), world.market.parameters))


def test_a_claim_falls_and_the_task_fails(judged: World, make_posting: PostingMaker) -> None:
    world, market = judged, judged.market
    reader, found = disclosed(world, make_posting)
    answer = claim_of(found.segments, 9, end=77)
    world.do(CHALLENGER, market.claims.publish_replay(found.id, leaves_of(answer), openings(found.segments)))
    agree(world, reader, found.id)
    assert reader.view.claims.lines[found.id].leaves[claim_root(answer)] == tuple(leaves_of(answer))
    claim = reader.view.claims.current(found.id)
    assert claim is not None
    assert (claim.id, claim.claimant) == (claim_id_of(found.id, claim.root, found.verifier), found.verifier)
    bond = market.claims.case_bond()
    world.do(CHALLENGER, court(world, "open", claim.id, claim_root(answer), value=bond))
    agree(world, reader, found.id)
    (case,) = reader.view.claims.cases_of(found.task_id, only_open=True)
    assert (case.challenger, case.claimant) == (world.address(CHALLENGER), found.verifier)
    assert "1 case(s) are open in court" in sentences(world, reader, found.task_id)
    world.do(SUBMITTER, court(world, "close", case.id, claim.id, True, 0))
    agree(world, reader, found.id)
    line = reader.view.claims.lines[found.id]
    assert (line.root, line.claimant, line.passes) == (claim_root(answer), world.address(CHALLENGER), False)
    assert reader.view.claims.cases_of(found.task_id, only_open=True) == []
    assert "fell to" in sentences(world, reader, found.task_id)
    now = reader.view.claims.current(found.id)
    assert now is not None
    assert now.claimant == world.address(CHALLENGER)
    world.pass_time(line.until - reader.view.time + 1)
    agree(world, reader, found.id)
    world.do(SUBMITTER, market.settlement.settle(found.task_id))
    reader.poll()
    task = reader.view.task(found.task_id)
    assert task.state is market.tasks.state(found.task_id) is TaskState.FAILED
    assert "fell in court" in sentences(world, reader, found.task_id)
    paid = payments(task, reader.history(found.task_id))
    rules = [each.rule for each in paid]
    assert "forfeited stake" in rules
    assert "refund to the submitter" in rules
    # Everything that came in is still in a bucket: what payments tell adds up with the ledger.
    moved = sum(
        each.amount
        for each in paid
        if each.target == "credit" and each.account.endswith(world.address(CHALLENGER)[2:].lower())
    )
    spent = sum(each.amount for each in paid if each.source == "credit")
    assert spent == 0
    assert moved == market.stakes.credit(world.address(CHALLENGER))


def test_a_training_claim_is_disputed_in_vain(judged: World, make_posting: PostingMaker) -> None:
    world, market = judged, judged.market
    reader, found = disclosed(world, make_posting)
    world.do(CHALLENGER, market.claims.publish_training(found.task_id))
    reader.poll()
    line = training_line_of(found.task_id)
    claim = next(each for each in reader.view.claims.opened.values() if each.line == line)
    assert reader.view.claims.task_of_line(line) == found.task_id
    assert claim.claimant == world.address(SOLVER)
    world.do(CHALLENGER, court(world, "open", claim.id, bytes(32), value=market.claims.case_bond()))
    reader.poll()
    (case,) = reader.view.claims.cases_of(found.task_id, only_open=True)
    assert market.claims.pending(found.task_id) == 1
    world.do(SUBMITTER, court(world, "close", case.id, claim.id, False, 0))
    reader.poll()
    assert reader.view.claims.cases[case.id].challenger_won is False
    assert reader.view.claims.lines[line].open_cases == ()
    assert market.claims.pending(found.task_id) == 0


def test_a_demand_not_served_fails_the_task(judged: World, make_posting: PostingMaker) -> None:
    world, market = judged, judged.market
    reader, found = disclosed(world, make_posting)
    task = reader.view.task(found.task_id)
    call = market.demands.demand(
        task.id, 0, Place(True, 0, 0, 1), task.posting.header, DATA_ENTRY, market.demands.price()
    )
    world.do(SUBMITTER, call)
    reader.poll()
    (number,) = reader.view.task(task.id).demands
    record, on_chain = reader.view.demands[number], market.demands.open_demand(number)
    assert record.is_open
    assert (record.asker, record.deadline, record.place) == (on_chain.asker, on_chain.deadline, Place(True, 0, 0, 1))
    assert "demanded of the solver" in sentences(world, reader, task.id)
    world.pass_time(record.deadline - reader.view.time + 1)
    world.do(SUBMITTER, market.demands.not_served(number))
    reader.poll()
    after = reader.view.task(task.id)
    assert after.state is market.tasks.state(task.id) is TaskState.FAILED
    assert after.finder == world.address(SUBMITTER)
    assert not reader.view.demands[number].is_open
    assert "showed it and got" in sentences(world, reader, task.id)


def test_a_silent_verifier_is_replaced_until_volunteers_are_asked(judged: World, make_posting: PostingMaker) -> None:
    world, market = judged, judged.market
    for account in (SOLVER, VERIFIER):
        world.do(account, market.stakes.deposit(5 * COIN))
    world.do(VERIFIER, market.stakes.enlist(1, 80))
    posted = make_posting()
    world.do(SUBMITTER, market.tasks.submit(posted, market.tasks.escrow_of(posted)))
    reader = MarketReader(market)
    reader.poll()
    (task,) = reader.view.tasks
    levels = tree.levels(ROOTS)
    world.do(SOLVER, market.tasks.take(task))
    first, last = tree.proof_of(levels, 0), tree.proof_of(levels, 8)
    world.do(SOLVER, market.tasks.register(task, levels[-1][0], ROOTS[-1], first, last, "dir:proof"))
    attempts = market.parameters.maximal_replacements + 1
    for attempt in range(attempts):
        reader.poll()
        share, on_chain = reader.view.task(task).shares[0], market.verification.share(task, 0)
        assert (
            (share.attempt, share.draw_block) == (on_chain.attempt, on_chain.draw_block) == (attempt, share.draw_block)
        )
        world.pass_time(1, 4)
        world.do(CHALLENGER, market.verification.draw(task, 0))
        if attempt == 0:
            reader.poll()
            found = reader.view.current_round(task, 0)
            assert found is not None
            world.pass_time(found.deadline - reader.view.time + 1)
            world.do(CHALLENGER, market.verification.timeout(found.id))
    reader.poll()
    share, on_chain = reader.view.task(task).shares[0], market.verification.share(task, 0)
    assert (share.state, share.attempt, share.deadline) == (on_chain.state, on_chain.attempt, on_chain.deadline)
    assert "volunteers can" in sentences(world, reader, task)
    world.pass_time(share.deadline - reader.view.time + 1)
    reader.poll()
    assert "anyone can call giveUp" in sentences(world, reader, task)
    world.do(CHALLENGER, market.verification.give_up(task, 0))
    reader.poll()
    assert reader.view.task(task).state is market.tasks.state(task) is TaskState.UNVERIFIED
    assert "nobody was found" in sentences(world, reader, task)


def test_a_late_solver_loses_the_task(judged: World, make_posting: PostingMaker) -> None:
    world, market = judged, judged.market
    world.do(SOLVER, market.stakes.deposit(5 * COIN))
    world.do(VERIFIER, market.stakes.deposit(5 * COIN))
    world.do(VERIFIER, market.stakes.enlist(1, 80))
    posted = make_posting()
    world.do(SUBMITTER, market.tasks.submit(posted, market.tasks.escrow_of(posted)))
    reader = MarketReader(market)
    reader.poll()
    (task,) = reader.view.tasks
    world.do(SOLVER, market.tasks.take(task))
    reader.poll()
    record = reader.view.task(task)
    assert "and trains" in sentences(world, reader, task)
    world.pass_time(record.deadline - reader.view.time + 5)
    reader.poll()
    assert "late by" in sentences(world, reader, task)
    world.do(CHALLENGER, market.tasks.late(task))
    reader.poll()
    again = reader.view.task(task)
    assert (again.state, again.relists) == (TaskState.OPEN, 1)
    assert again.price_at(reader.view.time) == market.tasks.price(task) == record.price
    assert "open again, after 1 solver(s)" in sentences(world, reader, task)


def test_a_profile_stands_and_an_undrawn_segment_is_accused(judged: World, make_posting: PostingMaker) -> None:
    world, market = judged, judged.market
    for account in (SOLVER, VERIFIER, CHALLENGER):
        world.do(account, market.stakes.deposit(9 * COIN))
    world.do(VERIFIER, market.stakes.enlist(2, 80))
    posted = make_posting(exact=False, train_seconds=20_000)
    world.do(SUBMITTER, market.tasks.submit(posted, market.tasks.escrow_of(posted)))
    reader = MarketReader(market)
    reader.poll()
    (task,) = reader.view.tasks
    assert reader.view.task(task).state is TaskState.PROFILING
    assert "A profiler measures" in sentences(world, reader, task)
    profile = disclosed_profile(world, reader, task, VERIFIER)
    agree(world, reader, profile)
    world.pass_time(reader.view.claims.lines[profile].until - reader.view.time + 1)
    world.do(CHALLENGER, market.settlement.settle_profile(task))
    reader.poll()
    opened = reader.view.task(task)
    assert (opened.state, opened.threshold_root) == (TaskState.OPEN, bytes([60]) * 32)
    assert opened.price_at(reader.view.time) == market.tasks.price(task)
    levels = tree.levels(ROOTS)
    world.do(SOLVER, market.tasks.take(task))
    first, last = tree.proof_of(levels, 0), tree.proof_of(levels, 8)
    world.do(SOLVER, market.tasks.register(task, levels[-1][0], ROOTS[-1], first, last, "dir:proof"))
    world.pass_time(1, 4)
    world.do(CHALLENGER, market.verification.draw(task, 0))
    reader.poll()
    drawn = reader.view.current_round(task, 0)
    assert drawn is not None
    segment = next(each for each in range(8) if each not in drawn.segments)
    leaf = ReplayLeaf(bytes([90]) * 32, 0x41000000, bytes([91]) * 32)
    bond = market.claims.accusation_bond()
    world.do(CHALLENGER, market.claims.accuse(task, segment, leaf, openings((segment,))[0], bond))
    reader.poll()
    (line,) = reader.view.task(task).accusations
    assert line == accusation_of(task, segment, world.address(CHALLENGER))
    agree(world, reader, line)
    record = reader.view.claims.lines[line]
    assert (record.task_id, record.segment, record.claimant) == (task, segment, world.address(CHALLENGER))
    assert reader.view.claims.current(line) is not None
    assert f"Segment {segment} stands accused" in sentences(world, reader, task)
    world.pass_time(record.until - reader.view.time + 1)
    world.do(SUBMITTER, market.claims.close_accusation(line))
    reader.poll()
    after = reader.view.task(task)
    assert after.state is market.tasks.state(task) is TaskState.FAILED
    assert after.finder == world.address(CHALLENGER)
    assert reader.view.claims.lines[line].is_closed
    rules = [each.rule for each in payments(after, reader.history(task)) if each.amount == after.finder_share]
    assert rules
