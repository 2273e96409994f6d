"""The specification's table of parameters says what is deployed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from assay.market.parameters import COIN, PUBLIC

SPECIFICATION = Path(__file__).parents[3] / "contracts" / "SPECIFICATION.md"
AMOUNTS = {
    "seat", "answer_bond", "case_bond", "accusation_bond", "demand_price", "draw_bounty", "solver_stake_floor",
    "fee_floor", "fee_per_terawork",
}  # fmt: skip


def camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def test_every_default_stands_in_the_specification() -> None:
    section = SPECIFICATION.read_text().split("## 6. Parameters")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in section.splitlines() if line.startswith("|")]
    written = dict(rows[2:])
    expected = {
        camel_case(field.name): f"{getattr(PUBLIC, field.name) / COIN:g} coin"
        if field.name in AMOUNTS
        else f"{getattr(PUBLIC, field.name):,}".replace(",", " ")
        for field in fields(PUBLIC)
    }
    assert written == expected
