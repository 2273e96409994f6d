"""One account's transactions on a live anvil: written down first, sent once, replaced when stuck, final at depth."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from eth_account import Account

from assay.chain.errors import FeeCapError, FundsError, RevertedError
from assay.chain.local import LocalChain, start_local_chain
from assay.chain.logs import RECENT_BLOCKS, Cursor, LogReader
from assay.chain.rpc import Chain
from assay.chain.sender import Call, FeePolicy, Outcome, Sender
from assay.state import StateError, StateFolder

# Logs its calldata's first word under topic 7 and stores nothing.
LOGGER = bytes.fromhex("600e600c600039600e6000f3") + bytes.fromhex("600035600052600760206000a100")
REFUSER = bytes.fromhex("600a600c600039600a6000f3") + bytes.fromhex("60006000fd0000000000")


@pytest.fixture(scope="module")
def anvil() -> Iterator[LocalChain]:
    chain = start_local_chain()
    yield chain
    chain.stop()


@pytest.fixture
def chain(anvil: LocalChain) -> Iterator[Chain]:
    chain = Chain(anvil.url)
    snapshot = chain.web3.provider.make_request("evm_snapshot", [])["result"]  # type: ignore[arg-type]
    yield chain
    request(chain, "evm_setAutomine", True)
    request(chain, "evm_revert", snapshot)


def request(chain: Chain, method: str, *values: object) -> object:
    answer = chain.web3.provider.make_request(method, list(values))  # type: ignore[arg-type]
    assert "error" not in answer, answer
    return answer.get("result")


def sender_of(chain: Chain, anvil: LocalChain, state: StateFolder, **more: object) -> Sender:
    return Sender(chain, Account.from_key(anvil.private_keys[0]), state, **more)  # type: ignore[arg-type]


def test_a_key_is_sent_once_however_often_it_is_asked_for(anvil: LocalChain, chain: Chain, tmp_path: Path) -> None:
    receiver = chain.web3.to_checksum_address(anvil.addresses[1])
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state)
        before = chain.web3.eth.get_balance(receiver)
        first = sender.send("pay", Call(receiver, b"", 5))
        assert first.outcome is Outcome.SUCCEEDED
        assert sender.send("pay", Call(receiver, b"", 5)).hash == first.hash
        assert chain.web3.eth.get_balance(receiver) == before + 5


def test_a_transaction_written_down_but_never_broadcast_goes_out_after_a_restart(
    anvil: LocalChain, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state)
        monkeypatch.setattr(sender, "_broadcast", lambda raw: None)
        sent = sender.submit("pay", Call(anvil.addresses[1], b"", 1))
    with StateFolder(tmp_path) as state:
        again = sender_of(chain, anvil, state)
        assert again.submit("pay", Call(anvil.addresses[1], b"", 1)).hash == sent.hash
        assert again.wait("pay").outcome is Outcome.SUCCEEDED
        assert again.submit("next", Call(anvil.addresses[1], b"")).nonce == sent.nonce + 1


def test_a_stuck_transaction_is_replaced_with_the_same_nonce(anvil: LocalChain, chain: Chain, tmp_path: Path) -> None:
    now = [1000.0]
    request(chain, "evm_setAutomine", False)
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state, fees=FeePolicy(stuck_seconds=30), clock=lambda: now[0])
        first = sender.submit("pay", Call(anvil.addresses[1], b"", 1))
        assert sender.advance() == []
        now[0] += 31
        sender.advance()
        replaced = sender.find("pay")
        assert replaced is not None
        assert (replaced.nonce, len(replaced.hashes)) == (first.nonce, 2)
        request(chain, "evm_mine")
        assert [each.outcome for each in sender.advance()] == [Outcome.SUCCEEDED]
        receipt = chain.web3.eth.get_transaction_receipt(replaced.hash)  # type: ignore[arg-type]
        assert receipt["status"] == 1


def test_a_call_whose_nonce_another_program_used_is_sent_with_the_next_one(
    anvil: LocalChain, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    receiver = chain.web3.to_checksum_address(anvil.addresses[1])
    before = chain.web3.eth.get_balance(receiver)
    with StateFolder(tmp_path / "mine") as mine, StateFolder(tmp_path / "other") as other:
        sender = sender_of(chain, anvil, mine, fees=FeePolicy(stuck_seconds=30), clock=lambda: now[0])
        monkeypatch.setattr(sender, "_broadcast", lambda raw: None)
        first = sender.submit("pay", Call(receiver, b"", 1))
        sender_of(chain, anvil, other).send("other", Call(receiver, b"", 10))
        monkeypatch.undo()
        now[0] += 31
        sender.advance()
        waiting = sender.find("pay")
        assert waiting is not None
        assert waiting.nonce == first.nonce  # a node that lags may only not have the receipt yet
        request(chain, "anvil_mine", RECENT_BLOCKS)
        now[0] += 31
        sender.advance()
        assert [(each.nonce, each.outcome) for each in sender.advance()] == [(first.nonce + 1, Outcome.SUCCEEDED)]
    assert chain.web3.eth.get_balance(receiver) == before + 11


def test_fees_above_the_cap_are_refused_before_anything_is_signed(
    anvil: LocalChain, chain: Chain, tmp_path: Path
) -> None:
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state, fees=FeePolicy(cap=10))
        with pytest.raises(FeeCapError, match="chain.fee_cap"):
            sender.submit("pay", Call(anvil.addresses[1], b""))
        assert sender.find("pay") is None


def test_what_the_account_cannot_pay_for_is_refused_and_holds_up_nothing_that_comes_later(
    anvil: LocalChain, chain: Chain, tmp_path: Path
) -> None:
    receiver = anvil.addresses[1]
    held = 10**18
    request(chain, "anvil_setBalance", anvil.addresses[0], hex(held))
    request(chain, "evm_setAutomine", False)
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state)
        for value in (2 * held, held, held - 1):  # the last ones leave nothing for gas
            with pytest.raises(FundsError, match="send it coins"):
                sender.submit("all", Call(receiver, b"", value))
        sender.submit("half", Call(receiver, b"", held // 2))
        with pytest.raises(FundsError):  # a waiting transaction has its part already
            sender.submit("another half", Call(receiver, b"", held // 2))
        sender.submit("little", Call(receiver, b"", 1))
        request(chain, "evm_mine")
        assert [(each.key, each.outcome) for each in sender.advance()] == [
            ("half", Outcome.SUCCEEDED),
            ("little", Outcome.SUCCEEDED),
        ]


def test_a_stuck_transaction_stays_as_it_is_where_the_account_cannot_pay_for_another(
    anvil: LocalChain, chain: Chain, tmp_path: Path
) -> None:
    now = [1000.0]
    request(chain, "evm_setAutomine", False)
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state, fees=FeePolicy(stuck_seconds=30), clock=lambda: now[0])
        sent = sender.submit("pay", Call(anvil.addresses[1], b"", 10**18))
        row = sender._row("pay")
        assert row is not None
        request(chain, "anvil_setBalance", anvil.addresses[0], hex(10**18 + row["gas"] * row["max_fee"]))
        now[0] += 31
        assert sender.advance() == []
        assert sender.find("pay") == sent
        request(chain, "evm_mine")
        assert [each.outcome for each in sender.advance()] == [Outcome.SUCCEEDED]


def test_a_refused_call_costs_nothing(anvil: LocalChain, chain: Chain, tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state)
        contract = sender.send("deploy", Call(None, REFUSER)).contract
        with pytest.raises(RevertedError):
            sender.submit("call", Call(contract, b""))
        assert sender.find("call") is None


def test_what_failed_is_sent_again_when_it_is_asked_for_again(anvil: LocalChain, chain: Chain, tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state)
        contract = sender.send("deploy", Call(None, REFUSER)).contract
        for failed in range(2):
            assert sender.attempt("call") == ("call" if not failed else f"call#{failed}", failed)
            assert sender.send("call", Call(contract, b"", gas=50_000)).outcome is Outcome.FAILED
        done = sender.send("call", Call(anvil.addresses[1], b"", 1))
        assert done.outcome is Outcome.SUCCEEDED
        assert sender.attempt("call") == ("call#2", 2)
        assert sender.send("call", Call(anvil.addresses[1], b"", 1)).hash == done.hash


def test_a_dropped_block_sends_the_transaction_again(anvil: LocalChain, chain: Chain, tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state, confirmations=3)
        point = request(chain, "evm_snapshot")
        sender.submit("pay", Call(anvil.addresses[1], b"", 7))
        assert sender.advance() == []
        request(chain, "evm_revert", point)  # the block is gone
        request(chain, "anvil_mine", 2)
        assert sender.advance() == []  # broadcast again
        request(chain, "anvil_mine", 3)
        assert [each.outcome for each in sender.advance()] == [Outcome.SUCCEEDED]


def test_logs_are_read_in_pages_once_and_taken_back_after_a_reorganisation(
    anvil: LocalChain, chain: Chain, tmp_path: Path
) -> None:
    with StateFolder(tmp_path) as state:
        sender = sender_of(chain, anvil, state)
        contract = sender.send("deploy", Call(None, LOGGER)).contract
        assert contract is not None
        begin = chain.web3.eth.block_number
        reader = LogReader(chain, [contract], page=2)
        for number in range(5):
            sender.send(f"log {number}", Call(contract, number.to_bytes(32, "big")))
        cursor, seen = Cursor(begin), []
        for _ in range(4):
            batch = reader.read(cursor)
            assert batch.rolled_back_to is None
            seen += [int.from_bytes(log["data"], "big") for log in batch.logs]
            cursor = batch.cursor
        assert seen == [0, 1, 2, 3, 4]
        request(chain, "anvil_reorg", 2, [])
        batch = reader.read(cursor)
        assert batch.rolled_back_to is not None
        assert batch.rolled_back_to <= begin + 4
        later = reader.read(batch.cursor)
        assert later.rolled_back_to is None


def test_an_endpoint_that_drops_answers_is_asked_again(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [requests.ConnectionError("dropped"), requests.Timeout("slow"), 42]

    def question() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert chain.ask("asking", question) == 42


def _open_state(folder: str, result: multiprocessing.SimpleQueue[str]) -> None:
    try:
        StateFolder(Path(folder))
        result.put("opened")
    except StateError as error:
        result.put(str(error))


def test_a_state_folder_has_one_owner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    result = context.SimpleQueue()
    with StateFolder(tmp_path) as state:
        assert state.put_once("secret", "first") == "first"
        assert state.put_once("secret", "second") == "first"
        child = context.Process(target=_open_state, args=(str(tmp_path), result))
        child.start()
        child.join()
        assert "in use by process" in result.get()
