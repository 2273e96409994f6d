"""Whistleblowers' answers (contracts/Answers.sol)."""

from __future__ import annotations

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from assay.chain.sender import Call
from assay.market.contract import Contract
from assay.market.types import Answer, Tally


class AnswersContract(Contract):
    """Typed access."""

    def join(self, round_id: int) -> Call:
        """Join a round whose verifier has committed, before the lottery's block; the bond comes from free stake."""
        return self.call("join", round_id)

    def commit_answer(self, round_id: int, shown: bytes, commitment: bytes) -> Call:
        """Commit to an answer to exactly what was shown (`Round.commitment`)."""
        return self.call("commitAnswer", round_id, shown, commitment)

    def reveal_answer(self, round_id: int, root: bytes, salt: bytes) -> Call:
        """Reveal it, once nobody can commit any more."""
        return self.call("revealAnswer", round_id, root, salt)

    def collect(self, round_id: int, account: str) -> Call:
        """Pay out bond and prize of a resolved round."""
        return self.call("collect", round_id, account)

    def bond(self) -> int:
        """What joining puts at stake."""
        return int(self.ask("BOND"))

    def answer(self, round_id: int, account: str) -> Answer:
        found: Answer = self.ask("answerOf", round_id, account)
        return found

    def tally(self, round_id: int) -> Tally:
        found: Tally = self.ask("tallyOf", round_id)
        return found

    def joined(self, round_id: int) -> int:
        """How many have joined."""
        return int(self.ask("joinedOf", round_id))


def answer_commitment(round_id: int, account: str, root: bytes, salt: bytes) -> bytes:
    """What a whistleblower commits to."""
    return keccak(encode(["uint256", "address", "bytes32", "bytes32"], [round_id, account, root, salt]))
