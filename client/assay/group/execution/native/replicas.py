"""Replicas that a task declares: its step is recorded with the batch already shared, and gradients compressed.

What a verifier replays is the posted program, so whatever changes a value has to be in it: the parts of the batch, the
quantisation of what the replicas exchange, and their errors, which are state and lie in every checkpoint. One machine
computes such a step as any other; a group computes it with each replica on a member of its own.

For that a group has to know what belongs to which replica. The graph carries the step that it was made from
(`SharedFrom`): a member makes the shared step from it once more, and goes by that if it is the graph to the last call.
A remark that does not lead to the graph is refused.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from assay.errors import AssayError
from assay.group.errors import CompressionError, PlacementError
from assay.group.execution.native.expand import expand
from assay.group.execution.native.gradients import compress_gradients
from assay.group.execution.native.shards import NotSharedError, SharedBatch, share_batch
from assay.group.execution.native.update import merged_updates
from assay.program.graph import Graph, SharedFrom
from assay.program.lowering import LoweredNodes, lower_nodes
from assay.program.trace import TracedTask

_MALFORMED = (
    AssayError, NotSharedError, AssertionError, KeyError, IndexError, TypeError, ValueError, AttributeError,
    RecursionError,
)  # fmt: skip
"""What the making of a step from anything but a recorded one may end in."""


def with_replicas(traced: TracedTask, replicas: int, gradient_bits: int) -> TracedTask:
    """The task whose step has its batch in `replicas` parts, whose gradients are exchanged in `gradient_bits` bits.

    Raises CompressionError for a step whose batch cannot be shared, or in which there is nothing to compress.
    """
    graph = traced.graph
    try:
        shared = _made(graph, replicas, gradient_bits)[2]
    except NotSharedError as error:
        raise CompressionError(f"the batch cannot be shared by {replicas} replicas: {error}") from error
    if not shared.errors:
        raise CompressionError("no gradient is large enough to be compressed; leave out replicas and gradient_bits")
    origin = SharedFrom(replicas, gradient_bits, graph.nodes, graph.next_state, graph.loss)
    errors = tuple(np.zeros(entry.shape, np.float32) for entry in shared.graph.state[len(graph.state) :])
    made = replace(_recorded(shared), shared_from=origin)
    return replace(traced, graph=made, initial_state=(*traced.initial_state, *errors))


def declared_replicas(graph: Graph) -> tuple[Graph, LoweredNodes, SharedBatch]:
    """The step that a graph was made from, expanded and lowered, and the graph as shared from it. Raises PlacementError
    where it was not made so."""
    origin = graph.shared_from
    assert origin is not None
    state = graph.state[: len(origin.next_state)]
    before = Graph(state, graph.data, graph.constants, origin.nodes, origin.next_state, origin.loss)
    try:
        expanded, lowered, shared = _made(before, origin.replicas, origin.gradient_bits)
        made = _recorded(shared)
    except _MALFORMED as error:
        raise PlacementError(f"the step that the graph says it was shared from is malformed: {error}") from error
    for name in ("state", "nodes", "next_state", "loss"):
        if getattr(made, name) != getattr(graph, name):
            raise PlacementError(
                f"the graph is not what sharing the batch of the step it names gives (its {name} differ): "
                "do not train this task in a group"
            )
    return expanded, lowered, shared


def _made(graph: Graph, replicas: int, bits: int) -> tuple[Graph, LoweredNodes, SharedBatch]:
    expanded = expand(graph)
    lowered = lower_nodes(expanded)
    return expanded, lowered, compress_gradients(share_batch(expanded, lowered, replicas), bits)


def _recorded(shared: SharedBatch) -> Graph:
    """The shared step as a task posts it: parameters are updated in lists, as PyTorch's fused kernels do."""
    return merged_updates(shared.graph)
