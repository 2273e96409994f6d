from __future__ import annotations

from typing import Any

import pytest

import assay.bench.group_local_steps as bench
from assay.bench.group import GroupBenchSettings, run_group_bench
from assay.group.errors import GroupMessageError

PARAMETERS = 818_176
"""Of the character GPT."""


def test_one_and_two_members_are_measured_by_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {1: ["aa"], 2: ["aa", "aa"]}
    settings: list[dict[str, Any]] = []

    def run(_task: object, members: int, *_arguments: object, **given: Any) -> list[dict[str, Any]]:
        settings.append(given)
        return [
            {"round_seconds": 3.0 - members - 0.25 * number, "roots": ["00", end], "sent_bytes": 400 * (members - 1)}
            for number, end in enumerate(ends[members])
        ]

    monkeypatch.setattr(bench, "run_local_group", run)
    found = run_group_bench(GroupBenchSettings(figures=("local-steps",)))["local_steps"]
    assert settings == [{"signed": True, "local_steps": bench.SETTINGS}] * 2
    assert found["round_seconds"] == {"one": 2.0, "two": 1.0}
    assert (found["speedup"], found["sent_bytes"]) == (2.0, 100)
    # A byte a parameter, with the scales of their blocks.
    assert PARAMETERS < found["message_bytes"] < 1.02 * PARAMETERS
    assert found["fewer_bytes"] == 4 * PARAMETERS * bench.SETTINGS.inner_steps / found["message_bytes"]
    ends[2][0] = "bb"
    with pytest.raises(GroupMessageError, match="ended in different states"):
        bench.local_steps_figures(lambda _: None)


@pytest.mark.slow
def test_rounds_are_trained_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 2)
    found = bench.local_steps_figures(lambda _: None)
    assert 0 < found["round_seconds"]["two"] < 60
    # In two rounds: a message and a replica each, and what the moments of the optimizer take.
    assert found["sent_bytes"] > found["message_bytes"] + 12 * PARAMETERS
