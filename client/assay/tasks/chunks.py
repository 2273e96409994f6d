"""One chunk of a task's files, demanded on chain: where it lies, and whether what was answered is it.

A demand names a tensor by its entry in the program's tables, so whoever demands needs the program, but neither the data
nor the checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.commitments import tensor, tree
from assay.market.types import Entry, Place
from assay.program.encoding import data_table_leaves, program_root, state_table_leaves
from assay.program.file import load_program
from assay.program.operator import Program, Role, TensorDescriptor
from assay.program.validate import Limits
from assay.storage.store import Store
from assay.tasks.bundle import read_manifest
from assay.tasks.errors import BundleError, ProofFilesError
from assay.tasks.manifest import FILE_NAMES, MANIFEST_NAME, MAX_MANIFEST
from assay.tasks.references import decode_locations, fetch_file


@dataclass(frozen=True)
class Chunk:
    """1024 bytes of a tensor's file, and which of its elements they hold: [first, first + count)."""

    content: bytes
    first: int
    count: int


def fetch_program(
    stores: Sequence[Store], locations: str, folder: Path, root: bytes, limits: Limits | None = None
) -> Program:
    """A task's program alone, which must have the root on chain."""
    limits = limits or Limits()
    folder.mkdir(parents=True, exist_ok=True)
    fetch_file(stores, decode_locations(locations), folder / MANIFEST_NAME, MAX_MANIFEST)
    path = fetch_file(
        stores, read_manifest(folder).reference("program"), folder / FILE_NAMES["program"], limits.file_bytes
    )
    program = load_program(path.read_bytes(), limits)
    if program_root(program) != root:
        raise BundleError(f"the program has root {program_root(program).hex()}, the chain says {root.hex()}")
    return program


def descriptors(program: Program, of_data: bool) -> Sequence[TensorDescriptor]:
    """The tensors among which a place chooses."""
    return program.data if of_data else program.state


def entry_of(program: Program, place: Place) -> Entry:
    """The entry of the program's table that says how long the demanded tensor is, with its proof."""
    found = descriptors(program, place.of_data)[place.tensor]
    if place.of_data:
        leaves = data_table_leaves(program.data)
        kind, index = 0, 0
    else:
        section = program.section(Role.STEP)
        leaves = state_table_leaves(section, program.state)
        row = section.next_state[place.tensor]
        kind, index = row.kind, place.tensor if row.operator is None else row.operator
    return Entry(kind, index, found.type, found.count, tuple(tree.proof_of(tree.levels(leaves), place.tensor)))


def check_chunk(
    program: Program, place: Place, content: bytes, proof: Sequence[bytes], root: bytes, segments: int
) -> Chunk:
    """The chunk that was answered to a demand, compared with the data root or checkpoint root on chain.

    Raises `ProofFilesError` where it is another.
    """
    found = descriptors(program, place.of_data)[place.tensor]
    depth = tree.depth_of(tensor.chunks_of(found.count))
    index = place.chunk | place.tensor << depth
    depth += tree.depth_of(len(descriptors(program, place.of_data)))
    if not place.of_data:
        index |= place.checkpoint << depth
        depth += tree.depth_of(segments + 1)
    leaf = tensor.chunk_leaf(content)
    if len(content) != tensor.CHUNK_BYTES or len(proof) != depth or tree.root_from(leaf, index, proof) != root:
        raise ProofFilesError(
            f"the chunk answered ({len(content)} bytes, {len(proof)} siblings) does not lead to the root {root.hex()} "
            "on chain: is this the deployment, and does the endpoint tell the truth?"
        )
    first = place.chunk * tensor.CHUNK_ELEMENTS
    return Chunk(content, first, min(tensor.CHUNK_ELEMENTS, found.count - first))
