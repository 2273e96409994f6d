"""Work beside a role's loop: in lanes, tried again, given up only where nobody foresaw the error."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from assay.roles.jobs import GIVEN_UP, KEPT_SECONDS, MISTAKES, Jobs
from assay.storage.errors import StorageError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def fail_with(error: Exception) -> Callable[[], Any]:
    def piece() -> None:
        raise error

    return piece


def test_a_training_of_hours_does_not_hold_up_a_move_in_court() -> None:
    jobs, release = Jobs(), threading.Event()
    assert jobs.start("train:1", lambda: release.wait(30))
    assert jobs.start("move:7", lambda: "moved")
    until(lambda: jobs.result("move:7") == "moved")
    assert jobs.result("train:1") is None
    assert jobs.running == 1
    release.set()
    until(lambda: jobs.result("train:1") is True)


def test_work_is_begun_once_while_it_is_at_work_or_done() -> None:
    jobs, release = Jobs(), threading.Event()
    assert jobs.start("replay:1", lambda: release.wait(30))
    assert not jobs.start("replay:1", lambda: "again")
    release.set()
    until(lambda: jobs.result("replay:1") is True)
    assert not jobs.start("replay:1", lambda: "again")


class OutOfMemoryError(RuntimeError):
    """As PyTorch has one of its own."""


@pytest.mark.parametrize(
    "error",
    [
        StorageError("the store stalls"),
        OSError(28, "No space left on device"),
        MemoryError("Unable to allocate 4 GiB"),
        OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_what_fails_for_a_reason_is_tried_again_after_longer_and_longer_pauses(error: Exception) -> None:
    clock = Clock()
    jobs = Jobs(first_pause=1.0, longest_pause=3.0, clock=clock)
    for number, pause in enumerate([1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0], start=1):
        assert jobs.start("fetch:1", fail_with(error))
        until(lambda: jobs.running == 0)
        assert jobs.failures("fetch:1") == number
        assert jobs.is_waiting("fetch:1")
        clock.now += pause - 0.1
        assert not jobs.start("fetch:1", lambda: "too early")
        clock.now += 0.2
    assert jobs.start("fetch:1", lambda: "there")
    until(lambda: jobs.result("fetch:1") == "there")


def test_an_error_nobody_foresaw_is_told_with_its_trace_and_given_up_at_last(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Jobs(first_pause=0.0)
    with caplog.at_level(logging.WARNING, "assay"):
        logging.getLogger("assay").propagate = True
        for _ in range(MISTAKES):
            assert jobs.start("inspect:1", fail_with(KeyError("hostile")))
            until(lambda: jobs.running == 0)
    assert not jobs.start("inspect:1", lambda: "again")
    assert jobs.failures("inspect:1") == GIVEN_UP
    assert not jobs.is_waiting("inspect:1")
    assert "assay doctor" in caplog.records[-1].getMessage()
    assert "given up" in caplog.records[-1].getMessage()
    assert caplog.records[-1].exc_info is not None
    assert jobs.start("inspect:2", lambda: "fits")
    until(lambda: jobs.result("inspect:2") == "fits")


def test_results_are_kept_while_somebody_asks_for_them() -> None:
    clock = Clock()
    jobs = Jobs(clock=clock)
    for key in ("move:1", "move:2"):
        jobs.start(key, lambda: b"evidence")
    until(lambda: jobs.running == 0)
    for _ in range(3):
        clock.now += KEPT_SECONDS * 0.6
        assert jobs.result("move:1") == b"evidence"
        jobs.sweep()
    assert jobs.result("move:2") is None
    assert jobs.start("move:2", lambda: b"evidence")
