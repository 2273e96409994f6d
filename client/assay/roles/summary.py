"""What a node has done since it was started, for its last line of output."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from assay.chain.sender import Outcome, Sent


@dataclass
class Tally:
    """Transactions and what they cost, in gas and wei."""

    succeeded: int = 0
    failed: int = 0
    gas: int = 0
    fees: int = 0

    def add(self, sent: Sent) -> None:
        """Count a transaction that has become final."""
        self.succeeded += sent.outcome is Outcome.SUCCEEDED
        self.failed += sent.outcome is Outcome.FAILED
        self.gas += sent.gas_used or 0
        self.fees += sent.fee or 0

    def as_json(self) -> dict[str, Any]:
        """Amounts in wei as text."""
        return {"succeeded": self.succeeded, "failed": self.failed, "gas": self.gas, "fees": str(self.fees)}


@dataclass
class Summary:
    """Counts of one node. Transactions sent for no task in particular (deposits, seats) count under none."""

    account: str
    roles: Sequence[str]
    begin: float = field(default_factory=time.monotonic)
    all: Tally = field(default_factory=Tally)
    by_task: dict[int, Tally] = field(default_factory=dict)

    def finished(self, sent: Sent, task: int | None) -> None:
        """A transaction, sent for a task or for none, has become final."""
        self.all.add(sent)
        if task is not None:
            self.by_task.setdefault(task, Tally()).add(sent)

    def as_json(self, earned: dict[int, int]) -> dict[str, Any]:
        """The last line of `run --json`. `earned`: wei credited to the account, by task."""
        tasks = [
            {
                "task": f"{task:#066x}",
                "transactions": self.by_task.get(task, Tally()).as_json(),
                "earned": str(earned.get(task, 0)),
            }
            for task in {**self.by_task, **earned}
        ]
        return {
            "event": "summary",
            "account": self.account,
            "roles": list(self.roles),
            "seconds": round(time.monotonic() - self.begin, 1),
            "transactions": self.all.as_json(),
            "earned": str(sum(earned.values())),
            "tasks": tasks,
        }
