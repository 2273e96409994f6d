"""Folds that are convolutions are recognised as such, and only those."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay.engine import convolution_pattern
from assay.engine.convolution_pattern import Part, recognise_convolution
from assay.engine.convolution_shape import Convolution
from assay.engine.cpu.launches import Addresses, ConvolutionLaunch
from assay.program.lowering import convolution as lowering
from assay.program.lowering import view as views
from assay.program.lowering.builder import Builder
from assay.program.operator import ElementType, Operator, Source

from . import sequential

SHAPES = {
    "padded": Convolution(3, 5, 16, 16, 20, (3, 3), padding=(1, 1)),
    "stride two": Convolution(3, 4, 8, 9, 33, (3, 3), stride=(2, 2), padding=(1, 1)),
    "one image, one channel": Convolution(1, 1, 28, 28, 6, (5, 5), padding=(2, 2)),
    "unpadded": Convolution(2, 3, 12, 10, 8, (3, 3)),
    "unpadded, one channel": Convolution(2, 1, 12, 10, 8, (5, 5)),
    "unpadded, stride two": Convolution(4, 3, 12, 11, 8, (2, 2), stride=(2, 2)),
    "one by one, stride two": Convolution(4, 16, 8, 12, 6, (1, 1), stride=(2, 2)),
    "unequal axes": Convolution(3, 4, 12, 7, 5, (5, 3), stride=(1, 3), padding=(3, 1)),
    "dilated": Convolution(2, 3, 12, 12, 5, (3, 3), stride=(2, 1), padding=(2, 2), dilation=(2, 2)),
    "groups": Convolution(2, 6, 8, 8, 9, (3, 3), padding=(1, 1), groups=3),
    "depthwise": Convolution(4, 8, 8, 8, 8, (3, 3), padding=(1, 1), groups=8),
}


def _operators(shape: Convolution) -> list[Operator]:
    """Forward, input gradient and weight gradient as the lowering writes them: x is data 0, dy data 1, w state 0."""
    builder = Builder()
    x = views.whole(ElementType.FLOAT, shape.x_shape, Source.DATA, 0)
    dy = views.whole(ElementType.FLOAT, shape.y_shape, Source.DATA, 1)
    w = views.whole(ElementType.FLOAT, shape.w_shape, Source.STATE, 0)
    geometry = (shape.stride, shape.padding, shape.dilation, False, [0, 0], shape.groups)
    lowering.convolution(builder, x, w, None, *geometry)
    lowering.convolution_backward(builder, dy, x, w, None, *geometry, [True, True, False])
    assert len(builder.operators) == 3
    return builder.operators


def _run(operator: Operator, arrays: dict[tuple[Source, int], sequential.Floats]) -> sequential.Floats:
    pattern = recognise_convolution(operator)
    assert pattern is not None
    out = np.full(operator.elements, np.nan, np.float32)
    launch = ConvolutionLaunch(0, operator, pattern)
    addresses = Addresses({**arrays, (Source.OPERATOR, 0): out}, 0)
    launch.run(launch.prepare(addresses), addresses, 0, 2)
    return out


@pytest.mark.parametrize("name", SHAPES)
def test_lowered_convolutions_run_on_their_kernels_with_the_same_bits(name: str) -> None:
    shape = SHAPES[name]
    x, w, dy = (sequential.random_floats(s, i) for i, s in enumerate((shape.x_shape, shape.w_shape, shape.y_shape)))
    arrays = {(Source.DATA, 0): x, (Source.DATA, 1): dy, (Source.STATE, 0): w}
    expected = (
        sequential.convolution(shape, x, w),
        sequential.convolution_input_gradient(shape, dy, w),
        sequential.convolution_weight_gradient(shape, x, dy),
    )
    for operator, wanted in zip(_operators(shape), expected, strict=True):
        assert sequential.same_bits(_run(operator, arrays).reshape(wanted.shape), wanted)


def test_the_part_and_the_shape_are_found() -> None:
    shape = SHAPES["stride two"]
    found = [recognise_convolution(operator) for operator in _operators(shape)]
    assert [each and (each.part, each.shape) for each in found] == [(part, shape) for part in Part]


def test_one_changed_coefficient_is_no_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution_pattern, "SMALL_CONVOLUTION", 1)
    for operator in _operators(SHAPES["stride two"]):
        for place, operand in enumerate(operator.operands):
            assert recognise_convolution(operator) is not None
            for i, stride in enumerate(operand.stride):
                changed = replace(operand, stride=(*operand.stride[:i], stride + 1, *operand.stride[i + 1 :]))
                operands = tuple(changed if j == place else each for j, each in enumerate(operator.operands))
                assert recognise_convolution(replace(operator, operands=operands)) is None
            if operand.guards:
                changed = replace(operand, fill=0x3F800000)
                operands = tuple(changed if j == place else each for j, each in enumerate(operator.operands))
                assert recognise_convolution(replace(operator, operands=operands)) is None
