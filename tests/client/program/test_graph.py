"""Tracing, the graph as data, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import assay.program
from assay.errors import AssayError
from assay.program.encoding import program_root
from assay.program.errors import GraphError, UnsupportedError
from assay.program.graph import Graph, Node, TensorMeta, Value, dump_graph, graph_hash, load_graph
from assay.program.lowering import lower_step
from assay.program.lowering.__main__ import call_list
from assay.program.operator import TensorDescriptor
from assay.program.optimizer import SGD, AdamW, WarmupCosine, learning_rate
from assay.program.trace import TracedTask, trace

from .models import ConvNet, Transformer, next_token_loss, token_data, train_both, uniform_data


def traced(module: nn.Module | None = None) -> TracedTask:
    torch.manual_seed(1)
    module = module or Transformer(dropout=0.1)
    batch = (token_data(11, 4, 6), token_data(11, 4, 6))
    return trace(module, next_token_loss, AdamW(WarmupCosine(0.01, 2, 9), clip_norm=1.0), batch, 9)


@pytest.fixture(scope="module")
def task() -> TracedTask:
    return traced()


class Custom(nn.Module):
    """A weight and a function of it and the batch."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], size: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.weight, x)


def test_a_graph_is_its_canonical_json(task: TracedTask) -> None:
    content = dump_graph(task.graph)
    again = load_graph(content)
    assert dump_graph(again) == content
    assert graph_hash(again) == graph_hash(task.graph)
    assert again.nodes == task.graph.nodes
    assert b"models.py" not in content, "source lines stay on the machine that traced"


def test_tracing_and_lowering_give_the_same_root_every_time(task: TracedTask) -> None:
    again = traced()
    assert graph_hash(again.graph) == graph_hash(task.graph)
    root = program_root(lower_step(task.graph))
    assert program_root(lower_step(again.graph)) == root
    assert program_root(lower_step(load_graph(dump_graph(task.graph)))) == root


def test_lowering_in_a_fresh_process_gives_the_same_root(task: TracedTask, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "graph.json"
    path.write_bytes(dump_graph(task.graph))
    script = (
        "import sys; from pathlib import Path; from assay.program.graph import load_graph;"
        "from assay.program.lowering import lower_step; from assay.program.encoding import program_root;"
        "print(program_root(lower_step(load_graph(Path(sys.argv[1]).read_bytes()))).hex())"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "12345", "PATH": ""},
    )
    assert found.stdout.strip() == program_root(lower_step(task.graph)).hex()


def test_a_mask_that_never_changes_is_a_constant_not_state() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.register_buffer("mask", torch.tensor([True, False, True, True]))
            self.table = torch.arange(4.0)

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).masked_fill(self.mask, 0.0) + self.table

    task = trace(Masked(), "mse", SGD(0.1), (uniform_data(3, 4), uniform_data(3, 4)), 5)
    assert [t.name for t in task.graph.state] == ["weight"]
    assert {c.type for c in task.graph.constants} == {"bool", "float32"}


def _assigned(x: Tensor) -> Tensor:
    x[:, 1] = 2 * x[:, 0]
    return x


REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "item": (lambda w, x: x * w if x.sum().item() > 0 else x, "torch.where or a mask"),
    "branch on a tensor": (lambda w, x: x * w if (x > 0).any() else x, "torch.where or a mask"),
    "list of values": (lambda w, x: x * w * x[0].tolist()[2], "torch.where or a mask"),
    "numpy": (lambda w, x: x * w * float(x.detach().numpy().max()), "torch.where or a mask"),
    "array": (lambda w, x: x * w + torch.from_numpy(np.asarray(w.detach() * 2)), "torch.where or a mask"),
    "assignment to a part": (lambda w, x: _assigned(x * w), "torch.where"),
    "sort": (lambda w, x: (x * w).sort(dim=1).values, "use max, amax or argmax"),
    "cumsum": (lambda w, x: (x * w).cumsum(1), "triangular matrix"),
    "random numbers": (lambda w, x: x * w + torch.rand(4), "dropout"),
    "odd power": (lambda w, x: (x * w).abs() ** 0.3, "exp and log"),
    "mask that chooses all": (lambda w, x: (x * w)[x[:, 0] > -99], "torch.where"),
    "mask that never changes": (lambda w, x: (x * w)[:, torch.ones(4, dtype=torch.bool)], "torch.where"),
    "integer beyond 32 bits": (lambda w, x: x * w * (x.long() < 2**33), "32 bits"),
    "fill beyond 32 bits": (lambda w, x: x * w * x.long().masked_fill(x > 0, torch.iinfo(torch.int64).max), "32 bits"),
    "range beyond 32 bits": (lambda w, x: x * w * torch.arange(2**31 - 2, 2**31 + 2), "32 bits"),
    "maximum of integers": (lambda w, x: x * w * torch.relu(x.long()), "convert them with .float()"),
    "product of integers": (lambda w, x: x * w * (x.long() @ torch.arange(4)).sum(), "convert them with .float()"),
    "empty tensor": (lambda w, x: x * w + (x * w)[:, 4:].sum(), "without elements"),
    "more dimensions than loops have": (
        lambda w, x: functional.conv3d(x.repeat(1, 32).reshape(3, 2, 4, 4, 4), w.repeat(8).reshape(2, 2, 2, 2, 2)),
        "8 are possible",
    ),
    "recurrent layer": (lambda w, x: nn.LSTM(4, 4)(x * w)[0], "unroll nn.LSTMCell"),
    "double": (lambda w, x: (x.double() * w).float(), "float32 and int32"),
    "complex": (lambda w, x: torch.fft.fft(x * w).abs(), "float32 and int32|Fourier"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_lowered_is_refused_with_the_line_and_a_remedy(name: str) -> None:
    function, remedy = REFUSED[name]
    batch = (uniform_data(3, 4), uniform_data(3, 4))
    with pytest.raises(UnsupportedError, match=remedy) as caught:
        lower_step(trace(Custom(function), lambda a, b: a.mean() + b.mean(), SGD(0.1), batch, 5).graph)
    assert "test_graph.py:" in str(caught.value)


def test_wrong_uses_of_trace_are_refused() -> None:
    module, x, y = Custom(lambda w, x: x * w), uniform_data(3, 4), uniform_data(3, 4)
    for arguments, message in (
        ((module, "hinge", SGD(0.1), (x, y), 5), "cross_entropy"),
        ((module, "mse", SGD(0.1), (x,), 5), "inputs and a target"),
        ((module, "mse", SGD(0.1), (x, y[:2]), 5), "same first dimension"),
        ((module, "mse", SGD(0.1), (x, y), 0), "samples"),
        ((module, "mse", SGD(0.1), (x.double(), y), 5), "float32"),
        ((module, lambda a, b: a - b, SGD(0.1), (x, y), 5), "scalar"),
        ((module, lambda a, b: b.mean(), SGD(0.1), (x, y), 5), "does not depend on any parameter"),
        ((Custom(lambda w, x: x * w, 0), "mse", SGD(0.1), (x, y), 5), "weight of the module has shape"),
        ((Custom(lambda w, x: x * w).double(), "mse", SGD(0.1), (x, y), 5), "weight of the module is torch.float64"),
        ((nn.ReLU(), "mse", SGD(0.1), (x, y), 5), "no parameters"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            trace(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(0.0),
        lambda: SGD(0.1, momentum=1.0),
        lambda: SGD(0.1, nesterov=True) and SGD(0.1, 0.0, nesterov=True),
        lambda: AdamW(0.1, betas=(0.9, 1.0)),
        lambda: AdamW(0.1, epsilon=0.0),
        lambda: AdamW(0.1, decay="some"),  # type: ignore[arg-type]
        lambda: SGD(WarmupCosine(0.1, 10, 10)),
        lambda: SGD(WarmupCosine(0.1, 1, 10, 0.2)),
        lambda: SGD(0.1, clip_norm=math.inf),
    ],
)
def test_impossible_optimizers_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UnsupportedError):
        make()


def test_the_schedule_warms_up_and_follows_a_cosine() -> None:
    schedule = WarmupCosine(1.0, 4, 12, 0.1)
    rates = [learning_rate(schedule, step) for step in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[8] == pytest.approx(0.55)
    assert rates[12] == rates[13] == pytest.approx(0.1)


def change(document: dict, path: str, value: object) -> None:
    """Set a value inside nested lists and objects; the path is written with slashes."""
    *parents, last = path.split("/")
    for part in parents:
        document = document[int(part) if isinstance(document, list) else part]
    document[int(last) if isinstance(document, list) else last] = value  # type: ignore[index]


MALFORMED = {
    "format": 2,
    "state": {},
    "state/0/type": "float64",
    "state/0/shape": [0],
    "state/0/shape/0": 2**40,
    "state/0/shape/1": 1.5,
    "state/0/name": 7,
    "nodes": [],
    "nodes/0/extra": 1,
    "nodes/0/call": None,
    "nodes/0/outputs/0/shape": [-1],
    "nodes/1/arguments/0/data": 9,
    "nodes/1/arguments/1/value": [1, 0],
    "nodes/2/arguments/1/value": [0, 5],
    "nodes/2/arguments/0": {"state": 0, "data": 0},
    "nodes/2/arguments": [{"eval": "1"}],
    "nodes/3/arguments/0": [[[[[[1]]]]]],
    "next_state": [],
    "next_state/0": 3,
    "loss": {"state": 0},
    "loss/value": [10**9, 0],
}


@pytest.mark.parametrize("path", MALFORMED)
def test_malformed_graphs_are_refused(task: TracedTask, path: str) -> None:
    document = json.loads(dump_graph(task.graph))
    change(document, path, MALFORMED[path])
    with pytest.raises(GraphError):
        load_graph(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b'{"format":NaN}', b"\xff"])
def test_what_is_no_graph_is_refused(content: bytes) -> None:
    with pytest.raises(GraphError):
        load_graph(content)


def test_graphs_are_canonical(task: TracedTask) -> None:
    with pytest.raises(GraphError, match="canonical"):
        load_graph(dump_graph(task.graph) + b" ")


def test_hostile_calls_and_arguments_are_refused_by_the_lowering(task: TracedTask) -> None:
    """A graph from a stranger: every change of a call, argument or shape lowers, or is refused in our own words."""
    graph = task.graph
    state = graph.state
    changes: list[Callable[[Node], Node]] = [
        lambda n: Node("os.system", n.arguments, n.keywords, n.outputs),
        lambda n: Node("aten.__class__.default", n.arguments, n.keywords, n.outputs),
        lambda n: Node(n.call, (), n.keywords, n.outputs),
        lambda n: Node(n.call, (*n.arguments, 7), n.keywords, n.outputs),
        lambda n: Node(n.call, n.arguments, (("bogus", 1),), n.outputs),
        lambda n: Node(n.call, tuple(-1 if isinstance(a, int) else a for a in n.arguments), n.keywords, n.outputs),
        lambda n: Node(n.call, tuple("x" for _ in n.arguments), n.keywords, n.outputs),
        lambda n: Node(n.call, n.arguments, n.keywords, (TensorMeta("float32", (3, 1, 4)),)),
    ]
    refused = 0
    for place in range(0, len(graph.nodes), 5):
        for alter in changes:
            nodes = (*graph.nodes[:place], alter(graph.nodes[place]), *graph.nodes[place + 1 :])
            changed = Graph(state, graph.data, graph.constants, nodes, graph.next_state, graph.loss)
            try:
                lower_step(changed)
            except AssayError:
                refused += 1
    assert refused > 100


def test_a_next_state_of_the_wrong_shape_is_refused(task: TracedTask) -> None:
    graph = task.graph
    state = (TensorDescriptor(graph.state[0].name, graph.state[0].type, (1, 88)), *graph.state[1:])
    with pytest.raises(AssayError):
        lower_step(Graph(state, graph.data, graph.constants, graph.nodes, graph.next_state, graph.loss))
    with pytest.raises(GraphError, match="loss"):
        lower_step(Graph(graph.state, graph.data, graph.constants, graph.nodes, graph.next_state, Value(1)))


def test_numbers_that_do_not_depend_on_the_step_may_be_read() -> None:
    module = Custom(lambda w, x: x * w * torch.arange(4).tolist()[3] + float(torch.arange(4).numpy()[2]))
    trace(module, "mse", SGD(0.1), (uniform_data(3, 4), uniform_data(3, 4)), 5)


def test_a_forward_pass_that_is_computed_again_draws_no_other_random_numbers() -> None:
    def again(w: Tensor, x: Tensor, rate: float) -> Tensor:
        return checkpoint(lambda v: functional.dropout(v * x, rate).tanh(), w, use_reentrant=False)

    batch = (uniform_data(3, 4), uniform_data(3, 4))
    with pytest.raises(UnsupportedError, match=r"leave torch\.utils\.checkpoint out"):
        trace(Custom(lambda w, x: again(w, x, 0.5)), "mse", SGD(0.1), batch, 5)
    trained = train_both(Custom(lambda w, x: again(w, x, 0.0)), "mse", SGD(0.1), batch, batch=3, steps=1)
    assert trained.worst_update_error() < 2e-4


class Remembering(nn.Module):
    """Adds what it remembers of earlier steps, and remembers by a function of its own."""

    def __init__(self, remember: Callable[[nn.Module, Tensor], None]) -> None:
        super().__init__()
        self.weight, self.memory, self.remember = nn.Parameter(torch.ones(4)), torch.zeros(4), remember

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.weight + self.memory
        self.remember(self, x.detach().mean(0))
        return x


def _remember_in_place(module: nn.Module, mean: Tensor) -> None:
    module.memory += mean


def _remember_anew(module: nn.Module, mean: Tensor) -> None:
    module.memory = module.memory * 0.5 + mean


@pytest.mark.parametrize("remember", [_remember_in_place, _remember_anew])
def test_what_lasts_from_step_to_step_in_a_plain_attribute_is_refused(
    remember: Callable[[nn.Module, Tensor], None],
) -> None:
    with pytest.raises(UnsupportedError, match="register_buffer"):
        trace(Remembering(remember), "mse", SGD(0.1), (uniform_data(3, 4), uniform_data(3, 4)), 5)


def test_an_attribute_that_a_step_writes_before_it_reads_it_is_no_state() -> None:
    class Noting(Remembering):
        def forward(self, x: Tensor) -> Tensor:
            self.memory = x * self.weight
            return self.memory + 1

    task = trace(Noting(_remember_anew), "mse", SGD(0.1), (uniform_data(3, 4), uniform_data(3, 4)), 5)
    assert [t.name for t in task.graph.state] == ["weight"]


def test_a_buffer_keeps_its_type_and_shape() -> None:
    module = Remembering(lambda module, mean: setattr(module, "memory", mean[None]))
    del module.memory
    module.register_buffer("memory", torch.zeros(4))
    with pytest.raises(UnsupportedError, match="memory from torch.float32 of shape"):
        trace(module, "mse", SGD(0.1), (uniform_data(3, 4), uniform_data(3, 4)), 5)


def test_evaluation_mode_keeps_running_statistics() -> None:
    module = ConvNet().eval()
    task = trace(module, "cross_entropy", SGD(0.1), (uniform_data(3, 2, 9, 9), token_data(5, 3)), 5)
    assert not any("running" in t.name for t in task.graph.state)
    trained = train_both(module, "cross_entropy", SGD(0.1), (uniform_data(3, 2, 9, 9), token_data(5, 3)), 3, 1)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=1e-5)
    assert trained.worst_update_error() < 2e-4


def test_the_documentation_lists_every_call_that_is_lowered() -> None:
    page = Path(assay.program.__file__).with_name("LOWERING.md").read_text()
    assert call_list() in page.replace("\n\n", "\n")
