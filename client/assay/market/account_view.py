"""What is known of accounts and their stake: a part of `MarketView`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from eth_utils.address import to_checksum_address

from assay.market import events as e
from assay.market.logs import Logged
from assay.market.types import Class


class AccountView:
    """`seats` are the verifiers' roll: account to (seats, limit). `joined_at` is the block of an account's last
    joining, or first deposit; `leaving` is when an account's leaving stake can be released; `deposits` and
    `withdrawals` count those of an account so far."""

    def __init__(self) -> None:
        self.seats: dict[str, tuple[int, int]] = {}
        self.joined_at: dict[str, int] = {}
        self.leaving: dict[str, int] = {}
        self.deposits: Counter[str] = Counter()
        self.withdrawals: Counter[str] = Counter()

    def apply(self, logged: Logged) -> None:
        """Take one event in."""
        handler = _HANDLERS.get(type(logged.event))
        if handler is not None:
            handler(self, logged.event, logged)

    def _joined(self, event: e.Joined, logged: Logged) -> None:
        self.joined_at[event.whistleblower] = logged.block

    def _coin_entered(self, event: e.CoinEntered, logged: Logged) -> None:
        if event.class_ is Class.FREE:
            account = to_checksum_address(f"0x{event.id:040x}")
            self.deposits[account] += 1
            self.joined_at.setdefault(account, logged.block)

    def _leaving(self, event: e.StakeLeaving, _logged: Logged) -> None:
        self.leaving[event.account] = event.until

    def _coin_moved(self, event: e.CoinMoved, _logged: Logged) -> None:
        if event.from_ is Class.LEAVING and event.to is Class.CREDIT:
            self.leaving.pop(to_checksum_address(f"0x{event.from_id:040x}"), None)

    def _coin_left(self, event: e.CoinLeft, _logged: Logged) -> None:
        self.withdrawals[event.account] += 1

    def _enlisted(self, event: e.Enlisted, _logged: Logged) -> None:
        self.seats[event.account] = (event.seats, event.limit)

    def _delisted(self, event: e.Delisted, _logged: Logged) -> None:
        if event.seats:
            self.seats[event.account] = (event.seats, self.seats.get(event.account, (0, 0))[1])
        else:
            self.seats.pop(event.account, None)


_HANDLERS: dict[type[Any], Callable[[AccountView, Any, Logged], None]] = {
    e.Joined: AccountView._joined,
    e.CoinEntered: AccountView._coin_entered,
    e.CoinLeft: AccountView._coin_left,
    e.CoinMoved: AccountView._coin_moved,
    e.StakeLeaving: AccountView._leaving,
    e.Enlisted: AccountView._enlisted,
    e.Delisted: AccountView._delisted,
}
