"""The committed golden vectors are those of the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.arithmetic import vectors

DIRECTORY = Path(__file__).parents[2] / "vectors"


@pytest.mark.parametrize("group", vectors.GROUPS)
def test_committed_vectors_are_current(group: str) -> None:
    # If this fails after a wanted change: python -m assay.arithmetic.vectors
    assert (DIRECTORY / f"{group}.json").read_text() == vectors.render(group)


@pytest.mark.parametrize("group", vectors.GROUPS)
def test_cases_have_the_declared_shape(group: str) -> None:
    content = json.loads((DIRECTORY / f"{group}.json").read_text())
    for operation in content["operations"]:
        kinds = operation["arguments"]
        for case in operation["cases"]:
            words = case.split()
            assert len(set(words[-1]) - set("0123456789abcdef")) == 0
            if not kinds[0].endswith("..."):
                assert [len(word) for word in words] == [16 if kind == "u64" else 8 for kind in kinds] + [8]


def test_scalar_vectors_reach_what_is_hard() -> None:
    content = json.loads((DIRECTORY / "scalar.json").read_text())
    results = {
        operation["name"]: [int(case.split()[-1], 16) for case in operation["cases"]]
        for operation in content["operations"]
    }
    for name in ("add", "mul", "div", "fma"):
        subnormal = sum(0 < word & 0x7FFFFFFF < 0x00800000 for word in results[name])
        infinite = sum(word & 0x7FFFFFFF == 0x7F800000 for word in results[name])
        assert subnormal >= 20, name
        assert infinite >= 20, name
        assert results[name].count(0x7FC00000) >= 20, name
