"""`assay deploy` and `assay chain up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from assay.accounts import import_keystore
from assay.cli.deploy import deploy
from assay.errors import AssayError
from assay.market.connection import connect
from assay.market.parameters import LOCAL, PUBLIC

from .conftest import World

CLIENT = Path(__file__).resolve().parents[3] / "client"


def test_deploy_writes_a_file_that_connects(world: World, tmp_path: Path) -> None:
    import_keystore(tmp_path / "key", world.running.chain.private_keys[5], "only for tests", iterations=2)
    environment = {
        "ASSAY_CHAIN_URL": world.running.chain.url,
        "ASSAY_ACCOUNT_KEYSTORE": str(tmp_path / "key"),
        "ASSAY_PASSWORD": "only for tests",
        "ASSAY_STATE_FOLDER": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "none"),
    }
    output = tmp_path / "out" / "deployment.json"
    words = ["--windows", "local", "--parameter", "commit_seconds=77", "--output", str(output), "--json"]
    result = CliRunner().invoke(deploy, words, env=environment, catch_exceptions=False, standalone_mode=False)
    assert json.loads(result.stdout)["file"] == str(output)
    market = connect(world.running.chain.url, output)
    assert market.parameters == LOCAL.with_changes({"commit_seconds": 77})
    assert market.court.ask("ALLOWANCE") == 120
    shown = CliRunner().invoke(deploy, ["--show-parameters", "--json"], catch_exceptions=False, standalone_mode=False)
    assert json.loads(shown.stdout) == PUBLIC.as_json()
    for wrong in (["--parameter", "commit_seconds"], ["--parameter", "comit_seconds=1"]):
        with pytest.raises(AssayError):
            CliRunner().invoke(deploy, wrong, env=environment, catch_exceptions=False, standalone_mode=False)


def test_chain_up_has_the_market(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "assay", "chain", "up", "--json", "--block-time", "0.2", "--accounts", "3"]
    environment = {**os.environ, "PYTHONPATH": str(CLIENT)}
    with subprocess.Popen(
        [*command, "--deployment", str(tmp_path / "deployment.json")], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        record = json.loads(process.stdout.readline())
        market = connect(record["url"], Path(record["deployment"]))
        assert dict(market.addresses) == record["contracts"]
        assert market.parameters == LOCAL
        assert len(record["addresses"]) == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
