"""Claims, accusations, and what the court is asked about (contracts/Claims.sol).

A *line* is a subject of claims: a round (its number), an accusation, or a task's training claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assay.chain.sender import Call
from assay.market.contract import Contract
from assay.market.numbering import number_of
from assay.market.types import Checkpoint, Line, ProfileLeaf, Published, ReplayLeaf


class ClaimsContract(Contract):
    """Typed access."""

    def publish_replay(self, line: int, leaves: Sequence[ReplayLeaf], checkpoints: Sequence[Checkpoint]) -> Call:
        """Put an answer's leaves on chain and open the line's present claim to the court. A case needs both."""
        return self.call("publishReplay", line, list(leaves), list(checkpoints))

    def publish_profile(self, line: int, leaves: Sequence[ProfileLeaf]) -> Call:
        """The same for a profile."""
        return self.call("publishProfile", line, list(leaves))

    def publish_training(self, task: int) -> Call:
        """Open the training claim of an exact task to the court."""
        return self.call("publishTraining", task)

    def accuse(self, task: int, segment: int, leaf: ReplayLeaf, checkpoint: Checkpoint, bond: int) -> Call:
        """Accuse an undrawn segment of a tolerant task; `checkpoint` is the solver's after it, opened."""
        return self.call("accuse", task, segment, [leaf], [checkpoint], value=bond)

    def close_accusation(self, line: int) -> Call:
        """Close an accusation that nobody can dispute any more."""
        return self.call("closeAccusation", line)

    def case_bond(self) -> int:
        return int(self.ask("CASE_BOND"))

    def accusation_bond(self) -> int:
        return int(self.ask("ACCUSATION_BOND"))

    def line(self, line: int) -> Line:
        found: Line = self.ask("lineOf", line)
        return found

    def published(self, line: int, root: bytes) -> Published:
        found: Published = self.ask("publishedOf", line, root)
        return found

    def claim(self, claim_id: int) -> dict[str, Any]:
        """A claim as the court sees it, by the contract's names."""
        found: dict[str, Any] = self.ask("claim", claim_id)
        return found

    def segment_of(self, claim_id: int, leaf: int) -> int:
        """Segment that a leaf of a claim is about."""
        return int(self.ask("segmentOf", claim_id, leaf))

    def is_challengeable(self, task: int) -> bool:
        """Whether training claims can be disputed, and segments accused."""
        return bool(self.ask("isChallengeable", task))

    def is_standing(self, line: int) -> bool:
        """Whether the line's claim can be disputed no more."""
        return bool(self.ask("isStanding", line))

    def pending(self, task: int) -> int:
        """Open cases on the training claim, and open accusations."""
        return int(self.ask("pendingOf", task))


def claim_id_of(line: int, root: bytes, claimant: str) -> int:
    """Number of the claim of an account with that root in a line."""
    return number_of(["string", "uint256", "bytes32", "address"], ["claim", line, root, claimant])


def training_line_of(task: int) -> int:
    """Line of a task's training claim."""
    return number_of(["string", "uint256"], ["training", task])


def accusation_of(task: int, segment: int, accuser: str) -> int:
    """Line of an accusation."""
    return number_of(["string", "uint256", "uint32", "address"], ["accusation", task, segment, accuser])
