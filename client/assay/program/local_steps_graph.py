"""From the graph of a training step to the graph of local-steps training, every call of the former kept as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from assay.program.errors import UnsupportedError
from assay.program.graph import Argument, ConstantInput, Graph, Input, Node, StateInput, TensorMeta, Value
from assay.program.local_schedule import LocalSteps
from assay.program.local_steps import end_of_step, own_replica, starting_parameter, with_replica
from assay.program.operator import Array, ElementType, TensorDescriptor
from assay.program.record import Recorder
from assay.program.trace import TracedTask

OUTER_MOMENTUM, EXCHANGE, ERROR, MEMBERS = "outer_momentum.", "exchange.", "error.", "members."
_UPDATES = ("assay.sgd", "assay.adamw")
_STEP = TensorMeta("int64", ())


def with_local_steps(traced: TracedTask, settings: LocalSteps) -> TracedTask:
    """The task in which `settings.members` replicas are trained in rounds (see `assay.program.local_steps`).

    Raises `UnsupportedError` for a model whose step changes anything but parameters and the optimizer's tensors:
    running statistics or a boundary's memory belong to no single member.
    """
    return _Writer(traced, settings).write()


class _Writer(Recorder):
    def __init__(self, traced: TracedTask, settings: LocalSteps) -> None:
        super().__init__()
        self.traced, self.graph, self.settings = traced, traced.graph, settings
        self.state: list[TensorDescriptor] = []
        self.initial: list[Array] = []
        self.next_state: list[Input] = []
        self.constants.extend(self.graph.constants)
        self.parameters = _updated(self.graph)
        self.changing = [number for number, value in enumerate(self.graph.next_state) if value != StateInput(number)]
        self._refuse_other_changes()

    def write(self) -> TracedTask:
        """The new graph, its initial state; batch and samples stay."""
        step = self.step_number()
        (member,) = self.inline(self.settings.member, [step], [_STEP])
        (inner_number,) = self.inline(self.settings.inner_step_number, [step], [_STEP])
        # Outer parameters and whatever never changes keep their names, so the trained model is found by them.
        outer = {
            number: self._add_state(descriptor.name, self.traced.initial_state[number])
            for number, descriptor in enumerate(self.graph.state)
            if number in self.parameters or number not in self.changing
        }
        stacks = {number: self._stack(number) for number in self.changing}
        current: dict[int, Input] = dict(outer)
        for number in self.changing:
            meta, stack_meta = self._metas_of(number)
            (replica,) = self.inline(own_replica, [stacks[number], member], [stack_meta, _STEP])
            if number in self.parameters:
                start = partial(starting_parameter, self.settings)
                (replica,) = self.inline(start, [outer[number], replica, step], [meta, meta, _STEP])
            current[number] = replica
        shift = len(self.nodes)
        self.nodes.extend(_moved(node, shift, current, inner_number) for node in self.graph.nodes)
        results = {number: _moved_input(self.graph.next_state[number], shift, current) for number in self.changing}
        for number in self.changing:
            if number in self.parameters:
                self._exchange(number, outer[number], stacks[number], results[number], step)
            else:
                meta, stack_meta = self._metas_of(number)
                inputs = [stacks[number], member, results[number]]
                (self.next_state[stacks[number].index],) = self.inline(with_replica, inputs, [stack_meta, _STEP, meta])
        loss = _moved_input(self.graph.loss, shift, current)
        assert isinstance(loss, Value)
        graph = Graph(
            tuple(self.state), self.graph.data, tuple(self.constants), tuple(self.nodes), tuple(self.next_state), loss
        )
        return replace(self.traced, graph=graph, initial_state=tuple(self.initial))

    def _exchange(self, number: int, outer: StateInput, stack: StateInput, trained: Input, step: Value) -> None:
        """The end of a step for one parameter: its outer optimizer, the sum of the round, its errors and replicas."""
        meta, stack_meta = self._metas_of(number)
        name = self.graph.state[number].name
        momentum = self._add_state(OUTER_MOMENTUM + name, np.zeros(meta.shape, np.float32))
        exchanged = self._add_state(EXCHANGE + name, np.zeros(meta.shape, np.float32))
        errors = self._add_state(ERROR + name, np.zeros(stack_meta.shape, np.float32))
        results = self.inline(
            partial(end_of_step, self.settings),
            [step, outer, momentum, exchanged, errors, stack, trained],
            [_STEP, meta, meta, meta, stack_meta, stack_meta, meta],
        )
        for target, value in zip((outer, momentum, exchanged, errors, stack), results, strict=True):
            self.next_state[target.index] = value

    def _add_state(self, name: str, values: Array) -> StateInput:
        index = len(self.state)
        self.state.append(TensorDescriptor(name, ElementType.of(values), tuple(values.shape)))
        self.initial.append(values)
        self.next_state.append(StateInput(index))
        return StateInput(index)

    def _stack(self, number: int) -> StateInput:
        values = self.traced.initial_state[number]
        copies: Array = values[np.newaxis].repeat(self.settings.members, axis=0)
        return self._add_state(MEMBERS + self.graph.state[number].name, copies)

    def _metas_of(self, number: int) -> tuple[TensorMeta, TensorMeta]:
        """Type and shape of one member's tensor, and of all members'."""
        meta = self.graph.meta(StateInput(number))
        return meta, TensorMeta(meta.type, (self.settings.members, *meta.shape))

    def _refuse_other_changes(self) -> None:
        for number in self.changing:
            value = self.graph.next_state[number]
            if not isinstance(value, Value) or self.graph.nodes[value.node].call not in (
                *_UPDATES,
                "assay.beta_powers",
            ):
                raise UnsupportedError(
                    f"local steps: the model changes {self.graph.state[number].name} in every step, which no exchange "
                    "brings together; use layer or group norm instead of batch norm, and no compressed boundaries"
                )


def _updated(graph: Graph) -> set[int]:
    """Numbers of the parameters: what the optimizer's calls name first."""
    found: set[int] = set()
    for node in graph.nodes:
        if node.call in _UPDATES and isinstance(node.arguments[0], tuple):
            found.update(argument.index for argument in node.arguments[0] if isinstance(argument, StateInput))
    return found


def _moved(node: Node, shift: int, current: dict[int, Input], inner_number: Input) -> Node:
    """A node of the old graph behind `shift` new ones, reading the current member's state."""
    keywords = tuple((name, _moved_argument(argument, shift, current)) for name, argument in node.keywords)
    if node.call == "assay.learning_rate":
        keywords = (*keywords, ("step", inner_number))
    return replace(node, arguments=_moved_all(node.arguments, shift, current), keywords=keywords)


def _moved_all(arguments: Sequence[Argument], shift: int, current: dict[int, Input]) -> tuple[Argument, ...]:
    return tuple(_moved_argument(argument, shift, current) for argument in arguments)


def _moved_argument(argument: Argument, shift: int, current: dict[int, Input]) -> Argument:
    if isinstance(argument, tuple):
        return _moved_all(argument, shift, current)
    if isinstance(argument, Value | StateInput | ConstantInput):
        return _moved_input(argument, shift, current)
    return argument


def _moved_input(value: Input, shift: int, current: dict[int, Input]) -> Input:
    if isinstance(value, Value):
        return Value(value.node + shift, value.output)
    return current[value.index] if isinstance(value, StateInput) else value
