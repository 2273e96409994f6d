"""Programs lowered from PyTorch models: every operator is well-formed on chain, and its elements come out the same."""

from __future__ import annotations

from functools import cache
from typing import Any

import brownie
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.program.encoding import encode_operator
from assay.program.interpreter import Inputs, SectionRun, run_section
from assay.program.operator import Array, ElementType, Operator, Program, Role, Section, Source
from assay.program.optimizer import SGD, AdamW
from assay.program.reference import StepContext
from assay.program.sections import Precision, build_program
from assay.program.trace import TracedTask, trace
from binary32_cases import pack, unpack

SAMPLES = 12
SEED = 0x0123456789ABCDEF
ELEMENTS_AN_OPERATOR = 2
RECORDS_A_CALL = 100
STATE_LIKE = (Source.STATE, Source.COMPARED, Source.START, Source.NOISY, Source.PENULTIMATE)


class Images(nn.Module):
    """Convolution with padding and stride, batch normalization, pooling, dropout, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(12, 4),
        )

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.layers(images)
        return result


class Text(nn.Module):
    """Embedding, layer normalization, causal attention, GELU, a head over the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 24)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        query, key, value = (
            part.reshape(*part.shape[:2], 2, 4).transpose(1, 2) for part in self.mix(self.norm(hidden)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + nn.functional.gelu(mixed.transpose(1, 2).reshape(hidden.shape))
        result: Tensor = self.head(hidden)
        return result


@cache
def lowered(name: str) -> tuple[TracedTask, Program, Inputs]:
    """A model's task, its program, and what its first step reads."""
    torch.manual_seed(3)
    generator = np.random.default_rng(3)
    if name == "images":
        data = [generator.standard_normal((SAMPLES, 1, 8, 8)).astype(np.float32)]
        data += [generator.integers(0, 4, SAMPLES).astype(np.int32)]
        batch = [torch.from_numpy(data[0][:4]), torch.from_numpy(data[1][:4]).long()]
        task = trace(Images(), "cross_entropy", SGD(0.1, momentum=0.9, clip_norm=1.0), batch, SAMPLES)
    else:
        data = [generator.integers(0, 11, (SAMPLES, 6)).astype(np.int32) for _ in range(2)]
        batch = [torch.from_numpy(array[:2]).long() for array in data]
        task = trace(Text(), language_loss, AdamW(0.01, decay="matrices"), batch, SAMPLES)
    program = build_program(task.graph, Precision.BF16)
    return task, program, Inputs(task.initial_state, data, StepContext(SEED, 5))


def language_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all positions."""
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


@pytest.fixture(autouse=True)
def isolation() -> None:
    """Nothing here changes the chain: no snapshots, which take longer than these tests."""


@pytest.fixture(scope="module")
def harness() -> Any:
    return brownie.accounts[0].deploy(brownie.OperatorsHarness)


def source_shape(program: Program, section: Section, source: Source, index: int) -> tuple[ElementType, int]:
    """Type and element count of what an operand names."""
    if source == Source.OPERATOR:
        return section.operators[index].type, section.operators[index].elements
    if source in STATE_LIKE:
        return program.state[index].type, program.state[index].count
    if source == Source.DATA:
        return program.data[index].type, program.data[index].count
    if source == Source.CONSTANT:
        return ElementType.of(program.constants[index]), program.constants[index].size
    return ElementType.FLOAT, 0


def words(array: Array) -> bytes:
    """A tensor as the harness reads it."""
    return pack(np.ascontiguousarray(array).reshape(-1).view(np.uint32))


def tensors_of(run: SectionRun, operator: Operator) -> list[bytes]:
    """What each operand reads from, empty where nothing is opened."""
    unopened = (Source.IMMEDIATE, Source.STEP, Source.INDEX)
    return [
        b"" if operand.source in unopened else words(run._table(operand.source, operand.index))
        for operand in operator.operands
    ]


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
@pytest.mark.parametrize("name", ["images", "text"])
def test_every_operator_is_well_formed_on_chain(harness: Any, name: str, role: Role) -> None:
    _, program, _ = lowered(name)
    section = program.section(role)
    sizes = (len(program.state), len(program.data), len(program.constants))
    for first in range(0, len(section.operators), RECORDS_A_CALL):
        operators = section.operators[first : first + RECORDS_A_CALL]
        numbers = list(range(first, first + len(operators)))
        shapes: list[tuple[ElementType, int]] = []
        for operator in operators:
            read = [source_shape(program, section, operand.source, operand.index) for operand in operator.operands]
            shapes += read + [(ElementType.FLOAT, 0)] * (4 - len(read))
        types, counts = [int(kind) for kind, _ in shapes], [count for _, count in shapes]
        records = [encode_operator(operator) for operator in operators]
        answers = harness.areWellFormed.call(records, role, numbers, *sizes, types, counts)
        wrong = [operators[i] for i, answer in enumerate(answers) if not answer]
        assert not wrong, wrong[0]


def assert_elements_equal(harness: Any, run: SectionRun, context: StepContext) -> None:
    """Random elements of every operator, computed on chain from the outputs of the earlier ones."""
    generator = np.random.default_rng(9)
    outputs = run.outputs
    for number, operator in enumerate(run.section.operators):
        record, tensors = encode_operator(operator), tensors_of(run, operator)
        expected = unpack(words(outputs[number]))
        for element in set(generator.integers(0, operator.elements, ELEMENTS_AN_OPERATOR).tolist()):
            sums = unpack(bytes(harness.partialSums.call(record, tensors, (context.seed, context.step), element)))
            assert sums[-1] == expected[element], f"operator {number}, element {element}: {operator}"


@pytest.mark.parametrize("role", [Role.STEP, pytest.param(Role.NOISY_STEP, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["images", "text"])
def test_elements_of_a_training_step_come_out_the_same(harness: Any, name: str, role: Role) -> None:
    _, program, inputs = lowered(name)
    assert_elements_equal(harness, run_section(program, role, inputs), inputs.context)


@pytest.mark.parametrize("name", ["images", "text"])
def test_elements_of_the_distance_come_out_the_same(harness: Any, name: str) -> None:
    _, program, inputs = lowered(name)
    end = run_section(program, Role.STEP, inputs).next_state()
    compared = run_section(program, Role.NOISY_STEP, inputs).next_state()
    threshold = np.full(len(program.state), 0.01, dtype=np.float32)
    context = StepContext(SEED, 0)
    read = Inputs(end, inputs.data, context, compared=compared, start=inputs.state, threshold=threshold)
    assert_elements_equal(harness, run_section(program, Role.DISTANCE, read), context)
