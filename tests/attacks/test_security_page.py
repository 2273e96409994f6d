"""SECURITY.md names tests that exist, and every attack in this folder is named there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
IN_CODE = re.compile(r"`([^`]+)`")
FILE = re.compile(r"(?:[\w/]+/)?test_\w+\.py")
FUNCTION = re.compile(r"test_\w+")


def functions_of(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


FILES = {path.relative_to(ROOT / "tests").as_posix(): path for path in (ROOT / "tests").rglob("test_*.py")}
ATTACKS = {
    name for path in (ROOT / "tests" / "attacks").glob("test_*_attacks.py") for name in functions_of(path)
    if name.startswith("test_")
}  # fmt: skip
NAMED = sorted({name for code in IN_CODE.findall(PAGE) for name in re.split(r"[:\s]+", code.split("[")[0])})


def files_named(name: str) -> list[Path]:
    """The test files that a name on the page means."""
    wanted = name.removeprefix("tests/")
    return [path for place, path in FILES.items() if f"/{place}".endswith(f"/{wanted}")]


@pytest.mark.parametrize("name", [name for name in NAMED if FILE.fullmatch(name)])
def test_a_file_of_tests_that_the_page_names_is_there(name: str) -> None:
    assert len(files_named(name)) == 1


def test_every_test_that_the_page_names_is_there() -> None:
    there = {name for path in FILES.values() for name in functions_of(path)}
    named = {name for name in NAMED if FUNCTION.fullmatch(name)}
    assert len(named) >= 30
    assert named <= there, f"no such tests: {sorted(named - there)}"


def test_every_attack_is_on_the_page() -> None:
    assert len(ATTACKS) >= 30
    assert set(NAMED) >= ATTACKS, f"not on the page: {sorted(ATTACKS - set(NAMED))}"
