"""A local chain comes up with funded accounts, and never outlives the program that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from web3 import HTTPProvider, Web3

from assay.chain.local import AnvilNotFoundError, LocalChainError, PortTakenError, local_chain, start_local_chain

# Starts a chain in another process, prints the process id of anvil, and waits.
STARTER = """
import sys, time
from assay.chain.local import local_chain
with local_chain() as chain:
    print(chain.process.pid, flush=True)
    time.sleep(60)
"""


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for_end(process_id: int) -> bool:
    for _ in range(200):
        if not is_alive(process_id):
            return True
        time.sleep(0.02)
    return False


def test_a_local_chain_answers_and_funds_its_accounts() -> None:
    with local_chain(accounts=3, balance=7) as chain:
        web3 = Web3(HTTPProvider(chain.url))
        assert web3.eth.chain_id == chain.chain_id
        assert len(chain.addresses) == len(chain.private_keys) == 3
        for address, key in zip(chain.addresses, chain.private_keys, strict=True):
            assert web3.eth.account.from_key(key).address.lower() == address.lower()
            assert web3.eth.get_balance(Web3.to_checksum_address(address)) == 7 * 10**18
    assert not chain.is_running()


def test_two_local_chains_do_not_meet() -> None:
    with local_chain() as first, local_chain() as second:
        assert first.url != second.url


def test_the_chain_stops_when_the_block_fails() -> None:
    with pytest.raises(RuntimeError, match="stop here"), local_chain() as chain:
        raise RuntimeError("stop here")
    assert not chain.is_running()


def test_stopping_twice_is_no_error() -> None:
    chain = start_local_chain()
    chain.stop()
    chain.stop()
    assert not chain.is_running()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTakenError, match=str(port)):
            start_local_chain(port=port)


def test_a_wrong_path_to_anvil_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASSAY_ANVIL", str(tmp_path / "nothing"))
    with pytest.raises(AnvilNotFoundError, match="nothing"):
        start_local_chain()


def test_what_anvil_says_is_part_of_the_error() -> None:
    with pytest.raises(LocalChainError, match="--no-such-option"):
        start_local_chain(options=("--no-such-option",))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_chain_is_left_behind(number: signal.Signals) -> None:
    """The program that started it is interrupted, or killed with no chance to tidy up."""
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert starter.stdout is not None
    anvil = int(starter.stdout.readline())
    assert is_alive(anvil)
    os.kill(starter.pid, number)
    starter.wait(10)
    assert wait_for_end(anvil)
