"""What members that train segments alone (`side_by_side`) sign about them: the task's program, over its data, from this
state, ended in that one. It is a stage statement (`stage_statements`) whose stage is the whole program, so the same
court decides on it."""

from __future__ import annotations

import json

from eth_account import Account
from torch._C._distributed_c10d import Store

from assay.commitments import tensor, tree
from assay.group.errors import GroupMessageError
from assay.group.execution.stage_statements import SignedStage, Signer
from assay.market.group_agreement import sign_statement, statement_signer
from assay.market.types import StageWork
from assay.program.encoding import program_root
from assay.training.task import TrainingTask


class SegmentStatements:
    """One member's part in the statements of one generation."""

    def __init__(self, store: Store, signer: Signer, task: TrainingTask, generation: int) -> None:
        self.store, self.signer, self.generation = store, signer, generation
        self._program_root = program_root(task.program)
        self._data_root = tree.root([tensor.root(part) for part in task.data])

    def sign(self, segment: int, start: bytes, end: bytes) -> None:
        """Sign for a segment that was trained here, between the states with these roots, and hand it to everybody."""
        until = int(self.signer.now) + self.signer.record_seconds
        work = self._work(segment, until, start, end)
        account = Account.from_key(self.signer.private_key)
        signature = sign_statement(work.statement(self.signer.task), self.signer.chain_id, work.group, account)
        self.store.set(self._key(segment), json.dumps({"until": until, "signature": signature.hex()}))

    def check(self, segment: int, name: str, start: bytes, end: bytes) -> SignedStage:
        """What the member `name` signed for its segment. Raises GroupMessageError where that is not what follows."""
        try:
            document = json.loads(self.store.get(self._key(segment)))
            until, signature = int(document["until"]), bytes.fromhex(document["signature"])
            if not 0 <= until < 1 << 40:
                raise ValueError(f"{until} is no time")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GroupMessageError(f"{name!r} signed nothing that can be read ({error}); exclude it") from error
        if until < self.signer.now + self.signer.record_seconds / 2:
            raise GroupMessageError(
                f"{name!r} answers for segment {segment} until {until} only, {self.signer.record_seconds} seconds were "
                "agreed: set its clock right, or exclude it"
            )
        work, address = self._work(segment, until, start, end), self.signer.addresses[name]
        statement = work.statement(self.signer.task)
        if statement_signer(statement, self.signer.chain_id, work.group, signature) != address:
            raise GroupMessageError(
                f"what {name!r} signed about segment {segment} is not what it gave, or not signed by {address}; "
                "exclude the member"
            )
        return SignedStage(work, signature, {})

    def _work(self, segment: int, until: int, start: bytes, end: bytes) -> StageWork:
        return StageWork(
            self.signer.group, self.generation, segment, until, self._program_root, self._data_root, start, end
        )

    def _key(self, segment: int) -> str:
        return f"segment/{self.generation}/{segment}"
