"""The stage of the demonstration: a local chain, a folder of files, a process for every role, and the clock.

Roles are processes of their own that meet on the chain and in the store only. The clock is the stage's: windows of the
protocol last minutes or days, so whenever every role has looked at the newest block and found nothing to do, a block is
mined and some seconds pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from assay.accounts import import_keystore
from assay.chain.local import _end_with_parent
from assay.errors import AssayError
from assay.market.deployment import write_deployment
from assay.market.local import LocalMarket, start_local_market
from assay.market.parameters import LOCAL, CourtParameters
from assay.market.reader import MarketReader
from assay.market.types import Class

PASSWORD = "demonstration only"
COIN = 10**18
TICK_SECONDS = 10
POLL_SECONDS = 0.1
PARAMETERS = LOCAL.with_changes(
    {
        "forced_rate": 500_000,
        "commit_seconds": 3600,
        "answer_seconds": 3600,
        "reveal_seconds": 3600,
        "disclose_seconds": 3600,
        "dispute_seconds": 240,
        "demand_seconds": 600,
        "train_seconds": 3600,
        "draw_delay": 2,
        "join_blocks": 4,
        "show_blocks": 200,
    }
)
"""Windows in which nobody has to hurry. Half of the rounds are forced, so that one comes soon; a tenth is usual."""
COURT = CourtParameters(allowance=3600, extension=600, gas_price=2 * 10**9)


class ActError(AssayError):
    """The demonstration did not go as it must."""

    code = "demo"


@dataclass
class Actor:
    """A role's process with its account and logs."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path
    offset: int = 0
    waiting_at: int = -1
    errors: list[str] = field(default_factory=list)


class Stage:
    """Chain, files, accounts and processes. `say` gets a line of progress."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.store = folder / "store"
        self.local: LocalMarket = start_local_market(PARAMETERS, COURT, options=("--gas-limit", "60000000"))
        self.chain, self.market = self.local.chain, self.local.market
        self.deployment_file = folder / "deployment.json"
        write_deployment(self.local.deployment, self.deployment_file)
        self.reader = MarketReader(self.market)
        self.actors: dict[str, Actor] = {}
        self.accounts: dict[str, LocalAccount] = {}
        self._next_account = 1  # the first one deployed the contracts

    def account(self, name: str) -> LocalAccount:
        """The account of an actor, one of the chain's funded ones."""
        if name not in self.accounts:
            self.accounts[name] = Account.from_key(self.chain.private_keys[self._next_account])
            self._next_account += 1
        return self.accounts[name]

    # ---- Processes --------------------------------------------------------------------------------------------------

    def start(self, name: str, command: Sequence[str]) -> Actor:
        """Start a role in a process of its own: `command` follows `python -m`."""
        account = self.account(name)
        home = self.folder / name
        keystore = home / "key.json"
        if not keystore.exists():
            import_keystore(keystore, account.key.hex(), PASSWORD, iterations=1024)
        log = home / "log.jsonl"
        settings = {
            "chain.url": self.chain.url,
            "chain.deployment": self.deployment_file,
            "chain.poll_seconds": POLL_SECONDS,
            "storage.folder": self.store,
            "state.folder": home / "state",
            "account.keystore": keystore,
            "log.format": "json",
            "log.level": "debug",
        }
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        environment = {**os.environ, "ASSAY_PASSWORD": PASSWORD, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                preexec_fn=_end_with_parent,
            )
        actor = Actor(name, str(account.address), process, log)
        self.actors[name] = actor
        return actor

    def stop(self, name: str) -> None:
        """End a role's process."""
        actor = self.actors.pop(name, None)
        if actor is not None and actor.process.poll() is None:
            actor.process.terminate()
            try:
                actor.process.wait(10)
            except subprocess.TimeoutExpired:
                actor.process.kill()
                actor.process.wait()

    def close(self) -> None:
        """End everything."""
        for name in list(self.actors):
            self.stop(name)
        self.local.stop()

    # ---- Time -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read the roles' logs: show what they do, and where they wait."""
        for actor in self.actors.values():
            if actor.process.poll() is not None:
                tail = actor.log.read_text(errors="replace")[-1500:]
                raise ActError(f"the {actor.name} ended with exit code {actor.process.returncode}: {tail}")
            with actor.log.open("rb") as file:
                file.seek(actor.offset)
                content = file.read()
            end = content.rfind(b"\n") + 1
            actor.offset += end
            for line in content[:end].splitlines():
                self._read_line(actor, line)

    def _read_line(self, actor: Actor, line: bytes) -> None:
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:
            actor.errors.append(line.decode(errors="replace"))
            return
        event = str(record.get("event"))
        if event == "waiting":
            actor.waiting_at = int(record["block"])
            return
        actor.waiting_at = -1
        if record.get("level") == "debug":
            return
        if "transaction" in record and event not in ("sent", "succeeded", "failed"):
            self.say(f"  {actor.name:14} {event}")
        elif event in ("training", "replayed"):
            segment, step = record.get("segment"), record.get("step")
            detail = f"segment {segment}" if step is None else f"step {step} of {record['steps']}"
            self.say(f"  {actor.name:14} {event} {detail}")
        elif record.get("level") in ("warning", "error"):
            self.say(f"  {actor.name:14} {event}")

    def all_wait(self) -> bool:
        """Whether every role has looked at the newest block and found nothing to do."""
        head = self.reader.view.block
        return all(actor.waiting_at == head for actor in self.actors.values())

    def tick(self, seconds: int = TICK_SECONDS) -> None:
        """Let time pass, and mine a block."""
        for method, values in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
            self.market.chain.web3.provider.make_request(method, values)  # type: ignore[arg-type]

    def play_until(self, what: str, done: Callable[[], bool], limit: float = 120.0) -> None:
        """Let the roles play until `done()`, and time pass while they wait. Raises `ActError` after `limit` seconds."""
        end = time.monotonic() + limit
        while True:
            self.reader.poll()
            self.look()
            if done():
                return
            if time.monotonic() > end:
                raise ActError(f"after {limit:.0f} s still not: {what}")
            if self.all_wait():
                self.tick()
            time.sleep(0.03)

    def settle_down(self, limit: float = 30.0) -> None:
        """Wait until nobody has anything left to do, without letting time pass."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            self.reader.poll()
            self.look()
            if self.all_wait():
                return
            time.sleep(0.03)
        raise ActError(f"after {limit:.0f} s somebody is still busy")

    # ---- Money ------------------------------------------------------------------------------------------------------

    def worth(self, address: str) -> int:
        """All that an account has, in wei: its wallet, and in the ledger what is free, locked, leaving or earned."""
        eth, stakes = self.market.chain.web3.eth, self.market.stakes
        kinds = (Class.FREE, Class.LOCKED, Class.LEAVING, Class.CREDIT)
        wallet = eth.get_balance(self.market.chain.web3.to_checksum_address(address))
        return int(wallet) + sum(stakes.balance(kind, address) for kind in kinds)

    def balances(self) -> Mapping[str, int]:
        """What every actor so far has, and the jackpot pool."""
        found = {name: self.worth(str(account.address)) for name, account in self.accounts.items()}
        return {**found, "jackpot pool": self.market.stakes.pool()}
