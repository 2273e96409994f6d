"""The set-up behind the scripts: done once, redone when cut off, and clear about what stands in its way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[3] / "scripts" / "support"
sys.path.insert(0, str(SUPPORT))

import processes  # noqa: E402
import stages  # noqa: E402


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the stages take for the checkout."""
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    for name, folder in {"TOOLS": "tools", "STATE": "tools/state", "LOGS": "tools/logs"}.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(stages, name, tmp_path / folder)
    return tmp_path


def make_stage(folder: Path, work: Callable[[Path], None], key: str = "1", needs_bytes: int = 0) -> stages.Stage:
    return stages.Stage("part", "a part", key, needs_bytes, (folder / "made",), work)


def test_a_finished_stage_is_not_done_again(checkout: Path) -> None:
    done: list[int] = []

    def work(_log: Path) -> None:
        done.append(1)
        (checkout / "made").touch()

    for _ in range(2):
        stages.carry_out([make_stage(checkout, work)])
    assert len(done) == 1


@pytest.mark.parametrize("reason", ["what it depends on changed", "what it made is gone"])
def test_a_stage_is_done_again_when(reason: str, checkout: Path) -> None:
    done: list[int] = []

    def work(_log: Path) -> None:
        done.append(1)
        (checkout / "made").touch()

    stages.carry_out([make_stage(checkout, work)])
    if reason == "what it made is gone":
        (checkout / "made").unlink()
    stages.carry_out([make_stage(checkout, work, key="2" if "changed" in reason else "1")])
    assert len(done) == 2


def test_a_stage_that_was_cut_off_is_done_again(checkout: Path) -> None:
    def cut_off(_log: Path) -> None:
        (checkout / "made").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.carry_out([make_stage(checkout, cut_off)])
    done: list[int] = []
    stages.carry_out([make_stage(checkout, lambda _log: done.append(1))])
    assert done == [1]


def test_a_stage_that_does_not_make_what_it_should_fails(checkout: Path) -> None:
    with pytest.raises(stages.SetupError, match="made"):
        stages.carry_out([make_stage(checkout, lambda _log: None)])


def test_too_little_room_is_said_before_anything_is_done(checkout: Path) -> None:
    with pytest.raises(stages.SetupError, match="free some space"):
        stages.carry_out([make_stage(checkout, lambda _log: pytest.fail("started"), needs_bytes=10**18)])


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("Temporary failure in name resolution", "check the network"),
        ("npm error code ENOTFOUND", "check the network"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0", "ASSAY_PYTHON"),
        ("something nobody foresaw", "Run this again"),
    ],
)
def test_a_failing_installer_is_shown_with_what_to_try(words: str, advice: str, checkout: Path) -> None:
    log = checkout / "log"
    with pytest.raises(stages.SetupError, match=advice) as error:
        stages.install(log, [sys.executable, "-c", f"import sys; print({words!r}); sys.exit(1)"])
    assert words in str(error.value)


def test_two_set_ups_of_one_checkout_wait_for_each_other(checkout: Path) -> None:
    code = (
        "import sys, pathlib, time; sys.path.insert(0, sys.argv[1]); import stages; "
        "root = pathlib.Path(sys.argv[2]); "
        "stages.TOOLS, stages.STATE, stages.LOGS = root / 'tools', root / 'tools/state', root / 'tools/logs'\n"
        "with stages.only_one():\n"
        "    with (root / 'times').open('a') as file:\n"
        "        file.write('in '); file.flush(); time.sleep(0.3); file.write('out ')\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(SUPPORT), str(checkout)]) for _ in range(3)]
    assert [process.wait(20) for process in running] == [0, 0, 0]
    assert (checkout / "times").read_text().split() == ["in", "out"] * 3


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(process_id: int) -> bool:
    for _ in range(200):
        if not is_alive(process_id):
            return True
        time.sleep(0.02)
    return False


def test_what_a_program_started_ends_with_it_at_a_time_limit(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {note}; wait"
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["/bin/sh", "-c", script], timeout=0.5)
    assert wait_for_end(int(note.read_text()))


def test_a_program_ends_when_the_script_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        f"import sys; sys.path.insert(0, {str(SUPPORT)!r}); "
        f"import processes; processes.run([sys.executable, '-c', {child!r}])"
    )
    script = subprocess.Popen([sys.executable, "-c", code])
    while not (note.exists() and note.read_text()):
        time.sleep(0.02)
    script.kill()
    script.wait(10)
    assert wait_for_end(int(note.read_text()))


def fake_python(folder: Path, version: str, with_venv: bool) -> None:
    """A program called python3 that is the present Python with another version, or without its venv module."""
    setup = f"import sys; sys.version_info = {tuple(int(part) for part in version.split('.'))!r} + ('final', 0);"
    if not with_venv:
        setup += "sys.modules['venv'] = None;"
    program = folder / "python3"
    program.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "{setup}$2"\n')
    program.chmod(0o755)


def find_python(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}", **variables}
    for name in ("dirname", "basename", "cat"):
        (path / name).symlink_to(f"/usr/bin/{name}")
    script = path / "scripts" / "support" / "find-python"
    script.parent.mkdir(parents=True)
    script.write_text((SUPPORT / "find-python").read_text())
    return subprocess.run(["/bin/bash", script], env=environment, capture_output=True, text=True, check=False)


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    fake_python(tmp_path, "3.10.4", with_venv=True)
    result = find_python(tmp_path)
    assert result.returncode == 1
    assert "3.11" in result.stderr
    assert str(tmp_path / "python3") in result.stderr


def test_a_python_without_venv_is_named_with_what_to_install(tmp_path: Path) -> None:
    fake_python(tmp_path, "3.12.1", with_venv=False)
    result = find_python(tmp_path)
    assert result.returncode == 1
    assert "python3-venv" in result.stderr


def test_no_python_at_all_is_an_error(tmp_path: Path) -> None:
    result = find_python(tmp_path)
    assert result.returncode == 1
    assert "Install Python" in result.stderr


def test_a_good_python_is_found_even_where_the_first_is_not(tmp_path: Path) -> None:
    fake_python(tmp_path, "3.9.1", with_venv=True)
    (tmp_path / "python3.11").symlink_to(Path(sys.executable).resolve())
    result = find_python(tmp_path)
    assert result.returncode == 0
    assert os.access(result.stdout.strip(), os.X_OK)


def test_a_chosen_python_is_used(tmp_path: Path) -> None:
    result = find_python(tmp_path, ASSAY_PYTHON=sys.executable)
    assert result.stdout.strip() == sys.executable
