"""Ending tasks and releasing what their rounds hold (contracts/Settlement.sol, contracts/Demands.sol, Jackpot.sol)."""

from __future__ import annotations

from collections.abc import Sequence

from assay.chain.sender import Call
from assay.market.contract import Contract
from assay.market.types import Demand, Entry, Place


class SettlementContract(Contract):
    """Typed access."""

    def settle(self, task: int) -> Call:
        """Settle a task whose claims all stand."""
        return self.call("settle", task)

    def settle_profile(self, task: int) -> Call:
        """End the profiling of a task whose profile stands."""
        return self.call("settleProfile", task)

    def release(self, task: int, share: int) -> Call:
        """Release a share of a task that has ended."""
        return self.call("release", task, share)


class DemandsContract(Contract):
    """Typed access."""

    def demand(self, task: int, round_id: int, place: Place, header: bytes, entry: Entry, price: int) -> Call:
        """Demand one chunk of a task's files on chain."""
        return self.call("demand", task, round_id, place, header, entry, value=price)

    def serve(self, demand_id: int, chunk: bytes, proof: Sequence[bytes]) -> Call:
        """Serve it: the 1024 bytes and their siblings up to the data root or checkpoint root."""
        return self.call("serve", demand_id, chunk, list(proof))

    def not_served(self, demand_id: int) -> Call:
        """A demand was not served in time: the task fails."""
        return self.call("notServed", demand_id)

    def price(self) -> int:
        return int(self.ask("PRICE"))

    def pending(self, task: int) -> int:
        """Open demands of a task."""
        return int(self.ask("pendingOf", task))

    def open_demand(self, demand_id: int) -> Demand:
        found: Demand = self.ask("demandOf", demand_id)
        return found


class JackpotContract(Contract):
    """Typed access."""

    def prize(self, round_id: int) -> int:
        """Jackpot reserved for a round."""
        return int(self.ask("prizeOf", round_id))

    def highest(self) -> int:
        return int(self.ask("HIGHEST"))


class SeedsContract(Contract):
    """Typed access."""

    def seed_at(self, block: int, salt: bytes) -> bytes:
        """The seed fixed by a block's hash, mixed with `salt`; 32 zero bytes while it is not known, or no longer."""
        return bytes(self.ask("seedAt", block, salt))

    def lottery(self, block: int, round_id: int) -> bytes:
        """The lottery's seed of a round."""
        return self.seed_at(block, round_id.to_bytes(32, "big"))

    def missed(self, block: int) -> bool:
        """Whether a block is past and its hash out of reach."""
        return bool(self.ask("missed", block))
