"""A market on anvil for the tests of this folder, and accounts that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from assay.chain.sender import Call, Outcome, Sender, Sent
from assay.commitments.execution import ProfileLeaf as Profiled
from assay.commitments.execution import claim_root
from assay.market.connection import Market
from assay.market.deploy import ORDER, constructor_arguments, creation_code, predicted_addresses
from assay.market.deployment import Deployment
from assay.market.local import LocalMarket, start_local_market
from assay.market.parameters import LOCAL, LOCAL_COURT
from assay.market.reader import MarketReader
from assay.market.types import NO_DERIVATION, PROFILE, Posting, ProfileLeaf
from assay.market.verification import hidden_of, salt_of
from assay.state import StateFolder

COIN = 10**18


@pytest.fixture(scope="session")
def running() -> Iterator[LocalMarket]:
    market = start_local_market(accounts=8)
    yield market
    market.stop()


@dataclass
class World:
    """A market whose chain is set back after each test."""

    running: LocalMarket
    folder: Path
    senders: dict[int, Sender]
    count: int = 0

    @property
    def market(self) -> Market:
        return self.running.market

    def sender(self, number: int) -> Sender:
        """The sender of account `number`."""
        if number not in self.senders:
            account = Account.from_key(self.running.chain.private_keys[number])
            state = StateFolder(self.folder / str(number))
            self.senders[number] = Sender(self.market.chain, account, state)
        return self.senders[number]

    def address(self, number: int) -> str:
        return self.market.chain.web3.to_checksum_address(self.running.chain.addresses[number])

    def do(self, number: int, call: Call) -> Sent:
        """Send a call and expect it to succeed."""
        self.count += 1
        sent = self.sender(number).send(f"test {self.count}", call)
        assert sent.outcome is Outcome.SUCCEEDED
        return sent

    def request(self, method: str, *parameters: Any) -> Any:
        answer = self.market.chain.web3.provider.make_request(method, list(parameters))  # type: ignore[arg-type]
        assert "error" not in answer, answer
        return answer.get("result")

    def pass_time(self, seconds: int, blocks: int = 1) -> None:
        self.request("evm_increaseTime", seconds)
        self.request("anvil_mine", hex(blocks))


@pytest.fixture
def world(running: LocalMarket, tmp_path: Path) -> Iterator[World]:
    made = World(running, tmp_path / "state", {})
    snapshot = made.request("evm_snapshot")
    yield made
    for sender in made.senders.values():
        sender.state.close()
    assert made.request("evm_revert", snapshot)


@pytest.fixture
def judged(running: LocalMarket, tmp_path: Path) -> Iterator[World]:
    """A market whose court over the market's claims is the harness; no round is ever forced."""
    world = World(running, tmp_path / "state", {})
    snapshot = world.request("evm_snapshot")
    sender = world.sender(6)
    parameters = replace(LOCAL, forced_rate=0)
    addresses = predicted_addresses(sender.address, 0)
    for name in ORDER:
        code = creation_code(name, constructor_arguments(name, addresses, parameters, LOCAL_COURT))
        if name == "Court":
            code = creation_code("HarnessCourt", (addresses["Claims"],))
        sender.submit(name, Call(None, code))
    for name in ORDER:
        assert sender.wait(name).contract == addresses[name]
    deployment = Deployment(sender.chain_id, 0, sender.address, addresses, parameters, LOCAL_COURT)
    world.running = replace(running, market=Market(running.market.chain, deployment))
    world.senders.clear()
    yield world
    sender.state.close()
    for each in world.senders.values():
        each.state.close()
    assert world.request("evm_revert", snapshot)


def header(exact: bool, work: int = 10**9) -> bytes:
    """A program's header (contracts/FORMAT.md, 2.4) with two state tensors and the sections its mode needs."""
    text = (1).to_bytes(2, "big") * 2 + (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(32)
    text += (0).to_bytes(4, "big") + bytes(32) + bytes([1 if exact else 4])
    for role in range(1 if exact else 4):
        text += bytes([role]) + (5).to_bytes(4, "big") + bytes([role + 1]) * 32 + work.to_bytes(16, "big") + bytes(32)
    return text


PostingMaker = Callable[..., Posting]


@pytest.fixture
def make_posting() -> PostingMaker:
    def make(exact: bool = True, **changes: Any) -> Posting:
        fields: dict[str, Any] = {
            "header": header(exact), "graph_hash": bytes([1]) * 32, "lowering": 1, "data_root": bytes([2]) * 32,
            "initial_root": bytes([3]) * 32, "base_task": 0, "task_seed": 7, "steps": 80, "interval": 10,
            "exact": exact, "verifiers": 1, "per_verifier": 2, "profile_segments": 0 if exact else 2,
            "lowest_reward": COIN, "highest_reward": 2 * COIN, "verifier_fee": COIN // 5,
            "profiler_fee": 0 if exact else COIN // 4, "auction_seconds": 100, "train_seconds": 10_000,
            "locations": "dir:0",
        }  # fmt: skip
        return Posting(**(fields | changes))

    return make


def disclosed_profile(world: World, reader: MarketReader, task: int, verifier: int) -> int:
    """The profile of a tolerant task up to its disclosure, by an account that no round forces; the round's number."""
    market = world.market
    world.pass_time(1, 4)
    world.do(verifier, market.verification.draw(task, PROFILE))
    reader.poll()
    found = reader.view.current_round(task, PROFILE)
    assert found is not None
    assert found.segments == (0, 1)
    claim = [
        Profiled(s, bytes([40 + s]) * 32, bytes([50]) * 32, bytes([60]) * 32, 0x40000000, bytes([70]) * 32)
        for s in found.segments
    ]
    secret = bytes([5]) * 32
    hidden = hidden_of(secret, 0, found.verifier, found.id, claim_root(claim), bytes([1]) * 32)
    world.do(verifier, market.verification.commit(found.id, hidden))
    world.pass_time(1, market.parameters.join_blocks + 1)
    leaves = [
        ProfileLeaf(each.clean_root, each.noisy_root, each.threshold_root, each.separation_bits, each.trace_root)
        for each in claim
    ]
    salt = salt_of(secret, found.id, 0)
    world.do(verifier, market.verification.show_profile(found.id, hidden, 0, salt, leaves))
    reader.poll()
    shown = reader.view.rounds[found.id].shown
    assert shown is not None
    assert shown.thresholds == bytes([60]) * 32
    world.do(verifier, market.verification.disclose(found.id, secret, 0, shown, NO_DERIVATION))
    reader.poll()
    return found.id
