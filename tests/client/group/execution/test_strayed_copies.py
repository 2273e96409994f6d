"""Copies of state that members keep beside its owner: brought back to the owner's bits at a checkpoint."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from assay.commitments import tensor
from assay.group.execution.keeping import Keeping
from assay.group.execution.partition import Partition, StagePart
from assay.program.operator import Array, ElementType, Program, TensorDescriptor
from assay.training.checkpoint import CheckpointFolder

MEMBERS = ("ann", "ben")
SHAPES = ((3, 2), (4,), (5,))
# Ann owns tensors 0 and 1 and copies 2; ben owns 2 and copies 0.
PARTITION = Partition((StagePart((0, 1), (2,), (), 1), StagePart((2,), (0,), (), 1)), (), {}, (0, 0, 1))
PROGRAM = Program(
    tuple(TensorDescriptor(f"t{n}", ElementType.FLOAT, shape) for n, shape in enumerate(SHAPES)), (), (), ()
)


def owned(number: int) -> Array:
    """A tensor as its owner has it."""
    return np.full(SHAPES[number], number + 1.5, np.float32)


def member(rank: int, port: int, folder: Path, lies: bool, found: Any) -> None:
    """One member, whose copy of tensor 0 lies a rounding apart on ben."""
    store = TCPStore("127.0.0.1", port, is_master=rank == 0, wait_for_workers=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    keeping = Keeping(store, 0, MEMBERS, PROGRAM, PARTITION, CheckpointFolder(folder, PROGRAM.state), 1)
    keeping.tensor_roots = [tensor.root(owned(number)) for number in range(3)]
    part = PARTITION.parts[rank]
    held = {number: owned(number) for number in (*part.state, *part.copies)}
    if rank == 1:
        held[0] = np.nextafter(held[0], np.float32(9))
    elif lies:
        held[0] = np.nextafter(held[0], np.float32(0))
    try:
        strayed = keeping.strayed_copies(1, held)
        found.put((rank, {number: array.tolist() for number, array in strayed.items()}))
    except Exception as error:
        found.put((rank, str(error)))
    dist.barrier()
    dist.destroy_process_group()


def outcomes(tmp_path: Path, lies: bool) -> dict[int, Any]:
    """What both members end with."""
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    port = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
    processes = [context.Process(target=member, args=(rank, port, tmp_path, lies, found)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(found.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    return results


@pytest.mark.slow
def test_a_copy_that_was_rounded_apart_is_brought_back_from_its_owner(tmp_path: Path) -> None:
    assert outcomes(tmp_path, lies=False) == {0: {}, 1: {0: owned(0).tolist()}}


@pytest.mark.slow
def test_an_owner_that_sends_other_bits_than_it_hashed_is_named(tmp_path: Path) -> None:
    found = outcomes(tmp_path, lies=True)
    assert found[1] == "'ann' sent another state tensor 0 than it hashed; exclude it"
