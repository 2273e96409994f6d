"""The reader of a role: the contracts' events since the deployment, read in pages, taken back when the chain
reorganises, and folded into records."""

from __future__ import annotations

from collections.abc import Sequence

from hexbytes import HexBytes

from assay.chain.logs import Cursor, LogReader
from assay.dispute.case import CaseView
from assay.dispute.reader import Event, view_of
from assay.market.abi import interface_of
from assay.market.connection import Market
from assay.market.deployment import MODULES
from assay.roles.fold import PlacedLog, fold
from assay.roles.records import MarketRecord, Moment

READ = tuple(name for name in MODULES if name != "Seeds")
COURT_EVENTS = ("CaseOpened", "Expanded", "Revealed", "Chosen")


class MarketReader:
    """Keeps `market` up to date; `moment` is the block it stands at."""

    def __init__(self, market: Market) -> None:
        self.access = market
        self.market = MarketRecord()
        self.moment = Moment(market.deployment.block, 0)
        self._names = {market.address(name).lower(): name for name in READ}
        self._reader = LogReader(market.chain, [market.address(name) for name in READ])
        self._cursor = Cursor(max(0, market.deployment.block - 1))
        self._logs: list[PlacedLog] = []
        self._case_logs: dict[int, list[PlacedLog]] = {}
        self.rolled_back_to: int | None = None  # by the last poll

    def poll(self) -> bool:
        """Read what is new. True if the chain has another head than before."""
        before = self.moment.block
        self.rolled_back_to = None
        while True:
            batch = self._reader.read(self._cursor)
            if batch.rolled_back_to is not None:
                self.rolled_back_to = min(batch.rolled_back_to, self.rolled_back_to or batch.rolled_back_to)
                self._forget_after(batch.rolled_back_to)
            fresh = self._decode(batch.logs)
            self._logs += fresh
            fold(fresh, self.market)
            self._index_cases(fresh)
            done = batch.cursor.block == self._cursor.block or not batch.cursor.hashes
            self._cursor = batch.cursor
            if done or batch.cursor.block >= self._head():
                break
        self._set_moment()
        return self.rolled_back_to is not None or self.moment.block != before

    def _head(self) -> int:
        eth = self.access.chain.web3.eth
        return int(self.access.chain.ask("asking for the newest block", lambda: eth.block_number))

    def _set_moment(self) -> None:
        number = self._cursor.block
        if number != self.moment.block or self.moment.time == 0 or self.rolled_back_to is not None:
            eth = self.access.chain.web3.eth
            block = self.access.chain.ask(f"reading block {number}", lambda: eth.get_block(number))
            self.moment = Moment(number, int(block["timestamp"]))

    def _decode(self, logs: Sequence[object]) -> list[PlacedLog]:
        placed = []
        for log in logs:
            name = self._names[str(log["address"]).lower()]  # type: ignore[index]
            topics = [bytes(HexBytes(topic)) for topic in log["topics"]]  # type: ignore[index]
            decoded = interface_of(name).event(topics, bytes(HexBytes(log["data"])))  # type: ignore[index]
            if decoded is not None:
                placed.append(PlacedLog(int(log["blockNumber"]), decoded))  # type: ignore[index]
        return placed

    def _index_cases(self, logs: Sequence[PlacedLog]) -> None:
        for placed in logs:
            if placed.log.contract == "Court" and placed.log.name in COURT_EVENTS:
                self._case_logs.setdefault(placed.log.arguments["caseId"], []).append(placed)

    def _forget_after(self, block: int) -> None:
        self._logs = [placed for placed in self._logs if placed.block <= block]
        self.market = fold(self._logs)
        self._case_logs = {}
        self._index_cases(self._logs)

    @property
    def logs(self) -> Sequence[PlacedLog]:
        """Everything read so far, in chain order."""
        return self._logs

    def case_view(self, case_id: int) -> CaseView | None:
        """A case as its players see it; None if the chain has moved on beyond the events read so far."""
        court = self.access.court
        position = court.position(case_id)
        case, cursor = court.ask("caseOf", case_id)
        events = [Event(placed.log.name, placed.log.arguments) for placed in self._case_logs.get(case_id, [])]
        if not events or bytes(events[-1].arguments["position"]) != position:
            return None
        return view_of(case_id, position, {**case, "cursor": cursor}, events)
