"""Answering demands for chunks of a task's files."""

from __future__ import annotations

from collections.abc import Iterator

from assay.commitments import tree
from assay.commitments.execution import checkpoint_root
from assay.dispute.hash_tree import LeafTree, TensorTree, root, siblings
from assay.market.records import DemandRecord, TaskRecord
from assay.program.operator import Array
from assay.roles.bench import Workbench
from assay.roles.context import Action, Context, Send, Work


def serve(context: Context, task: TaskRecord) -> Iterator[Action]:
    """Answer what is demanded of a task."""
    for demand in context.view.open_demands(task.id):
        if context.view.time > demand.deadline:
            continue
        key = f"chunk:{demand.id:x}"
        answer = context.results.result(key)
        if answer is None:
            yield Work(key, lambda demand=demand: chunk_of(context.bench, task, demand))  # type: ignore[misc]
        else:
            chunk, proof = answer
            call = context.market.demands.serve(demand.id, chunk, proof)
            yield Send(f"serve:{demand.id:x}", call, task.id)


def chunk_of(bench: Workbench, task: TaskRecord, demand: DemandRecord) -> tuple[bytes, list[bytes]]:
    """A demanded chunk with its siblings up to the data root, or to the checkpoint root."""
    place = demand.place
    if place.of_data:
        return open_chunk(bench.bundle(task).task.data, place.tensor, place.chunk)
    chunk, proof = open_chunk(bench.checkpoint(task, place.checkpoint), place.tensor, place.chunk)
    roots = bench.manifest(task).roots
    assert checkpoint_root(roots) == task.checkpoint_root
    return chunk, [*proof, *tree.proof_of(tree.levels(roots), place.checkpoint)]


def open_chunk(tensors: list[Array] | tuple[Array, ...], number: int, chunk: int) -> tuple[bytes, list[bytes]]:
    """A chunk of one of several tensors with its siblings up to the root over all of them."""
    trees = [TensorTree(tensor) for tensor in tensors]
    above = siblings(LeafTree([root(each) for each in trees]), number)
    return trees[number].chunk(chunk), [*siblings(trees[number], chunk), *above]
