"""Any number of a real training step can be recomputed alone: the reference against the engine at random places."""

from __future__ import annotations

import numpy as np
import pytest

from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Bindings
from assay.program.operator import Array, Body, ElementType, Role, Source
from assay.program.reference import StepContext, evaluate_element

from . import models


def word(array: Array, position: int) -> int:
    value = array.reshape(-1)[position]
    if array.dtype == np.float32 and np.isnan(value):
        return 0x7FC00000
    return int(value.view(np.uint32))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "gpt_modern", "residual"])
def test_random_elements_of_a_step_equal_the_reference(name: str) -> None:
    program, state, data = models.traced(name)
    operators = program.section(Role.STEP).operators
    seen: dict[int, Array] = {}
    device = CpuDevice()
    full = device.compile(program, Role.STEP, [], lambda index, array: seen.__setitem__(index, array.copy()))
    bindings = Bindings({}, 7).bind(Source.STATE, state).bind(Source.DATA, data)
    full.run(bindings, 3, {})
    tensors: dict[Source, dict[int, Array]] = {
        Source.STATE: dict(enumerate(state)),
        Source.DATA: dict(enumerate(data)),
        Source.CONSTANT: dict(enumerate(program.constants)),
        Source.OPERATOR: seen,
    }

    def read(source: Source, index: int, position: int) -> int:
        return word(tensors[source][index], position)

    generator = np.random.default_rng(5)
    places = [(int(index), 0) for index in generator.integers(0, len(operators), 300)]
    places = [(index, int(generator.integers(0, operators[index].elements))) for index, _ in places]
    # The trace of a replay takes the same elements out of the fused run, where most values never reach memory.
    keep = [entry.operator for entry in program.section(Role.STEP).next_state if entry.operator is not None]
    watched = device.compile(program, Role.STEP, keep).run(bindings, 3, {}, places)
    bodies: set[Body] = set()
    for (index, element), fused in zip(places, watched, strict=True):
        expected = evaluate_element(operators[index], element, read, StepContext(7, 3))
        array = seen[index]
        assert word(array, element) == expected, f"operator {index} ({operators[index].body.name}) element {element}"
        assert int(fused) == expected, f"operator {index} in the fused run, element {element}"
        assert ElementType.of(array) == operators[index].type
        bodies.add(operators[index].body)
    assert len(bodies) > 10
