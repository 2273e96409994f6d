"""Fixtures of the market's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_market import World, make_task, tiny_world

from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    """A task that trains in no time."""
    return make_task(tmp_path_factory.mktemp("task") / "tiny")


@pytest.fixture
def world(tmp_path: Path, tiny_task: tuple[TaskFile, Bundle]) -> Iterator[World]:
    """A fresh market without nodes."""
    with tiny_world(tmp_path, *tiny_task) as found:
        yield found
