"""A short load with every misfortune; `assay bench load` plays a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.bench.load.market import LoadSettings, run_load

pytestmark = pytest.mark.slow


def test_many_tasks_under_kills_reorganisations_and_faults_end_and_leave_the_accounts_balanced(tmp_path: Path) -> None:
    settings = LoadSettings(
        tasks=4, seed=4, at_once=4, is_large=False, kills=0.02, reorganisations=0.05, store_faults=0.05,
        endpoint_faults=0.003,
    )  # fmt: skip
    found = run_load(settings, tmp_path, lambda text: None)
    assert found["faults_of_the_accounts"] == []
    assert found["done_twice"] == []
    assert found["left_over_wei"] == {}
    assert found["unfinished"] == []
    assert sum(found["ends"].values()) == found["tasks"] == 4
    # Otherwise this tries nothing. With this seed each kind strikes early.
    assert min(found["kills"], found["reorganisations"], found["store_faults"], found["endpoint_faults"]) > 0
    assert found["honest_lost"] == []
