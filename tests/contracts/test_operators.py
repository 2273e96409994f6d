"""Operators on chain against the executable specification: values, shapes, work, and what counts as well-formed.

ASSAY_CASES=1000000 makes these runs longer, as in test_binary32.py.
"""

from __future__ import annotations

import os
from typing import Any

import brownie
import numpy as np
import pytest

from assay.program.encoding import encode_operator
from assay.program.operator import BODY_RULES, Body, ElementType, Guard, Operand, Operator, Role, Source
from binary32_cases import pack, unpack
from operator_cases import TABLE, random_case, random_judgement

CASES = max(8, int(os.environ.get("ASSAY_CASES", "20000")) // 1600)
JUDGEMENTS = 3 * CASES
FOLDS = [body for body in Body if BODY_RULES[body].fold]


@pytest.fixture(autouse=True)
def isolation() -> None:
    """Nothing here changes the chain: no snapshots, which take longer than these tests."""


@pytest.fixture(scope="module")
def harness() -> Any:
    return brownie.accounts[0].deploy(brownie.OperatorsHarness)


@pytest.mark.parametrize("body", list(Body), ids=lambda body: body.name.lower())
def test_output_equals_the_reference(harness: Any, body: Body) -> None:
    generator = np.random.default_rng(1000 + body)
    for _ in range(CASES):
        case = random_case(generator, body)
        record = encode_operator(case.operator)
        context = (case.context.seed, case.context.step)
        found = unpack(bytes(harness.output.call(record, case.packed(), context))).tolist()
        assert found == case.output(), case.operator
        operator = case.operator
        assert tuple(harness.shapeOf.call(record)) == (operator.type, operator.elements, operator.terms)
        assert harness.workOf.call(record) == operator.work


@pytest.mark.parametrize("body", FOLDS, ids=lambda body: body.name.lower())
def test_partial_sums_equal_the_reference(harness: Any, body: Body) -> None:
    generator = np.random.default_rng(2000 + body)
    for _ in range(CASES):
        case = random_case(generator, body)
        element = int(generator.integers(0, case.operator.elements))
        context = (case.context.seed, case.context.step)
        found = harness.partialSums.call(encode_operator(case.operator), case.packed(), context, element)
        assert unpack(bytes(found)).tolist() == case.partial_sums(element), case.operator


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
def test_well_formed_means_the_same_on_chain_and_off(harness: Any, role: Role) -> None:
    generator = np.random.default_rng(3000 + role)
    accepted = refused = 0
    for body in Body:
        cases = [random_judgement(generator, body, role) for _ in range(JUDGEMENTS)]
        types = [kind for case in cases for kind in case.source_types]
        counts = [count for case in cases for count in case.source_counts]
        records = [case.record for case in cases]
        numbers = [TABLE] * len(cases)
        found = harness.areWellFormed.call(records, role, numbers, TABLE, TABLE, TABLE, types, counts)
        for case, answer in zip(cases, found, strict=True):
            assert answer == case.is_well_formed, case
            accepted += answer
            refused += not answer
    # Both answers were really asked for.
    assert min(accepted, refused) > 100


def convolution(image: int, channels: int, filters: int) -> Operator:
    """A 3 x 3 convolution with stride 2 and padding 1 of one (channels, image, image) input."""
    size, area = image // 2, image * image
    below = Guard(-1, (0, 2, 0, 0, 1, 0), 1, image)
    right = Guard(-1, (0, 0, 2, 0, 0, 1), 1, image)
    pixels = Operand(Source.STATE, 0, channels * area, (0, 2 * image, 2, area, image, 1), -image - 1, 0, (below, right))
    weights = Operand(Source.STATE, 1, filters * channels * 9, (channels * 9, 0, 0, 9, 3, 1))
    return Operator(Body.FOLD_FMA, ElementType.FLOAT, (filters, size, size), (pixels, weights), (channels, 3, 3))


def test_a_padded_strided_convolution_is_an_index_map(harness: Any) -> None:
    operator = convolution(6, 2, 3)
    generator = np.random.default_rng(11)
    image = generator.standard_normal((2, 6, 6)).astype(np.float32)
    weights = generator.standard_normal((3, 2, 3, 3)).astype(np.float32)
    tensors = [pack(image.ravel().view(np.uint32)), pack(weights.ravel().view(np.uint32))]
    found = unpack(bytes(harness.output.call(encode_operator(operator), tensors, (0, 0)))).view(np.float32)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    expected = np.einsum("cyxij,fcij->fyx", windows, weights.astype(np.float64))
    assert np.allclose(found.reshape(3, 3, 3), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "record", [b"", b"\x02", b"\x02\x00\x09\x00", b"\x02\x00\x05\x04" + bytes(100), b"\xff\x00\x00\x00" + bytes(9)]
)
def test_bytes_that_are_no_record_are_refused(harness: Any, record: bytes) -> None:
    with pytest.raises(Exception, match="MalformedRecord"):
        harness.workOf.call(record)
    assert list(harness.areWellFormed.call([record], 0, [1], 1, 1, 1, [0] * 4, [0] * 4)) == [False]
