"""What must be true of the accounts: kept from the ledger's own events, and compared with the chain."""

from __future__ import annotations

from collections import Counter
from typing import Any

from assay.market import events as e
from assay.market.reader import MarketReader
from assay.market.types import Class, TaskState

HELD = (Class.LOCKED, Class.ESCROW, Class.ROUND, Class.CASE, Class.DEMAND, Class.RESERVE)
"""Buckets that are empty once everything has ended."""


def buckets(reader: MarketReader) -> Counter[tuple[Class, int]]:
    """What every bucket holds in wei, from the events `Entered`, `Moved` and `Left` alone."""
    held: Counter[tuple[Class, int]] = Counter()
    for logged in reader.events("Stakes"):
        event = logged.event
        if isinstance(event, e.CoinEntered):
            held[event.class_, event.id] += event.amount
        elif isinstance(event, e.CoinMoved):
            held[event.from_, event.from_id] -= event.amount
            held[event.to, event.to_id] += event.amount
        elif isinstance(event, e.CoinLeft):
            held[Class.CREDIT, int(event.account, 16)] -= event.amount
    return +held if all(amount >= 0 for amount in held.values()) else held


def left_over(reader: MarketReader) -> dict[str, int]:
    """Wei that tasks, rounds, cases and demands still hold, by class."""
    sums: Counter[str] = Counter()
    for (kind, _), amount in buckets(reader).items():
        if kind in HELD and amount:
            sums[kind.name.lower()] += amount
    return dict(sums)


def unfinished(reader: MarketReader) -> list[str]:
    """Tasks that are not over, and shares nobody has released, in words."""
    view = reader.view
    words = [f"task {task.id:#x} is {task.state.name.lower()}" for task in view.running()]
    words += [f"task {task.id:#x} holds unreleased shares" for task in view.unreleased()]
    return words


def examine(reader: MarketReader) -> list[str]:
    """Everything that is wrong with the accounts; empty where they balance to the wei."""
    market, wrong = reader.market, []
    held = buckets(reader)
    stakes = market.addresses["Stakes"]
    eth = market.chain.web3.eth
    balance = int(eth.get_balance(market.chain.web3.to_checksum_address(stakes)))
    total = market.stakes.total()
    if balance != total or total != sum(held.values()):
        wrong.append(f"the ledger has {balance} wei, counts {total}, and its events come to {sum(held.values())}")
    for (kind, identity), amount in held.items():
        on_chain = market.stakes.balance(kind, identity)
        if amount < 0 or on_chain != amount:
            wrong.append(f"bucket {kind.name.lower()} {identity:#x} holds {on_chain} wei, its events say {amount}")
    for name, address in market.addresses.items():
        if name != "Stakes" and eth.get_balance(market.chain.web3.to_checksum_address(address)):
            wrong.append(f"the contract {name} holds coin")
    return wrong


def ends(reader: MarketReader) -> dict[str, int]:
    """How many tasks ended in each state."""
    counted = Counter(task.state for task in reader.view.tasks.values())
    return {state.name.lower(): counted[state] for state in TaskState if counted[state]}


def doubled(reader: MarketReader) -> list[str]:
    """Things that happened twice and may only once."""
    seen: Counter[Any] = Counter()
    for contract in ("Market", "Verification", "Settlement", "Answers"):
        for logged in reader.events(contract):
            event = logged.event
            if isinstance(event, (e.ProofRegistered, e.TaskFinished)):
                seen[type(event).__name__, event.task_id] += 1
            elif isinstance(event, (e.RoundCommitted, e.RoundDisclosed)):
                seen[type(event).__name__, event.round_id] += 1
            elif isinstance(event, e.ShareReleased):
                seen["ShareReleased", event.task_id, event.share] += 1
            elif isinstance(event, e.AnswerCollected):
                seen["AnswerCollected", event.round_id, event.whistleblower] += 1
    return [f"{key} happened {times} times" for key, times in seen.items() if times > 1]
