"""The files to start from are what their readers take, and a command never writes over a user's own."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from assay.cli.group import group
from assay.cli.task import task
from assay.group.cluster_file import PROGRAM_KEYS, read_cluster_file
from assay.group.plan import choose_plan
from assay.group.search import SearchSettings
from assay.roles.group_file import read_group_file
from assay.tasks.task_file import read_task_file
from assay.templates import TemplateError, template, write_task
from assay.training.task import Mode


def test_the_task_to_start_from_is_read_as_it_stands(tmp_path: Path) -> None:
    result = CliRunner().invoke(task, ["new", str(tmp_path / "spirals"), "--json"])
    assert result.exit_code == 0, result.output
    written = json.loads(result.output)["written"]
    assert [Path(path).name for path in written] == ["task.toml", "model.py", "samples.npz"]
    described = read_task_file(tmp_path / "spirals" / "task.toml")
    assert (described.title, described.mode, described.steps) == ("spirals", Mode.EXACT, 400)


@pytest.mark.parametrize("table", ["group", "local_steps"])
def test_a_table_that_is_left_out_can_be_put_in(tmp_path: Path, table: str) -> None:
    write_task(tmp_path)
    text = template("task.toml")
    start = text.index(f"# [{table}]")
    end = text.index("\n\n", start)
    opened = re.sub(r"^# ", "", text[start:end], flags=re.MULTILINE)
    assert table in tomllib.loads(opened)
    steps = text.replace("checkpoint_interval = 50 ", "checkpoint_interval = 100")
    (tmp_path / "task.toml").write_text(steps[: steps.index(f"# [{table}]")] + opened + text[end:])
    described = read_task_file(tmp_path / "task.toml")
    assert (described.group is not None, described.local_steps is not None) == (table == "group", table != "group")


def test_the_group_to_start_from_is_planned_and_read_as_it_stands(tmp_path: Path) -> None:
    assert CliRunner().invoke(group, ["new", str(tmp_path)]).exit_code == 0
    described = read_cluster_file(tmp_path / "cluster.toml")
    made, _ = choose_plan(
        described.cluster,
        [(described.costs(*shape), described.compression) for shape in described.shapes],
        SearchSettings(random_starts=0, iterations=10),
    )
    terms = read_group_file(tmp_path / "group.toml")
    assert terms.names == ("ann", "ben") == tuple(device.name for device in described.cluster.devices)
    assert set(terms.names) >= {name for pipeline in made.pipelines for name in pipeline}
    assert all(key in template("cluster.toml") for key in PROGRAM_KEYS - {"parameter_bytes"})


def test_what_a_user_has_written_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text("mine")
    with pytest.raises(TemplateError, match="task.toml exists: name another folder"):
        write_task(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["task.toml"]
    assert (tmp_path / "task.toml").read_text() == "mine"
