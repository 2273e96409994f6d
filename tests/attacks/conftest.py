"""Markets of the attacks: one chain for each set of parameters; every test starts from the block after deployment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import FORCED, QUIET, Arena, arena_on, market_on_a_chain

from assay.market.local import LocalMarket
from assay.program.graph import Graph
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile

# The tiny task is that of the market's tests.
sys.path.append(str(Path(__file__).parents[1] / "market"))


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    """A task that trains in no time."""
    from tiny_market import make_task

    return make_task(tmp_path_factory.mktemp("task") / "tiny")


@pytest.fixture(scope="session")
def momentum_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    """The same with an optimizer that has a state."""
    return momentum_task_of(4, tmp_path_factory)


@pytest.fixture(scope="session")
def tolerant_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    """The task with momentum in tolerant mode."""
    return momentum_task_of(4, tmp_path_factory, tolerant=True)


@pytest.fixture(scope="session")
def half_batch(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The graph of that task with half its batch."""
    return momentum_task_of(2, tmp_path_factory)[1].graph


def momentum_task_of(batch: int, folders: pytest.TempPathFactory, tolerant: bool = False) -> tuple[TaskFile, Bundle]:
    """The tiny task trained with momentum, in batches of this size."""
    from tiny_market import make_task

    changes = {
        "learning_rate = 0.1": "learning_rate = 0.05\nmomentum = 0.9",
        "batch_size = 4": f"batch_size = {batch}",
    }
    return make_task(folders.mktemp("task") / "momentum", tolerant, changes=changes)


@pytest.fixture(scope="session")
def quiet_market() -> Iterator[LocalMarket]:
    """No round is forced."""
    with market_on_a_chain(QUIET) as local:
        yield local


@pytest.fixture(scope="session")
def forced_market() -> Iterator[LocalMarket]:
    """Every round is forced."""
    with market_on_a_chain(FORCED) as local:
        yield local


@pytest.fixture
def arena(quiet_market: LocalMarket, tmp_path: Path, tiny_task: tuple[TaskFile, Bundle]) -> Iterator[Arena]:
    with arena_on(quiet_market, tmp_path, tiny_task) as found:
        yield found


@pytest.fixture
def forced_arena(forced_market: LocalMarket, tmp_path: Path, tiny_task: tuple[TaskFile, Bundle]) -> Iterator[Arena]:
    with arena_on(forced_market, tmp_path, tiny_task) as found:
        yield found
