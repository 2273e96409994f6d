"""The five acts, played by separate processes through chain and store, as a person would see them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

LIMIT = 560  # seconds, on a busy machine; 180 on two free cores


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `assay demo --json` prints."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "assay", "demo", "--json", "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e"])
def test_an_act_ends_as_it_must(played: dict[str, Any], name: str) -> None:
    (act,) = (each for each in played["acts"] if each["name"] == name)
    assert [check["check"] for check in act["checks"] if not check["ok"]] == []
    assert act["ok"]
    assert act["transactions"] > 5


def test_the_proven_model_lies_where_it_is_said_and_knows_digits(played: dict[str, Any]) -> None:
    assert Path(played["model"]["path"]).stat().st_size > 4 * (64 * 32 + 32 * 10)
    assert played["model"]["test_accuracy"] > 0.9


def test_the_case_ends_with_one_operation_that_contradicts_the_claim(played: dict[str, Any]) -> None:
    from assay.arithmetic.binary32 import fma

    case = played["case"]
    operation = case["operation"]
    assert operation["body"] == "fold_fma"
    a, b = (int(word, 16) for word in operation["operands"])
    result = fma(a, b, int(operation["accumulator"], 16))
    assert f"{result:#010x}" == operation["result"] != operation["claimed"]
    assert len(case["moves"]) <= 30
    assert case["gas"] < 3_000_000
    assert case["moves"][-1]["function"] == "prove"
    assert case["moves"][-1]["gas"] < 500_000


def test_coin_is_neither_made_nor_lost(played: dict[str, Any]) -> None:
    assert int(played["ledger"]["balance"]) >= int(played["ledger"]["held"]) > 0
    liar = {act["name"]: act for act in played["acts"]}["c"]
    lost = int(liar["before"].get("lying verifier", 10**22)) - int(liar["after"]["lying verifier"])
    assert lost >= 10**18  # its seat, and gas
