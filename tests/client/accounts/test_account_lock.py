"""One process for an account on a chain."""

from __future__ import annotations

import os
import signal
import time

import pytest

from assay.accounts import AccountInUseError, AccountLock

ADDRESS = "0x" + "ab" * 20
CHAIN = f"test-{os.getpid()}"


def test_an_account_in_use_is_refused_with_its_process_and_what_to_do() -> None:
    with (
        AccountLock(ADDRESS, CHAIN),
        pytest.raises(AccountInUseError, match=rf"{ADDRESS} is in use .* process {os.getpid()}: .*assay node run"),
    ):
        AccountLock(ADDRESS, CHAIN)
    AccountLock(ADDRESS, CHAIN).close()


def test_another_account_and_another_chain_are_not_concerned() -> None:
    with AccountLock(ADDRESS, CHAIN), AccountLock("0x" + "cd" * 20, CHAIN), AccountLock(ADDRESS, CHAIN + "-other"):
        pass


def test_a_killed_process_holds_no_account() -> None:
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        lock = AccountLock(ADDRESS, CHAIN)
        os.write(told, b"held")
        time.sleep(60)
        lock.close()
        os._exit(0)
    try:
        assert os.read(ready, 4) == b"held"
        with pytest.raises(AccountInUseError, match=f"process {child}"):
            AccountLock(ADDRESS, CHAIN)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
    AccountLock(ADDRESS, CHAIN).close()
