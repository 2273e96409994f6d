"""A node is opened with what the settings say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.engine.cpu import isa
from assay.roles import start
from assay.settings import load_settings
from assay.state import StateFolder


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The workbench of a node that was opened without a chain, by its settings."""

    @contextlib.contextmanager
    def sender(*_words: object) -> Iterator[object]:
        with StateFolder(tmp_path / "state") as state:
            yield SimpleNamespace(state=state)

    monkeypatch.setattr(start, "open_market", lambda _settings: None)
    monkeypatch.setattr(start, "open_sender", sender)
    monkeypatch.setattr(start, "Node", lambda _market, _sender, _state, bench, *_more: bench)
    monkeypatch.setattr(start, "set_up_logs", lambda *_words: None)

    def open_with(**flags: object) -> Any:
        named = {name.replace("__", "."): value for name, value in flags.items()}
        named |= {"state.folder": str(tmp_path), "storage.folder": str(tmp_path / "store")}
        with start.open_node(load_settings(named, environment={}), []) as bench:
            return bench

    return open_with


def test_a_role_fetches_no_larger_files_than_the_settings_allow(opened: Any) -> None:
    limits = opened(storage__limit_mib=3).limits
    assert {limits.of(name) for name in ("program", "graph", "initial", "data")} == {3 << 20}
    assert opened(storage__limit_mib=1 << 20).limits.of("data") == 1 << 40


def test_a_role_computes_on_as_many_threads_as_the_settings_say(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa._Threads, "count", 5)
    opened()
    assert isa.threads() == 5
    opened(compute__threads=3)
    assert isa.threads() == 3
