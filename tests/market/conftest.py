"""Fixtures of the market's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from group_market import make_group_task
from tiny_market import World, make_task, tiny_world
from torch._C._distributed_c10d import TCPStore

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


@pytest.fixture(scope="session")
def group_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    """An exact task that a group divides."""
    return make_group_task(tmp_path_factory.mktemp("group") / "task")


@pytest.fixture(scope="session")
def compressed_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    """A tolerant task whose boundary is compressed."""
    return make_group_task(tmp_path_factory.mktemp("compressed") / "task", "tile-8-8")


@pytest.fixture(scope="session")
def local_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    """An exact task that two members train side by side."""
    return make_group_task(tmp_path_factory.mktemp("local") / "task", local_members=2)


@pytest.fixture
def local_world(tmp_path: Path, local_task: tuple[TaskFile, Bundle]) -> Iterator[World]:
    """A fresh market on which `local_task` is submitted."""
    with tiny_world(tmp_path, *local_task) as found:
        yield found


@pytest.fixture
def group_world(tmp_path: Path, group_task: tuple[TaskFile, Bundle]) -> Iterator[World]:
    """A fresh market on which `group_task` is submitted."""
    with tiny_world(tmp_path, *group_task) as found:
        yield found


@pytest.fixture
def compressed_world(tmp_path: Path, compressed_task: tuple[TaskFile, Bundle]) -> Iterator[World]:
    """A fresh market on which `compressed_task` is submitted."""
    with tiny_world(tmp_path, *compressed_task) as found:
        yield found


@pytest.fixture
def store() -> TCPStore:
    """Where a group meets."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
