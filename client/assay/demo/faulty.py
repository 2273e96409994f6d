"""An execution with one wrong fused multiply-add, computed on from there as if it were right: what somebody with faulty
hardware, or a liar, would show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from assay.dispute.execution import LocalExecution, context_of, word_of
from assay.dispute.hash_tree import ChunkTree, TensorTree
from assay.program.interpreter import SectionRun
from assay.program.operator import Array, Body, Operator, Role, Source
from assay.program.reference import fold_step, loop_indices, operand_word

FLIPPED_BIT = 1 << 22
"""The highest bit of the fraction: the accumulator changes by a third to a half."""


@dataclass(frozen=True)
class Fault:
    """Where an execution goes wrong: the accumulator after one term of one element of an operator at a step."""

    step: int
    operator: int
    element: int
    term: int


class FaultyRun(SectionRun):
    """An interpreter that puts another word into one element of one operator's output."""

    fault: Fault
    word: int

    def _evaluate(self, operator: Operator) -> Array:
        value: Array = super()._evaluate(operator)
        if len(self.outputs) == self.fault.operator:
            value = value.copy()
            value.reshape(-1).view(np.uint32)[self.fault.element] = self.word
        return value


@dataclass(frozen=True, eq=False)
class FaultyExecution(LocalExecution):
    """A segment's execution that goes wrong once, and is consistent otherwise. Without a fault it is honest."""

    fault: Fault | None = None
    _honest: list[LocalExecution] = field(default_factory=list, repr=False)

    def _twin(self) -> LocalExecution:
        """The honest execution of the same segment."""
        if not self._honest:
            self._honest.append(
                LocalExecution(
                    self.program, self.context, self.steps, self.start, self.data, self.draw_seed, self.compared
                )
            )
        return self._honest[0]

    def faulty_sums(self) -> list[int]:
        """The accumulator after every term of the faulty element, wrong from the fault's term on."""
        fault = self.fault
        assert fault is not None
        twin = self._twin()
        record = self.program.section(Role.STEP).operators[fault.operator]
        context = context_of(self, Role.STEP, fault.step)

        def read(source: Source, index: int, position: int) -> int:
            return word_of(twin._source(Role.STEP, fault.step, source)[index], position)

        outer = loop_indices(fault.element, record.extents)
        sums, accumulator = [], 0
        for term in range(record.terms):
            indices = outer + loop_indices(term, record.reduced)
            words = tuple(operand_word(operand, indices, read, context) for operand in record.operands)
            accumulator = fold_step(record.body, accumulator, words)
            if term == fault.term:
                accumulator ^= FLIPPED_BIT
            sums.append(accumulator)
        return sums

    def _run_outputs(self, role: Role, step: int) -> Sequence[Array]:
        fault = self.fault
        if fault is None or role is not Role.STEP or step != fault.step:
            return super()._run_outputs(role, step)
        run = FaultyRun(self.program, self.program.section(role), self.inputs(role, step))
        run.fault, run.word = fault, self.faulty_sums()[-1]
        return run.run()

    def sums(self, role: Role, step: int, operator: int, element: int) -> ChunkTree:
        fault = self.fault
        if fault is not None and role is Role.STEP and (step, operator, element) == (
            fault.step, fault.operator, fault.element,
        ):  # fmt: skip
            return TensorTree(np.array(self.faulty_sums(), np.uint32).view(np.float32))
        return super().sums(role, step, operator, element)


def choose_fault(execution: LocalExecution, step: int) -> Fault:
    """A place that matters: the largest element of the last matrix product of a step, half way through its sum."""
    operators = execution.program.section(Role.STEP).operators
    number = max(n for n, each in enumerate(operators) if each.body == Body.FOLD_FMA and each.terms >= 4)
    values = np.abs(execution.run_outputs(Role.STEP, step)[number].reshape(-1))
    return Fault(step, number, int(values.argmax()), operators[number].terms // 2)
