"""The loop of a role's process: read, decide, send; and look after what was sent before."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence

from hexbytes import HexBytes
from web3.exceptions import TransactionNotFound

from assay.chain.errors import ChainError, FeeCapError, RevertedError
from assay.chain.sender import Outcome, Sender, Sent
from assay.market.connection import Market
from assay.market.reader import MarketReader
from assay.market.types import RoundState
from assay.roles.bench import Jobs, Workbench
from assay.roles.cases import case_view
from assay.roles.common import own_cases
from assay.roles.context import Context, Player, Purse, Send, Work
from assay.roles.metrics import Metrics
from assay.state import StateFolder

logger = logging.getLogger(__name__)

RETRIES = 3
"""How often a transaction that was mined and reverted is sent again."""


class Node:
    """One account's roles on one chain."""

    def __init__(
        self,
        market: Market,
        sender: Sender,
        state: StateFolder,
        bench: Workbench,
        players: Sequence[Player],
        metrics: Metrics,
        pause: float = 1.0,
    ) -> None:
        self.market, self.sender, self.state, self.bench = market, sender, state, bench
        self.players, self.metrics, self.pause = players, metrics, pause
        self.reader = MarketReader(market)
        self.jobs = Jobs()
        self._refused: dict[str, str] = {}
        self._running = 0

    def secret(self, name: str) -> bytes:
        """32 random bytes, drawn once for a name and on disk before they are used."""
        return bytes.fromhex(self.state.put_once(f"secret:{name}", secrets.token_hex(32)))

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Work until `stop()`. An endpoint that fails is waited for."""
        logger.info(
            "started",
            extra={"account": self.sender.address, "roles": ",".join(player.name for player in self.players)},
        )
        dirty = True
        try:
            while not stop():
                try:
                    dirty = self.turn(dirty)
                except ChainError as error:
                    logger.warning("%s", error, extra={"code": error.code})
                    dirty = True
                    time.sleep(max(1.0, self.pause))
                time.sleep(self.pause)
        finally:
            self.jobs.close()

    def turn(self, dirty: bool = True) -> bool:
        """One look at the chain. True if the next look must decide again even if the chain has not moved."""
        finished = self.sender.advance()
        for sent in finished:
            self._note(sent)
        before = self.reader.view.block
        events = self.reader.poll()
        changed = bool(events) or self.reader.view.block != before or self.reader.rolled_back_to is not None
        if self.reader.rolled_back_to is not None:
            logger.warning("the chain was reorganised", extra={"block": self.reader.rolled_back_to})
            self.sender.reopen_after(self.reader.rolled_back_to)
        running = self.jobs.running
        if not (changed or dirty or finished or running != self._running):
            return False
        self._running = running
        acted = self._decide()
        self._measure(acted)
        if not acted and not self.jobs.running and not self.sender.pending():
            logger.debug("waiting", extra={"block": self.reader.view.block})
            return False
        return acted

    def context(self) -> Context:
        """What the players see now."""
        me, reader = self.sender.address, self.reader
        stakes = self.market.stakes
        purse = Purse(
            stakes.free(me), stakes.locked(me), stakes.credit(me), stakes.seats(me), stakes.pool(),
            stakes.active_whistleblowers(),
        )  # fmt: skip
        cases, deadlines = {}, {}
        for case in own_cases(reader.view, me):
            found_case = case_view(reader, case.id)
            if found_case is not None:
                cases[case.id] = found_case
                deadlines[case.id] = self.market.court.deadline(case.id)
        seeds = {}
        for found in reader.view.rounds_holding(me):
            if found.verifier == me and found.state is RoundState.COMMITTED and found.lottery_block < reader.view.block:
                seed = self.market.seeds.lottery(found.lottery_block, found.id)
                if any(seed):
                    seeds[found.id] = seed
        return Context(
            self.market, me, reader.view, purse, self.jobs, self.bench, self.secret, cases, deadlines,
            seeds,
        )  # fmt: skip

    def _decide(self) -> bool:
        """Carry out what the players decide. True if anything was begun or sent."""
        context = self.context()
        acted = False
        for player in self.players:
            for action in player.plan(context):
                if isinstance(action, Work):
                    if self.jobs.failures(action.key) * 1.0 <= RETRIES * 4:
                        self.jobs.start(action.key, action.run)
                        acted = True
                else:
                    acted = self._send(action) or acted
        self._purse = context.purse
        return acted

    def _send(self, action: Send) -> bool:
        key = action.key
        for attempt in range(RETRIES + 1):
            key = action.key if attempt == 0 else f"{action.key}#{attempt}"
            known = self.sender.find(key)
            if known is None:
                break
            if known.outcome is not Outcome.FAILED:
                self._check_final(known)
                return False
        else:
            return False
        try:
            sent = self.sender.submit(key, action.call)
        except (RevertedError, FeeCapError) as error:
            if self._refused.get(action.key) != str(error):
                logger.warning("%s", error, extra={"key": action.key, "code": error.code})
                self._refused[action.key] = str(error)
            return False
        logger.info(
            "%s",
            action.key.partition(":")[0],
            extra={
                "task": None if action.task is None else f"{action.task:#x}",
                "segment": action.segment,
                "transaction": sent.hash,
                "key": key,
            },
        )
        for final in self.sender.advance():
            self._note(final)
        return True

    def _check_final(self, sent: Sent) -> None:
        """What is final but still asked for, though its block was read, may have been dropped unseen: look again."""
        if sent.block is None or sent.block > self.reader.view.block:
            return
        eth = self.market.chain.web3.eth

        def is_there() -> bool:
            try:
                eth.get_transaction_receipt(HexBytes(sent.hash))
            except TransactionNotFound:
                return False
            return True

        if not self.market.chain.ask("asking for a receipt", is_there):
            logger.warning("a transaction is no longer on the chain", extra={"key": sent.key, "transaction": sent.hash})
            self.sender.reopen_after(sent.block - 1)

    def _note(self, sent: Sent) -> None:
        self.metrics.count(sent.outcome.value, sent.gas_used or 0)

    def _measure(self, acted: bool) -> None:
        purse = self._purse
        self.metrics.credit.set(purse.credit / 1e18)
        self.metrics.free.set(purse.free / 1e18)
        self.metrics.locked.set(purse.locked / 1e18)
        self.metrics.block.set(self.reader.view.block)
        self.metrics.queue.set(self.jobs.running + len(self.sender.pending()))
