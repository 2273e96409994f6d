"""What members that train segments alone (`side_by_side`) sign about them: the task's program, over its data, from this
state, ended in that one. It is a stage statement (`stage_statements`) whose stage is the whole program, so the same
court decides on it."""

from __future__ import annotations

import json
from collections.abc import Callable

from torch._C._distributed_c10d import Store

from assay.commitments import tensor, tree
from assay.group.execution.stage_statements import SignedStage, Signer, read_signed
from assay.market.types import StageWork
from assay.program.encoding import program_root
from assay.training.task import TrainingTask


class SegmentStatements:
    """One member's part in the statements of one generation."""

    def __init__(self, store: Store, signer: Signer, task: TrainingTask, generation: int) -> None:
        self.store, self.signer, self.generation = store, signer, generation
        self._program_root = program_root(task.program)
        self._data_root = tree.root([tensor.root(part) for part in task.data])

    def sign(self, segment: int, start: bytes, end: bytes, keep: Callable[[SignedStage], None]) -> None:
        """Sign for a segment that was trained here, between the states with these roots, and hand it to everybody,
        after `keep` has put what defends it on disk."""
        work = self._work(segment, self.signer.until, start, end)
        signed = SignedStage(work, self.signer.sign(work), {})
        keep(signed)
        self.store.set(self._key(segment), json.dumps({"until": work.until, "signature": signed.signature.hex()}))

    def check(self, segment: int, name: str, start: bytes, end: bytes) -> SignedStage:
        """What the member `name` signed for its segment. Raises GroupMessageError where that is not what follows."""
        until, signature, _ = read_signed(self.store.get(self._key(segment)), (), name)
        work = self._work(segment, until, start, end)
        self.signer.check(work, signature, name, "segment")
        return SignedStage(work, signature, {})

    def _work(self, segment: int, until: int, start: bytes, end: bytes) -> StageWork:
        return StageWork(
            self.signer.group, self.generation, segment, until, self._program_root, self._data_root, start, end
        )

    def _key(self, segment: int) -> str:
        return f"segment/{self.generation}/{segment}"
