"""Tasks: posting, auction, registration (contracts/Market.sol)."""

from __future__ import annotations

from collections.abc import Sequence

from assay.chain.sender import Call
from assay.market.contract import Contract
from assay.market.types import Posting, Task, TaskState


class TasksContract(Contract):
    """Typed access."""

    def submit(self, posting: Posting, escrow: int) -> Call:
        """Post a task and pay its escrow (`escrow_of`)."""
        return self.call("submit", posting, value=escrow)

    def take(self, task: int, lowest: int = 0) -> Call:
        """Take a task, for no less than `lowest` wei."""
        return self.call("take", task, lowest)

    def step_down(self, task: int) -> Call:
        """Give a taken task up, for a forfeit."""
        return self.call("stepDown", task)

    def late(self, task: int) -> Call:
        """Take a task from a late solver."""
        return self.call("late", task)

    def cancel(self, task: int) -> Call:
        """Withdraw an open task."""
        return self.call("cancel", task)

    def expire(self, task: int) -> Call:
        """End a task that nobody took."""
        return self.call("expire", task)

    def register(
        self,
        task: int,
        checkpoint_root: bytes,
        final_root: bytes,
        first: Sequence[bytes],
        last: Sequence[bytes],
        locations: str,
    ) -> Call:
        """Post a proof of learning; `first` and `last` are siblings of checkpoints 0 and S."""
        return self.call("register", task, checkpoint_root, final_root, list(first), list(last), locations)

    def escrow_of(self, posting: Posting) -> int:
        """What a posting's escrow comes to."""
        return int(self.ask("escrowOf", posting))

    def lowest_fee(self, work: int) -> int:
        """Lowest fee of a round with so much work."""
        return int(self.ask("lowestFee", work))

    def task(self, task: int) -> Task:
        """The task as it stands."""
        found: Task = self.ask("taskOf", task)
        return found

    def state(self, task: int) -> TaskState:
        return TaskState(self.ask("stateOf", task))

    def price(self, task: int) -> int:
        """What a solver who takes the task now gets."""
        return int(self.ask("priceOf", task))

    def stake(self, task: int) -> int:
        """What a solver has to stake."""
        return int(self.ask("stakeOf", task))

    def tax(self, task: int) -> int:
        """Jackpot tax of one round."""
        return int(self.ask("taxOf", task))


def exponent_of(work: int) -> int:
    """Least e with work <= 2^e, as the contract computes it."""
    return max(0, (work - 1).bit_length())
