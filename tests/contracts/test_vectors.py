"""The golden vectors that every implementation of the arithmetic is held to, on chain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brownie
import numpy as np
import pytest

from assay.program.encoding import encode_operator
from assay.program.operator import BODY_RULES, Body, ElementType, Operand, Operator, Source
from binary32_cases import Patterns, pack, unpack

VECTORS = Path(__file__).parents[1] / "vectors"
SAME_NAME = ("add", "sub", "mul", "div", "fma", "sqrt", "neg", "eq", "lt", "le")
FUNCTIONS = ("exp", "log", "tanh", "erf", "sin", "cos", "uniform")
CODES: dict[str, int] = {name: Body[name.upper()] for name in (*SAME_NAME, *FUNCTIONS)} | {
    "absolute": Body.ABS,
    "maximum": Body.MAX,
    "minimum": Body.MIN,
    "float_to_int": Body.TO_INT,
    "int_to_float": Body.TO_FLOAT,
    "permutation": Body.PERMUTE,
    "philox": 0x80,
}
FOLDS = {
    "fold_fma": Body.FOLD_FMA,
    "fold_add": Body.FOLD_ADD,
    "fold_maximum": Body.FOLD_MAX,
    "fold_argmax": Body.FOLD_ARGMAX,
    "fold_add_if_equal": Body.FOLD_ADD_IF,
    "fold_integer_add": Body.FOLD_IADD,
}
NOT_SCALARS_ON_CHAIN = {"normal", "select"}  # `normal` is lowered to operators; `select` is tested with the operators


@dataclass(frozen=True)
class Vectors:
    """All cases of one function; each case is its words, the result last."""

    name: str
    cases: tuple[tuple[int, ...], ...]


def load() -> list[Vectors]:
    """Every function of every vector file."""
    found = []
    for path in sorted(VECTORS.glob("*.json")):
        for operation in json.loads(path.read_text())["operations"]:
            cases = []
            for case in operation["cases"]:
                # A number of 64 bits is two words, the upper one first.
                words = [word[i : i + 8] for word in case.split() for i in range(0, len(word), 8)]
                cases.append(tuple(int(word, 16) for word in words))
            found.append(Vectors(operation["name"], tuple(cases)))
    return found


ALL = load()


@pytest.fixture(autouse=True)
def isolation() -> None:
    """Nothing here changes the chain: no snapshots, which take longer than these tests."""


@pytest.fixture(scope="module")
def scalars() -> Any:
    return brownie.accounts[0].deploy(brownie.Binary32Harness)


@pytest.fixture(scope="module")
def operators() -> Any:
    return brownie.accounts[0].deploy(brownie.OperatorsHarness)


def test_every_vector_file_is_covered() -> None:
    names = {vectors.name for vectors in ALL}
    assert names == set(CODES) | set(FOLDS) | NOT_SCALARS_ON_CHAIN


@pytest.mark.parametrize("vectors", [v for v in ALL if v.name in CODES], ids=lambda vectors: vectors.name)
def test_scalar_function_gives_the_golden_results(scalars: Any, vectors: Vectors) -> None:
    table = np.array(vectors.cases, dtype=np.uint32)
    operands, expected = table[:, :-1], table[:, -1]
    if vectors.name == "permutation":
        # The harness takes an epoch of 64 bits, then a word that is not used, position and count.
        zeros = np.zeros((len(table), 1), dtype=np.uint32)
        operands = np.hstack([operands[:, :2], zeros, operands[:, 2:3], zeros, operands[:, 3:]])
    found = unpack(bytes(scalars.evaluate.call(CODES[vectors.name], pack(operands))))
    assert found.tolist() == expected.tolist()


@pytest.mark.smoke
@pytest.mark.parametrize("vectors", [v for v in ALL if v.name in FOLDS], ids=lambda vectors: vectors.name)
def test_fold_gives_the_golden_results(operators: Any, vectors: Vectors) -> None:
    body = FOLDS[vectors.name]
    rule = BODY_RULES[body]
    kind = ElementType.INT if rule.output == "i" else ElementType.FLOAT
    for case in vectors.cases:
        columns: Patterns = np.array(case[:-1], dtype=np.uint32).reshape(-1, len(rule.operands))
        terms = len(columns)
        reads = tuple(Operand(Source.STATE, i, terms, (1,)) for i in range(len(rule.operands)))
        record = encode_operator(Operator(body, kind, (), reads, (terms,)))
        tensors = [pack(column) for column in np.ascontiguousarray(columns.T)]
        assert unpack(bytes(operators.output.call(record, tensors, (0, 0)))).tolist() == [case[-1]]
