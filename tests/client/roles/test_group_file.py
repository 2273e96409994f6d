from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from eth_account import Account

from assay.cli.group import group
from assay.group.cost import StepTime
from assay.group.plan import GroupPlan, write_plan
from assay.market.errors import GroupAgreementError
from assay.market.group_agreement import agreement_signer, read_agreement, sign_agreement, write_agreement
from assay.market.types import MILLION
from assay.roles.group_file import read_group_file

FACTORY = "0x" + 40 * "7"


def group_file(folder: Path, line: str) -> Path:
    """The template, with another line in the place of what is paid for presence."""
    assert CliRunner().invoke(group, ["new", str(folder)]).exit_code == 0
    path = folder / "group.toml"
    lines = [line if each.startswith("paid_for_presence") else each for each in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("line", "rate"),
    [
        ("paid_for_presence = 0.8", 800_000), ("paid_for_presence = 1", MILLION), ("paid_for_presence = 0", 0),
        ("paid_for_presence = 0.000001", 1), ("", 0),
    ],
)  # fmt: skip
def test_the_part_of_a_share_that_is_paid_for_presence_is_agreed_on(tmp_path: Path, line: str, rate: int) -> None:
    file = read_group_file(group_file(tmp_path, line)).draft(1, 31337, FACTORY, 2)
    assert file.agreement.presence_rate == rate
    write_agreement(file, tmp_path / "agreement.json")
    assert read_agreement(tmp_path / "agreement.json") == file


@pytest.mark.parametrize("value", ["1.01", "-0.1", '"most"', "true", "nan"])
def test_what_is_no_part_of_a_share_is_refused(tmp_path: Path, value: str) -> None:
    terms = read_group_file(group_file(tmp_path, f"paid_for_presence = {value}"))
    with pytest.raises(GroupAgreementError, match="limits.paid_for_presence"):
        terms.draft(1, 31337, FACTORY, 2)


def test_what_is_paid_for_presence_is_signed(tmp_path: Path) -> None:
    agreement = read_group_file(group_file(tmp_path, "paid_for_presence = 0.8")).draft(1, 31337, FACTORY, 2).agreement
    account = Account.create()
    signature = sign_agreement(agreement, 31337, FACTORY, account)
    assert agreement_signer(agreement, 31337, FACTORY, signature) == account.address
    assert agreement_signer(replace(agreement, presence_rate=0), 31337, FACTORY, signature) != account.address


def test_an_agreement_without_it_is_of_an_older_version_and_refused(tmp_path: Path) -> None:
    file = read_group_file(group_file(tmp_path, "")).draft(1, 31337, FACTORY, 2)
    path = tmp_path / "agreement.json"
    write_agreement(file, path)
    document = json.loads(path.read_text())
    del document["agreement"]["presence_rate"]
    path.write_text(json.dumps(document))
    with pytest.raises(GroupAgreementError, match="presence_rate"):
        read_agreement(path)


@pytest.mark.parametrize(
    ("line", "seconds"), [("record_hours = 48", 172_800), ("record_hours = 0.1", 3600), ("", 86_400)]
)
def test_members_answer_for_their_stages_as_long_as_their_records_are_kept(
    tmp_path: Path, line: str, seconds: int
) -> None:
    path = group_file(tmp_path, "")
    path.write_text(
        "\n".join(line if each.startswith("record_hours") else each for each in path.read_text().splitlines())
    )
    pipelines = (("ann", "ben"),)
    made = GroupPlan(pipelines, (1, 1), (), "none", 1, StepTime(0.0, 0.0, 0.0, 0.0), 0.0, 0.0, False)
    write_plan(made, tmp_path / "plan.toml")
    terms = read_group_file(path)
    account = terms.members[0].account
    draft = terms.draft(1, 31337, FACTORY, 2)
    plan, seat = terms.training(draft, account, "")
    assert (plan, seat.record_seconds) == (made, seconds)


@pytest.mark.parametrize("value", ['"half"', '"nan"', "inf", "0.0000001", "2"])
def test_what_is_no_share_is_refused(tmp_path: Path, value: str) -> None:
    path = group_file(tmp_path, "")
    path.write_text(path.read_text().replace("share = 0.5", f"share = {value}"))
    with pytest.raises(GroupAgreementError, match="the share of ann is"):
        read_group_file(path)


@pytest.mark.parametrize("value", ["0x1g", "0x" + 65 * "1", "-1", ""])
def test_what_is_no_task_is_refused(tmp_path: Path, value: str) -> None:
    path = group_file(tmp_path, "")
    path.write_text(path.read_text().replace('# task = "0x1f.."', f'task = "{value}"'))
    with pytest.raises(GroupAgreementError, match="limits.task is"):
        read_group_file(path).draft(1, 31337, FACTORY, 2)
