"""The court's moves and views (contracts/Court.sol), for the players of `assay.dispute`."""

from __future__ import annotations

from typing import Any

from assay.chain.sender import Call
from assay.dispute.moves import Move
from assay.market.contract import Contract


class CourtContract(Contract):
    """Typed access. Structs are mappings by the contract's names, as `assay.dispute.reader` takes them."""

    def open(self, claim_id: int, leaf: int, part: int, answer_root: bytes, evidence: Any, bond: int) -> Call:
        """Open a case on one part of one leaf of a claim."""
        return self.call("open", claim_id, leaf, int(part), answer_root, evidence, value=bond)

    def move(self, case_id: int, position: bytes, move: Move) -> Call:
        """A move of a case, answering `position`."""
        if move.function == "timeout":
            return self.call("timeout", case_id)
        return self.call(move.function, case_id, position, *move.arguments)

    def timeout(self, case_id: int) -> Call:
        """Close a case whose side in turn let its clock run out."""
        return self.call("timeout", case_id)

    def set_delegate(self, delegate: str, allowed: bool) -> Call:
        """Let another account make the caller's moves."""
        return self.call("setDelegate", delegate, allowed)

    def refute_program(self, task: int, header: bytes, evidence: Any) -> Call:
        """Show that a task's program is not well-formed."""
        return self.call("refuteProgram", task, header, evidence)

    def case(self, case_id: int) -> dict[str, Any]:
        """A case as it stands, with its `cursor` (`assay.dispute.reader.view_of`)."""
        case, cursor = self.ask("caseOf", case_id)
        return {**case, "cursor": cursor}

    def position(self, case_id: int) -> bytes:
        """What the next move must answer."""
        return bytes(self.ask("positionOf", case_id))

    def deadline(self, case_id: int) -> int:
        """When the side in turn runs out of time."""
        return int(self.ask("deadlineOf", case_id))

    def minimum_bond(self) -> int:
        """The least bond of a case."""
        return int(self.ask("MINIMUM_BOND"))
