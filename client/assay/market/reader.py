"""Following a deployment: logs are kept in SQLite (in memory, or a file that saves reading them again) and make a view.

After a reorganisation the logs of the lost blocks are deleted and the view is made anew from the rest.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from assay.chain.logs import Cursor, LogReader
from assay.market.connection import Market
from assay.market.errors import DeploymentError
from assay.market.logs import COURTS, Logged, RawLog, decode_log, raw_log
from assay.market.view import MarketView

SCHEMA = 2
TOPIC_BYTES = 32
OF_COURTS = "contract IN ('{}')".format("', '".join(COURTS))


class MarketReader:
    """Follows one deployment. One thread at a time.

    `path` is a cache on disk, None for memory; it may be deleted at any time, and while one reader uses it others keep
    their logs in memory. `confirmations` as for a `Sender`: 1 takes events of the newest block.
    """

    def __init__(self, market: Market, path: Path | None = None, confirmations: int = 1) -> None:
        self.market = market
        self._names = {address.lower(): name for name, address in market.addresses.items()}
        self._logs = LogReader(
            market.chain, list(market.addresses.values()), max(0, confirmations - 1), first=market.deployment.block
        )
        self._lock = None if path is None else _lock(path)
        self._database = _open(path if self._lock is not None else None, self._identity())
        self.view = MarketView()
        self.rolled_back_to: int | None = None
        """The lowest block that the last poll went back to, if the chain had been reorganised."""
        self._cursor = self._saved_cursor()
        self._rebuild()

    def _identity(self) -> str:
        deployment = self.market.deployment
        return f"{SCHEMA}:{deployment.chain_id}:{deployment.addresses['Market']}:{deployment.block}"

    # -- following -----------------------------------------------------------------------------------------------

    def poll(self) -> list[Logged]:
        """Read up to the newest block; returns the new events in chain order, each already in the view.

        After a reorganisation, events of blocks that are part of the chain again are returned a second time.
        """
        new: list[Logged] = []
        self.rolled_back_to = None
        while True:
            before = self._cursor.block
            batch = self._logs.read(self._cursor)
            raw = [each for log in batch.logs if (each := raw_log(log, self._names)) is not None]
            with self._database:
                if batch.rolled_back_to is not None:
                    self._database.execute("DELETE FROM logs WHERE block > ?", (batch.rolled_back_to,))
                decoded = [(log, decode_log(log)) for log in raw]
                if batch.rolled_back_to is not None:
                    self.rolled_back_to = min(batch.rolled_back_to, self.rolled_back_to or batch.rolled_back_to)
                    self._rebuild()
                    new = [each for each in new if each.block <= batch.rolled_back_to]
                for log, logged in decoded:
                    self._keep(log, None if logged is None else self.view.apply(logged))
                    if logged is not None:
                        new.append(logged)
                self._save_cursor(batch.cursor)
            self._cursor = batch.cursor
            if batch.cursor.block == before and batch.rolled_back_to is None:
                break
        self._look_at_the_clock()
        return new

    def _look_at_the_clock(self) -> None:
        number = self._cursor.block
        if self.view.block == number and self.view.time:
            return
        eth = self.market.chain.web3.eth
        block = self.market.chain.ask(f"reading block {number}", lambda: eth.get_block(number))
        self.view.block, self.view.time = number, int(block["timestamp"])

    # -- what happened -------------------------------------------------------------------------------------------

    def events(self, contract: str) -> Iterator[Logged]:
        """All events of a contract (Solidity name), in chain order."""
        return self._kept("contract = ?", contract)

    def history(self, task_id: int) -> list[Logged]:
        """All events about a task, and all others in the same transactions (payments), in chain order."""
        return list(self._kept("tx IN (SELECT DISTINCT tx FROM logs WHERE task = ?)", f"{task_id:064x}"))

    def case_events(self, case_id: int) -> list[Logged]:
        """The events of the courts about a case, in chain order."""
        return list(self._kept(f"{OF_COURTS} AND substr(topics, 33, 32) = ?", case_id.to_bytes(32, "big")))

    # -- keeping logs --------------------------------------------------------------------------------------------

    def _keep(self, log: RawLog, task_id: int | None) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO logs VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                log.block, log.index, log.transaction, log.contract, b"".join(log.topics), log.data,
                None if task_id is None else f"{task_id:064x}",
            ),
        )  # fmt: skip

    def _kept(self, condition: str, *values: str | bytes) -> Iterator[Logged]:
        """The events of the logs that a condition of SQL holds for, in chain order."""
        rows = self._database.execute(
            f"SELECT block, place, tx, contract, topics, data FROM logs WHERE {condition} ORDER BY block, place", values
        )
        return (logged for row in rows if (logged := decode_log(_raw(row))) is not None)

    def _rebuild(self) -> None:
        self.view = MarketView()
        for logged in self._kept("TRUE"):
            self.view.apply(logged)

    def _saved_cursor(self) -> Cursor:
        row = self._database.execute("SELECT value FROM meta WHERE key = 'cursor'").fetchone()
        if row is None:
            return Cursor(self.market.deployment.block)
        block, hashes = json.loads(row[0])
        return Cursor(int(block), tuple((int(number), str(digest)) for number, digest in hashes))

    def _save_cursor(self, cursor: Cursor) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO meta VALUES ('cursor', ?)", (json.dumps([cursor.block, list(cursor.hashes)]),)
        )

    def close(self) -> None:
        """Let go of the cache."""
        self._database.close()
        if self._lock is not None:
            self._lock.close()


def _raw(row: tuple[int, int, str, str, bytes, bytes]) -> RawLog:
    block, place, transaction, contract, topics, data = row
    parts = tuple(topics[start : start + TOPIC_BYTES] for start in range(0, len(topics), TOPIC_BYTES))
    return RawLog(block, place, transaction, contract, parts, data)


def _lock(path: Path) -> IO[str] | None:
    """Exclusive use of a cache, or None where another reader has it or the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file
    except OSError:
        return None


def _open(path: Path | None, identity: str) -> sqlite3.Connection:
    """The cache. One that belongs to another deployment, or is damaged, is made anew."""
    try:
        database = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False)
        try:
            return _prepared(database, identity)
        except sqlite3.DatabaseError:
            database.close()
            if path is None:
                raise
            path.unlink(missing_ok=True)
            return _prepared(sqlite3.connect(path, check_same_thread=False), identity)
    except (sqlite3.Error, OSError) as error:
        raise DeploymentError(f"cannot keep logs in {path}: {error}; free disk space or give another folder") from error


def _prepared(database: sqlite3.Connection, identity: str) -> sqlite3.Connection:
    database.execute("PRAGMA journal_mode = WAL")
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT")
        row = database.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        if row is not None and row[0] != identity:
            database.execute("DROP TABLE IF EXISTS logs")
            database.execute("DELETE FROM meta")
        database.execute("INSERT OR REPLACE INTO meta VALUES ('identity', ?)", (identity,))
        database.execute(
            "CREATE TABLE IF NOT EXISTS logs (block INTEGER, place INTEGER, tx TEXT NOT NULL, contract TEXT NOT NULL, "
            "topics BLOB NOT NULL, data BLOB NOT NULL, task TEXT, PRIMARY KEY (block, place)) STRICT, WITHOUT ROWID"
        )
        database.execute("CREATE INDEX IF NOT EXISTS by_task ON logs (task)")
        database.execute("CREATE INDEX IF NOT EXISTS by_transaction ON logs (tx)")
        database.execute(f"CREATE INDEX IF NOT EXISTS by_case ON logs (substr(topics, 33, 32)) WHERE {OF_COURTS}")
    return database
