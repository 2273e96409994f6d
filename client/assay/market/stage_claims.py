"""What members of groups say about their stages, and the court over it (contracts/StageClaims.sol)."""

from __future__ import annotations

from collections.abc import Sequence

from assay.chain.sender import Call
from assay.market.members_ledger import MembersLedgerContract
from assay.market.numbering import number_of
from assay.market.types import StageWork

_WORK = "(address,uint32,uint32,uint40,bytes32,bytes32,bytes32,bytes32)"


class StageClaimsContract(MembersLedgerContract):
    """Typed access. Cases are opened and played at `Market.stage_court`."""

    def publish(self, work: StageWork, signature: bytes) -> Call:
        """Open a member's signed statement about an exact task to the court."""
        return self.call("publish", work.as_tuple(), signature)

    def accuse(
        self, work: StageWork, signature: bytes, end_root: bytes, fault_bits: int, proof: Sequence[bytes], bond: int
    ) -> Call:
        """Say that the work another member signed for in a tolerant task is garbage: its checking program ends in the
        state `end_root`, whose first tensor, opened by `proof`, is the fault. `bond`: `accusation_bond`, in wei."""
        return self.call("accuse", work.as_tuple(), signature, end_root, fault_bits, list(proof), value=bond)

    def conclude(self, claim_id: int) -> Call:
        """Convict the member of an accusation that nobody refuted in its window; the accuser has its bond back."""
        return self.call("conclude", claim_id)

    def has_fallen(self, claim_id: int) -> bool:
        """Whether a case has refuted a statement, or an accusation."""
        return bool(self.ask("hasFallen", claim_id))

    def case_bond(self) -> int:
        """What a case costs, in wei."""
        return int(self.ask("CASE_BOND"))

    def accusation_bond(self) -> int:
        """What an accusation costs, in wei."""
        return int(self.ask("ACCUSATION_BOND"))

    def window(self) -> int:
        """Seconds in which cases can be opened on an accusation."""
        return int(self.ask("WINDOW"))


def stage_claim_id(chain_id: int, address: str, work: StageWork, member: str) -> int:
    """Number of a member's statement at the `StageClaims` of an address."""
    return _number("stage claim", chain_id, address, work, member)


def stage_accusation_id(chain_id: int, address: str, work: StageWork, member: str, accuser: str) -> int:
    """Number of what one member of a group accuses another's work of, at the `StageClaims` of an address."""
    return _number("stage accusation", chain_id, address, work, member, accuser)


def _number(kind: str, chain_id: int, address: str, work: StageWork, *accounts: str) -> int:
    kinds = ["string", "uint256", "address", _WORK, *("address" for _ in accounts)]
    return number_of(kinds, [kind, chain_id, address, work.as_tuple(), *accounts])
