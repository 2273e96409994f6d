"""A proxy between the client and the chain that drops, delays, garbles and forgets; nothing is done twice or lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account
from faulty_rpc import Proxy
from web3.types import FilterParams, LogReceipt

from assay.chain.errors import ChainError
from assay.chain.local import LocalChain, start_local_chain
from assay.chain.logs import RECENT_BLOCKS, Cursor, LogReader
from assay.chain.rpc import Chain
from assay.chain.sender import Call, FeePolicy, Outcome, Sender
from assay.state import StateFolder

# Logs its calldata's first word under topic 7.
LOGGER = bytes.fromhex("600e600c600039600e6000f3") + bytes.fromhex("600035600052600760206000a100")


@pytest.fixture(scope="module")
def anvil() -> Iterator[LocalChain]:
    chain = start_local_chain()
    yield chain
    chain.stop()


@pytest.fixture
def proxy(anvil: LocalChain, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    sleep = time.sleep
    monkeypatch.setattr("assay.chain.rpc.time.sleep", lambda seconds: sleep(min(seconds, 0.01)))
    proxy = Proxy(anvil.url)
    yield proxy
    proxy.close()


@pytest.fixture
def sender(anvil: LocalChain, proxy: Proxy, tmp_path: Path) -> Iterator[Sender]:
    with StateFolder(tmp_path) as state:
        yield Sender(Chain(proxy.url, timeout=1.0), Account.from_key(anvil.private_keys[0]), state)


def make(anvil: LocalChain, method: str, *values: object) -> object:
    answer = Chain(anvil.url).web3.provider.make_request(method, list(values))  # type: ignore[arg-type]
    assert "error" not in answer, answer
    return answer.get("result")


FAULTS = ["drop", "429", "503", "rate", "lost", "slow", "cut", "page", "list"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_endpoint_neither_loses_nor_repeats_a_transaction(
    fault: str, anvil: LocalChain, proxy: Proxy, sender: Sender
) -> None:
    receiver = sender.chain.web3.to_checksum_address(anvil.addresses[5])
    before = sender.chain.web3.eth.get_balance(receiver)
    for method in ("eth_estimateGas", "eth_getTransactionCount", "eth_sendRawTransaction", "eth_getTransactionReceipt"):
        proxy.plan[method] = [fault]
    for number in range(2):
        assert sender.send(f"pay {number}", Call(receiver, b"", 3), timeout=20).outcome is Outcome.SUCCEEDED
    assert sender.chain.web3.eth.get_balance(receiver) == before + 6
    assert not any(proxy.plan.values())


@pytest.mark.parametrize("fault", ["503", "cut", "rate"])
def test_an_endpoint_that_stays_faulty_is_named_and_nothing_is_written(
    fault: str, anvil: LocalChain, proxy: Proxy, sender: Sender
) -> None:
    proxy.plan["eth_estimateGas"] = [fault] * 99
    with pytest.raises(ChainError, match=proxy.url):
        sender.submit("pay", Call(anvil.addresses[5], b"", 1))
    assert sender.find("pay") is None


@pytest.mark.parametrize("fault", FAULTS)
def test_logs_are_read_once_through_a_faulty_endpoint(
    fault: str, anvil: LocalChain, proxy: Proxy, sender: Sender
) -> None:
    contract = sender.send("deploy", Call(None, LOGGER)).contract
    assert contract is not None
    cursor, seen = Cursor(sender.chain.web3.eth.block_number), []
    reader = LogReader(sender.chain, [contract], page=2)
    for number in range(4):
        sender.send(f"log {number}", Call(contract, number.to_bytes(32, "big")))
    for _ in range(4):
        for method in ("eth_getLogs", "eth_getBlockByNumber", "eth_blockNumber"):
            proxy.plan[method] = [fault]
        batch = reader.read(cursor)
        seen += [int.from_bytes(log["data"], "big") for log in batch.logs]
        cursor = batch.cursor
    assert seen == [0, 1, 2, 3]


def test_a_rate_limit_is_no_reason_to_ask_more_often(anvil: LocalChain, proxy: Proxy, sender: Sender) -> None:
    begin = sender.chain.web3.eth.block_number
    make(anvil, "anvil_mine", hex(64))
    proxy.plan["eth_getLogs"] = ["rate"] * 999
    proxy.calls.clear()
    with pytest.raises(ChainError):
        LogReader(sender.chain, [anvil.addresses[3]]).read(Cursor(begin))
    assert proxy.calls.count("eth_getLogs") <= 5


def test_a_deep_reorganisation_is_taken_back_whole_where_one_block_is_remembered(
    anvil: LocalChain, sender: Sender
) -> None:
    """All blocks were read in one page: nothing says where the chains part, so nothing read may be kept."""
    contract = sender.send("deploy", Call(None, LOGGER)).contract
    assert contract is not None
    begin = sender.chain.web3.eth.block_number
    reader = LogReader(sender.chain, [contract])
    for number in range(5):
        sender.send(f"log {number}", Call(contract, number.to_bytes(32, "big")))
    batch = reader.read(Cursor(begin))
    assert len(batch.logs) == 5
    kept = [(log["blockNumber"], int.from_bytes(log["data"], "big")) for log in batch.logs]
    make(anvil, "anvil_reorg", 4, [])  # empty blocks instead of the last four
    batch = reader.read(batch.cursor)
    assert batch.rolled_back_to is not None
    kept = [each for each in kept if each[0] <= batch.rolled_back_to]
    kept += [(log["blockNumber"], int.from_bytes(log["data"], "big")) for log in batch.logs]
    web3 = sender.chain.web3
    truth = web3.eth.get_logs({"address": contract, "fromBlock": begin + 1, "toBlock": "latest"})  # type: ignore[typeddict-item]
    assert kept == [(log["blockNumber"], int.from_bytes(log["data"], "big")) for log in truth]


@pytest.mark.parametrize("mined", [2, 2 * RECENT_BLOCKS], ids=["recent blocks", "old blocks"])
def test_a_reorganisation_while_logs_are_read_is_noticed(
    mined: int, anvil: LocalChain, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = sender.send("deploy", Call(None, LOGGER)).contract
    assert contract is not None
    reader = LogReader(sender.chain, [contract])
    begin = sender.chain.web3.eth.block_number
    for number in range(3):
        sender.send(f"log {number}", Call(contract, number.to_bytes(32, "big")))
    first = reader.read(Cursor(begin))
    make(anvil, "anvil_mine", hex(mined))
    honest = reader._ask

    def slow(where: str, blocks: FilterParams) -> list[LogReceipt]:
        make(anvil, "anvil_reorg", mined + 2, [])
        return honest(where, blocks)

    monkeypatch.setattr(reader, "_ask", slow)
    second = reader.read(first.cursor)
    assert second.cursor == first.cursor  # nothing was taken from a chain that moved
    monkeypatch.setattr(reader, "_ask", honest)
    assert reader.read(second.cursor).rolled_back_to is not None


@pytest.mark.parametrize("seed", range(6))
def test_an_endpoint_of_nodes_that_lag_loses_no_logs(
    seed: int, anvil: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.chain.rpc.time.sleep", lambda seconds: None)
    with StateFolder(tmp_path) as state:
        sender = Sender(Chain(anvil.url), Account.from_key(anvil.private_keys[0]), state)
        contract = sender.send("deploy", Call(None, LOGGER)).contract
        assert contract is not None
        proxy = Proxy(anvil.url, lag=2, seed=seed)
        try:
            cursor, seen = Cursor(sender.chain.web3.eth.block_number), []
            reader = LogReader(Chain(proxy.url), [contract])
            for number in range(12):
                sender.send(f"log {number}", Call(contract, number.to_bytes(32, "big")))
                batch = reader.read(cursor)
                assert batch.rolled_back_to is None
                seen += [int.from_bytes(log["data"], "big") for log in batch.logs]
                cursor = batch.cursor
            proxy.lag = 0
            seen += [int.from_bytes(log["data"], "big") for log in reader.read(cursor).logs]
        finally:
            proxy.close()
        assert seen == list(range(12))


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
def test_a_wrong_clock_neither_repeats_nor_blocks_a_transaction(
    skew: float, anvil: LocalChain, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumps by a day while a transaction waits: it is mined once, and still replaced when it is stuck."""
    now = [1_000_000.0]
    monkeypatch.setattr(sender, "clock", lambda: now[0])
    monkeypatch.setattr(sender, "fees", FeePolicy(stuck_seconds=30))
    receiver = sender.chain.web3.to_checksum_address(anvil.addresses[6])
    before = sender.chain.web3.eth.get_balance(receiver)
    make(anvil, "evm_setAutomine", False)
    try:
        sent = sender.submit("pay", Call(receiver, b"", 3))
        now[0] += skew
        sender.advance()
        now[0] += 31
        sender.advance()
        replaced = sender.find("pay")
        assert replaced is not None
        assert replaced.nonce == sent.nonce
        assert len(replaced.hashes) >= 2
        make(anvil, "evm_mine")
        assert [each.outcome for each in sender.advance()] == [Outcome.SUCCEEDED]
    finally:
        make(anvil, "evm_setAutomine", True)
    assert sender.chain.web3.eth.get_balance(receiver) == before + 3
