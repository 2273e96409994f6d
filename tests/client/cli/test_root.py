"""The command line's top: version, help, errors for people and for machines."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from assay import __version__
from assay.cli import main
from assay.cli.registry import COMMANDS
from assay.cli.root import cli
from assay.roles.logs import TextFormatter
from assay.tasks.errors import BundleError
from assay.tasks.fields import Fields


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert __version__ in capsys.readouterr().out


def test_help_lists_the_commands_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    listed = capsys.readouterr().out
    assert "doctor" in listed
    assert COMMANDS["doctor"].summary in listed


def test_asking_for_the_version_imports_no_heavy_package() -> None:
    code = "import sys, assay.cli.root; print([name for name in ('torch', 'numba', 'web3') if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_roles_that_follow_the_market_do_without_pytorch() -> None:
    """It alone takes more memory than following a thousand tasks may."""
    code = "import sys, assay.bench.watcher; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


@pytest.mark.parametrize("name", cli.list_commands(None))  # type: ignore[arg-type]
def test_every_listed_command_loads_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert "Usage: assay " + name in capsys.readouterr().out


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("no-such-command") == 2
    assert "no-such-command" in capsys.readouterr().err


def test_an_error_is_also_machine_readable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_ANVIL", "/no/such/anvil")
    assert run("chain", "up", "--json") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    answer = json.loads(shown.err)
    assert answer["code"] == "anvil-not-found"
    assert "/no/such/anvil" in answer["error"]


def test_words_of_a_strangers_file_do_not_command_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object, **_more: object) -> None:
        Fields({"\x1b]0;owned\x07": 1}, "manifest", BundleError).finish()

    monkeypatch.setattr(cli, "main", refuse)
    assert run("task", "audit", "1") == 1
    told = capsys.readouterr().err
    assert "manifest.\\x1b]0;owned\\x07 is unknown" in told
    assert "\x1b" not in told
    record = logging.LogRecord("assay", logging.WARNING, "", 0, "refused: a\x1b[8m\n12:00:00 info paid", (), None)
    assert "a\\x1b[8m\\n12:00:00 info paid" in TextFormatter().format(record)


def test_wrong_usage_is_machine_readable_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("task", "list", "--json", "--no-such-flag") == 2
    answer = json.loads(capsys.readouterr().err)
    assert answer["code"] == "usage"
    assert "--no-such-flag" in answer["error"]


def test_a_file_that_cannot_be_used_is_named_with_what_to_check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_PASSWORD", "only for tests")
    (tmp_path / "file").write_text("no folder")
    key = tmp_path / "file" / "key.json"
    assert run("account", "import", str(key), "--key-file", str(tmp_path), "--json") == 2  # a folder is no key file
    assert json.loads(capsys.readouterr().err)["code"] == "usage"
    (tmp_path / "digits").write_text("0x" + "11" * 32)
    assert run("account", "import", str(key), "--key-file", str(tmp_path / "digits"), "--json") == 1
    assert str(tmp_path / "file") in json.loads(capsys.readouterr().err)["error"]


def test_a_key_file_that_is_none_is_told_and_not_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "key.json"
    damaged.write_bytes(b"\xff\xfe")
    assert run("account", "show", "--set", f"account.keystore={damaged}") == 1
    assert f"{damaged} is no key file" in capsys.readouterr().err
    assert run("account", "import", str(tmp_path / "new.json"), "--key-file", str(damaged)) == 1
    assert f"{damaged} holds no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("account", "show", "0x12"), ("status", "--account", "0x12"), ("task", "list", "--submitter", "0x12")]
)
def test_what_is_no_address_is_wrong_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, "--json") == 2
    answer = json.loads(capsys.readouterr().err)
    assert answer["code"] == "usage"
    assert "'0x12' is no address" in answer["error"]


def test_an_amount_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for amount in ("1e999999", "nan", "-1", "much"):
        assert run("solver", "run", "--price", amount, "--json") == 2
        assert "is no amount of coins" in json.loads(capsys.readouterr().err)["error"]
