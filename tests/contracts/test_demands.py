"""Demands for chunks of a task's files."""

from __future__ import annotations

from typing import Any

import pytest

from market_chain import Chain, RevertedError, address_of
from market_world import DEMAND, ETHER, MILLION, Round, Tree, World, header, named, populated, sha

SUBMITTER = address_of("submitter")
SOLVER = address_of("solver")
COUNT = 700  # elements of the data tensor: three chunks
STATE_COUNTS = (1, 300)


class Files:
    """A task whose files exist: one data tensor, and two tensors of state in every checkpoint."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.table = Tree(
            [
                sha(b"\x04", b"\x01", i.to_bytes(4, "big"), b"\x00", count.to_bytes(4, "big"))
                for i, count in enumerate(STATE_COUNTS)
            ]
        )
        data_entry = sha(b"\x09", b"\x01", COUNT.to_bytes(4, "big"))
        text = bytearray(header(True, table_root=self.table.root))
        text[12:44] = data_entry
        self.header = bytes(text)
        self.data = self.tensor("data", COUNT)
        self.states = [
            [self.tensor(f"state {checkpoint} {i}", count) for i, count in enumerate(STATE_COUNTS)]
            for checkpoint in range(9)
        ]
        self.roots = [Tree([tree.root for _, tree in state]) for state in self.states]

    @staticmethod
    def tensor(word: str, count: int) -> tuple[list[bytes], Tree]:
        chunks = [(sha(word.encode(), bytes([i])) * 32) for i in range(-(-count // 256))]
        return chunks, Tree([sha(b"\x00", chunk) for chunk in chunks])

    def round(self) -> Round:
        """Submits, takes and registers the task, and draws a verifier."""
        world = self.world
        posting = world.posting(header=self.header, dataRoot=self.data[1].root, initialRoot=self.roots[0].root)
        task = world.submit(SUBMITTER, posting)
        world.take(SOLVER, task)
        self.checkpoints = Tree([tree.root for tree in self.roots])
        world.do(
            SOLVER,
            "Market",
            "register",
            task,
            self.checkpoints.root,
            self.roots[8].root,
            self.checkpoints.proof(0),
            self.checkpoints.proof(8),
            "",
        )
        return world.draw(task)

    def data_entry(self) -> tuple[Any, ...]:
        return 0, 0, 1, COUNT, []

    def state_entry(self, tensor: int) -> tuple[Any, ...]:
        return 1, tensor, 0, STATE_COUNTS[tensor], self.table.proof(tensor)

    def demand(self, asker: str, round_: Round, place: tuple[Any, ...], entry: tuple[Any, ...], value: int = 0) -> int:
        price = value or self.world.parameters["demandPrice"]
        arguments = (round_.task, round_.id, place, self.header, entry)
        return int(self.world.do(asker, "Demands", "demand", *arguments, value=price).value)


@pytest.fixture
def files(world: World) -> Files:
    return Files(world)


def test_the_solver_serves_a_data_chunk_and_earns_the_price(world: World, files: Files) -> None:
    round_ = files.round()
    demand = files.demand(SUBMITTER, round_, (True, 0, 0, 2), files.data_entry())
    assert world.bucket(DEMAND, demand) == world.parameters["demandPrice"]
    chunks, tree = files.data
    with pytest.raises(RevertedError, match="WrongHash"):
        world.do(SOLVER, "Demands", "serve", demand, chunks[1], tree.proof(2))
    with pytest.raises(RevertedError, match="WrongLength"):
        world.do(SOLVER, "Demands", "serve", demand, chunks[2], tree.proof(2)[:-1])
    # Whoever serves, the solver earns.
    world.do(address_of("helper"), "Demands", "serve", demand, chunks[2], tree.proof(2))
    assert world.credit(SOLVER) == world.parameters["demandPrice"]
    with pytest.raises(RevertedError, match="NoSuchDemand"):
        world.do(SOLVER, "Demands", "serve", demand, chunks[2], tree.proof(2))


@pytest.mark.parametrize(("checkpoint", "tensor", "chunk"), [(0, 0, 0), (3, 1, 1), (8, 1, 0)])
def test_chunks_of_checkpoints_are_opened_under_the_checkpoint_root(
    world: World, files: Files, checkpoint: int, tensor: int, chunk: int
) -> None:
    round_ = files.round()
    demand = files.demand(round_.verifier, round_, (False, checkpoint, tensor, chunk), files.state_entry(tensor))
    chunks, tree = files.states[checkpoint][tensor]
    proof = tree.proof(chunk) + files.roots[checkpoint].proof(tensor) + files.checkpoints.proof(checkpoint)
    world.do(SOLVER, "Demands", "serve", demand, chunks[chunk], proof)
    assert world.bucket(DEMAND, demand) == 0


def test_an_unserved_demand_fails_the_task(world: World, files: Files) -> None:
    round_ = files.round()
    before = world.credit(SUBMITTER)
    demand = files.demand(SUBMITTER, round_, (True, 0, 0, 0), files.data_entry())
    with pytest.raises(RevertedError, match="TooEarly"):
        world.do(world.deployer, "Demands", "notServed", demand)
    world.chain.move(seconds=world.parameters["demandSeconds"] + 60)
    chunks, tree = files.data
    with pytest.raises(RevertedError, match="TooLate"):
        world.do(SOLVER, "Demands", "serve", demand, chunks[0], tree.proof(0))
    stake = world.see("Market", "stakeOf", round_.task)
    world.do(world.deployer, "Demands", "notServed", demand)
    fee = world.posting()["verifierFee"]
    share = (stake - fee) * world.parameters["finderRate"] // MILLION
    assert world.state(round_.task) == "Failed"
    assert world.stake_of(SOLVER) == 20 * ETHER - stake
    assert world.credit(SUBMITTER) >= before + world.parameters["demandPrice"] + share
    with pytest.raises(RevertedError, match="NoSuchDemand"):
        world.do(world.deployer, "Demands", "notServed", demand)


def test_what_does_not_exist_cannot_be_demanded(world: World, files: Files) -> None:
    round_ = files.round()
    for place, entry, error in [
        ((True, 0, 0, 3), files.data_entry(), "NoSuchPlace"),
        ((True, 0, 1, 0), files.data_entry(), "NoSuchPlace"),
        ((False, 9, 0, 0), files.state_entry(0), "NoSuchPlace"),
        ((False, 0, 0, 1), files.state_entry(0), "NoSuchPlace"),
        ((False, 0, 2, 0), files.state_entry(0), "NoSuchPlace"),
        ((False, 0, 1, 0), files.state_entry(0), "WrongHash"),
        ((True, 0, 0, 3), (0, 0, 1, COUNT + 256, []), "WrongHash"),
    ]:
        with pytest.raises(RevertedError, match=error):
            files.demand(SUBMITTER, round_, place, entry)
    with pytest.raises(RevertedError, match="WrongValue"):
        files.demand(SUBMITTER, round_, (True, 0, 0, 0), files.data_entry(), 1)
    files.header = header(True)
    with pytest.raises(RevertedError, match="WrongHeader"):
        files.demand(SUBMITTER, round_, (True, 0, 0, 0), files.data_entry())


def test_only_who_takes_part_demands_and_few_at_a_time(chain: Chain) -> None:
    world = populated(chain)
    files = Files(world)
    round_ = files.round()
    place, entry = (True, 0, 0, 0), files.data_entry()
    whistleblower = address_of("whistleblower 0")
    for outsider in (address_of("outsider"), whistleblower, SOLVER):
        with pytest.raises(RevertedError, match="NotEntitled"):
            files.demand(outsider, round_, place, entry)
    world.commit(round_, named("r"))
    world.join(whistleblower, round_)
    files.demand(whistleblower, round_, place, entry)
    files.demand(whistleblower, round_, place, entry)
    with pytest.raises(RevertedError, match="TooMany"):
        files.demand(whistleblower, round_, place, entry)


def test_a_demand_that_was_answered_makes_room_for_another(world: World, files: Files) -> None:
    round_ = files.round()
    place, entry = (True, 0, 0, 0), files.data_entry()
    chunks, tree = files.data
    open_ = [files.demand(SUBMITTER, round_, place, entry) for _ in range(world.see("Demands", "AT_A_TIME"))]
    assert len(open_) == 2
    with pytest.raises(RevertedError, match="TooMany"):
        files.demand(SUBMITTER, round_, place, entry)
    # Each asker has places of its own.
    files.demand(round_.verifier, round_, place, entry)
    world.do(SOLVER, "Demands", "serve", open_[0], chunks[0], tree.proof(0))
    files.demand(SUBMITTER, round_, place, entry)
    with pytest.raises(RevertedError, match="TooMany"):
        files.demand(SUBMITTER, round_, place, entry)


@pytest.mark.parametrize("chunk", [3, 4, 5, 2**32 - 1])
def test_a_chunk_number_past_the_tensor_is_not_one_of_its_neighbour(world: World, files: Files, chunk: int) -> None:
    """Three chunks take four places under the root; the fifth place would be the next tensor's."""
    round_ = files.round()
    with pytest.raises(RevertedError, match="NoSuchPlace") as caught:
        files.demand(SUBMITTER, round_, (True, 0, 0, chunk), files.data_entry())
    assert caught.value.values == (chunk, 3)
    with pytest.raises(RevertedError, match="NoSuchPlace") as caught:
        files.demand(SUBMITTER, round_, (False, 2, 1, chunk), files.state_entry(1))
    assert caught.value.values == (chunk, 2)
    files.demand(SUBMITTER, round_, (True, 0, 0, 2), files.data_entry())


def test_an_open_demand_keeps_the_task_from_settling(world: World, files: Files) -> None:
    round_ = files.round()
    round_.truth = [
        (files.roots[s + 1].root, 0, leaf[2]) for s, leaf in zip(round_.segments, round_.truth, strict=True)
    ]
    world.checkpoints[round_.task] = files.checkpoints
    world.commit_for(round_, forced=False)
    world.show(round_)
    world.disclose(round_)
    demand = files.demand(SUBMITTER, round_, (True, 0, 0, 0), files.data_entry())
    world.after_window()
    with pytest.raises(RevertedError, match="StillPending"):
        world.do(world.deployer, "Settlement", "settle", round_.task)
    with pytest.raises(RevertedError, match="NotChallengeable"):
        files.demand(SUBMITTER, round_, (True, 0, 0, 1), files.data_entry())
    world.do(world.deployer, "Demands", "notServed", demand)
    assert world.state(round_.task) == "Failed"
