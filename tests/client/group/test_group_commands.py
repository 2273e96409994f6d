"""`assay group meet` and `assay group member`: where members meet, and who signs for them."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from eth_account import Account
from planned_group import planned
from torch._C._distributed_c10d import TCPStore

from assay.cli.group import group
from assay.cli.group_run import open_meeting_place
from assay.group.errors import ClusterError
from assay.market.errors import GroupAgreementError

ADDRESSES = {name: Account.create().address for name in ("ann", "ben")}


def test_members_meet_where_they_are_told_and_strangers_elsewhere_find_nothing() -> None:
    store = open_meeting_place("127.0.0.1", 0)
    member = TCPStore("127.0.0.1", store.port, is_master=False, timeout=timedelta(seconds=5))
    member.set("join", "here")
    assert store.get("join") == b"here"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", store.port), timeout=5)


def test_members_meet_on_every_address_where_none_is_named() -> None:
    store = open_meeting_place("0.0.0.0", 0)
    for host in ("127.0.0.1", "127.0.0.2"):
        socket.create_connection((host, store.port), timeout=5).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "256.0.0.1"])
def test_where_nobody_can_listen_the_address_is_named(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"cannot listen on {host}:{port}: .*choose another"):
            open_meeting_place(host, port)


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of a member that signs; nothing is read or trained before the signers are known."""
    planned(tmp_path, tuple(ADDRESSES), 2)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "key.json").write_text("{}")
    monkeypatch.setattr("assay.accounts.open_keystore", lambda *_: Account.create())
    monkeypatch.setattr("assay.accounts.read_password", lambda *_: "")
    places = {"plan": "plan.toml", "cluster": "cluster.toml", "folder": "work", "keystore": "key.json"}
    options = [f"--{key}={tmp_path / name}" for key, name in places.items()]
    return ["member", str(tmp_path / "bundle"), "--name=ann", "--meet=127.0.0.1:1", *options]


def test_signers_count_however_their_addresses_are_written(member: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seats: list[Any] = []

    def bundle(_path: Path) -> Any:
        raise AssertionError("read")

    def seat(*fields: Any) -> None:
        seats.append(fields)

    monkeypatch.setattr("assay.group.execution.run.Seat", seat)
    monkeypatch.setattr("assay.tasks.bundle.load_bundle", bundle)
    signers = [f"--signer={name}={address.lower()}" for name, address in ADDRESSES.items()]
    CliRunner().invoke(group, [*member, *signers])
    assert seats[0][5] == ADDRESSES


def test_a_member_for_whom_nobody_signs_is_named(member: list[str]) -> None:
    result = CliRunner().invoke(group, [*member, f"--signer=ann={ADDRESSES['ann']}"])
    assert isinstance(result.exception, ClusterError)
    assert "who signs for ben" in str(result.exception)


def test_a_signer_that_is_no_address_is_named(member: list[str]) -> None:
    result = CliRunner().invoke(group, [*member, "--signer=ann=0x12"])
    assert isinstance(result.exception, GroupAgreementError)
    assert "0x12" in str(result.exception)
