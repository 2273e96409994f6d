"""What members of groups say about their stages, and the court over it (contracts/StageClaims.sol)."""

from __future__ import annotations

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from assay.chain.sender import Call
from assay.market.contract import Contract
from assay.market.types import StageWork

_WORK = "(address,uint32,uint32,uint40,bytes32,bytes32,bytes32,bytes32)"


class StageClaimsContract(Contract):
    """Typed access. Cases are opened and played at `Market.stage_court`."""

    def publish(self, work: StageWork, signature: bytes) -> Call:
        """Open a member's signed statement to the court."""
        return self.call("publish", work.as_tuple(), signature)

    def withdraw(self) -> Call:
        """Pay out the caller's credit."""
        return self.call("withdraw")

    def credit_of(self, account: str) -> int:
        """What an account can withdraw, in wei."""
        return int(self.ask("creditOf", account))

    def pending_of(self, group: str) -> int:
        """Open cases on statements of a group's members."""
        return int(self.ask("pendingOf", group))

    def has_fallen(self, claim_id: int) -> bool:
        """Whether a case has refuted a statement."""
        return bool(self.ask("hasFallen", claim_id))

    def case_bond(self) -> int:
        return int(self.ask("CASE_BOND"))


def stage_claim_id(chain_id: int, address: str, work: StageWork, member: str) -> int:
    """Number of a member's statement at the `StageClaims` of an address."""
    kinds = ["string", "uint256", "address", _WORK, "address"]
    return int.from_bytes(keccak(encode(kinds, ["stage claim", chain_id, address, work.as_tuple(), member])), "big")
