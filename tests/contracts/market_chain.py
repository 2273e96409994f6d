"""Two chains to run the market's tests on, behind one small surface.

`RevmChain` runs the contracts in an EVM inside this process (some thousand calls a second), with block number and time
under the test's control. `NetworkChain` sends transactions to the node that Brownie started.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from eth_abi import decode, encode
from eth_utils import keccak, to_checksum_address

GAS_LIMIT = 16_000_000  # below the cap of a transaction on the main network
FIRST_TIME = 1_800_000_000
SECONDS_PER_BLOCK = 12
WEALTH = 10**24
MOST_TRIES = 10  # calls of evm_mine for one block

Artifacts = dict[str, dict[str, Any]]


class RevertedError(Exception):
    """A call was reverted: by which custom error, with which values."""

    def __init__(self, name: str, values: tuple[Any, ...] = ()) -> None:
        super().__init__(f"{name}{values}")
        self.name = name
        self.values = values


@dataclass(frozen=True)
class Event:
    """A decoded log."""

    contract: str
    name: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a successful call gave: decoded return values (unpacked if one), its events, and the transaction's gas."""

    value: Any
    events: list[Event]
    gas: int

    def event(self, name: str) -> dict[str, Any]:
        """Values of the only event of that name."""
        found = [event.values for event in self.events if event.name == name]
        assert len(found) == 1, f"{len(found)} events {name} among {[event.name for event in self.events]}"
        return found[0]


def address_of(name: str) -> str:
    """Address of an actor, by its role."""
    return to_checksum_address(keccak(text=name)[12:])


def created_address(deployer: str, nonce: int) -> str:
    """Address of the contract an account creates with that nonce (below 128): the hash of the RLP list of both."""
    account = bytes.fromhex(deployer[2:])
    assert 0 <= nonce < 128
    encoded = bytes([0xC0 + 22, 0x80 + 20]) + account + bytes([nonce or 0x80])
    return to_checksum_address(keccak(encoded)[12:])


def _type(item: dict[str, Any]) -> str:
    if not item["type"].startswith("tuple"):
        return str(item["type"])
    return "(" + ",".join(_type(part) for part in item["components"]) + ")" + str(item["type"][5:])


class Interface:
    """Encodes calls of one contract and decodes what comes back."""

    def __init__(self, name: str, abi: list[dict[str, Any]]) -> None:
        self.name = name
        self.functions: dict[str, tuple[bytes, list[str], list[str]]] = {}
        self.errors: dict[bytes, tuple[str, list[str]]] = {}
        self.events: dict[bytes, tuple[str, list[dict[str, Any]]]] = {}
        self.mutable: dict[str, bool] = {}
        self.constructor: list[str] = []
        for item in abi:
            types = [_type(part) for part in item.get("inputs", [])]
            signature = f"{item.get('name', '')}({','.join(types)})"
            if item["type"] == "function":
                self.functions[item["name"]] = (
                    keccak(text=signature)[:4],
                    types,
                    [_type(part) for part in item["outputs"]],
                )
                self.mutable[item["name"]] = item["stateMutability"] not in ("view", "pure")
            elif item["type"] == "error":
                self.errors[keccak(text=signature)[:4]] = (item["name"], types)
            elif item["type"] == "event":
                self.events[keccak(text=signature)] = (item["name"], item["inputs"])
            elif item["type"] == "constructor":
                self.constructor = types

    def event(self, topics: list[bytes], data: bytes) -> Event | None:
        """The event that a log is, if it is one of this contract."""
        if not topics or topics[0] not in self.events:
            return None
        name, inputs = self.events[topics[0]]
        rest = iter(topics[1:])
        plain = iter(decode([_type(item) for item in inputs if not item["indexed"]], data))
        values = {
            item["name"]: (decode([_type(item)], next(rest))[0] if item["indexed"] else next(plain)) for item in inputs
        }
        return Event(self.name, name, values)


class Chain(Protocol):
    """What the tests need of a chain."""

    def deploy(self, name: str, sender: str, *arguments: Any) -> str:
        """Deploy a contract and return its address."""

    def call(self, sender: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome:
        """Call a function in a block of its own (views: in the present state). Raises RevertedError."""

    def move(self, blocks: int = 0, seconds: int = 0) -> None:
        """Let time pass."""

    def balance(self, address: str) -> int:
        """Coin of an account, in wei."""


class _Decoding:
    """What both chains share: interfaces by name, addresses, decoding."""

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts = artifacts
        self.addresses: dict[str, str] = {}
        self.interfaces: dict[str, Interface] = {}
        self._errors: dict[bytes, tuple[str, list[str]]] = {}

    def interface(self, name: str) -> Interface:
        if name not in self.interfaces:
            self.interfaces[name] = Interface(name, self.artifacts[name]["abi"])
            self._errors.update(self.interfaces[name].errors)
        return self.interfaces[name]

    def encode(self, name: str, function: str, arguments: tuple[Any, ...]) -> bytes:
        selector, types, _ = self.interface(name).functions[function]
        return selector + encode(types, arguments)

    def value(self, name: str, function: str, data: bytes) -> Any:
        outputs = self.interface(name).functions[function][2]
        values = decode(outputs, data)
        return values[0] if len(values) == 1 else values

    def reverted(self, data: bytes) -> RevertedError:
        if data[:4] in self._errors:
            name, types = self._errors[data[:4]]
            return RevertedError(name, decode(types, data[4:]))
        if data[:4] == keccak(text="Panic(uint256)")[:4]:
            return RevertedError("Panic", decode(["uint256"], data[4:]))
        return RevertedError("unknown", (data.hex(),))

    def decoded(self, logs: list[tuple[str, list[bytes], bytes]]) -> list[Event]:
        by_address = {address.lower(): name for name, address in self.addresses.items()}
        events = []
        for address, topics, data in logs:
            name = by_address.get(address.lower())
            event = self.interface(name).event(topics, data) if name else None
            if event:
                events.append(event)
        return events


class RevmChain(_Decoding):
    """An EVM in this process."""

    def __init__(self, artifacts: Artifacts) -> None:
        import pyrevm

        super().__init__(artifacts)
        self._pyrevm = pyrevm
        self.evm = pyrevm.EVM(spec_id="SHANGHAI")
        self.number = 1_000
        self.time = FIRST_TIME
        self._rich: set[str] = set()
        self._enter_block()

    def _enter_block(self) -> None:
        self.evm.set_block_env(self._pyrevm.BlockEnv(number=self.number, timestamp=self.time, gas_limit=30_000_000))

    def _fund(self, account: str) -> None:
        if account not in self._rich:
            self.evm.set_balance(account, WEALTH)
            self._rich.add(account)

    def deploy(self, name: str, sender: str, *arguments: Any) -> str:
        self._fund(sender)
        code = bytes.fromhex(self.artifacts[name]["bytecode"]) + encode(self.interface(name).constructor, arguments)
        try:
            address = to_checksum_address(self.evm.deploy(sender, code, gas=30_000_000))
        except RuntimeError as error:
            raise self._failure(error) from None
        self.addresses[name] = address
        return address

    @staticmethod
    def _output(text: str) -> bytes:
        marker = 'output: "0x' if 'output: "0x' in text else "output: 0x"
        start = text.find(marker)
        if start < 0:
            return b""
        start += len(marker)
        end = start
        while end < len(text) and text[end] in "0123456789abcdef":
            end += 1
        return bytes.fromhex(text[start:end])

    def _failure(self, error: RuntimeError) -> RevertedError:
        text = str(error)
        if "Revert" in text:
            return self.reverted(self._output(text))
        return RevertedError("halted", (text,))

    def call(self, sender: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome:
        data = self.encode(name, function, arguments)
        mutable = self.interface(name).mutable[function]
        self._fund(sender)
        if mutable:
            self.move(blocks=1)
        try:
            output = self.evm.message_call(
                sender, self.addresses[name], data, value=value, gas=GAS_LIMIT, is_static=not mutable
            )
        except RuntimeError as error:
            raise self._failure(error) from None
        if not mutable:
            return Outcome(self.value(name, function, output), [], 0)
        result = self.evm.result
        logs = [
            (log.address, [bytes.fromhex(topic[2:]) for topic in log.topics], bytes(log.data[1])) for log in result.logs
        ]
        return Outcome(self.value(name, function, output), self.decoded(logs), int(result.gas_used))

    def move(self, blocks: int = 0, seconds: int = 0) -> None:
        self.number += blocks
        self.time += seconds + blocks * SECONDS_PER_BLOCK
        self._enter_block()

    def balance(self, address: str) -> int:
        return int(self.evm.get_balance(address))


class NetworkChain(_Decoding):
    """The node that Brownie started. Actors are impersonated or, where it cannot, accounts it was given."""

    def __init__(self, artifacts: Artifacts, web3: Any) -> None:
        super().__init__(artifacts)
        self.web3 = web3
        self.provider = web3.provider
        self._known: set[str] = set()

    def _request(self, method: str, *parameters: Any) -> Any:
        answer = self.provider.make_request(method, list(parameters))
        if answer.get("error"):
            raise self._network_failure(answer["error"])
        return answer.get("result")

    def _network_failure(self, error: dict[str, Any]) -> RevertedError:
        data = error.get("data") or ""
        if isinstance(data, dict):
            data = data.get("result") or data.get("data") or ""
        if isinstance(data, str) and data.startswith("0x") and len(data) > 2:
            return self.reverted(bytes.fromhex(data[2:]))
        return RevertedError("unknown", (str(error),))

    @property
    def is_anvil(self) -> bool:
        return "anvil" in str(self.provider.make_request("web3_clientVersion", []).get("result", "")).lower()

    def _fund(self, account: str) -> None:
        if account in self._known:
            return
        if self.is_anvil:
            self._request("anvil_impersonateAccount", account)
            self._request("anvil_setBalance", account, hex(WEALTH))
        else:
            self._request("evm_addAccount", account, "")
            self._request("personal_unlockAccount", account, "", 0)
            self._request("evm_setAccountBalance", account, hex(WEALTH))
        self._known.add(account)

    def _send(self, sender: str, transaction: dict[str, Any]) -> Any:
        self._fund(sender)
        transaction |= {"from": sender, "gas": hex(GAS_LIMIT), "gasPrice": hex(2 * 10**9)}
        # A call first: nodes differ in what they say about a transaction that reverts.
        output = self._request("eth_call", transaction, "pending") if transaction.get("to") else "0x"
        receipt = self._receipt(self._request("eth_sendTransaction", transaction))
        if int(receipt["status"], 16) != 1:
            raise RevertedError("unknown", (receipt["transactionHash"],))
        return output, receipt

    def _receipt(self, transaction: str) -> dict[str, Any]:
        for _ in range(1000):
            receipt = self._request("eth_getTransactionReceipt", transaction)
            # The next call is to see the block this one is in.
            if receipt and self.head >= int(receipt["blockNumber"], 16):
                return dict(receipt)
        raise TimeoutError(transaction)

    def deploy(self, name: str, sender: str, *arguments: Any) -> str:
        code = bytes.fromhex(self.artifacts[name]["bytecode"]) + encode(self.interface(name).constructor, arguments)
        _, receipt = self._send(sender, {"data": "0x" + code.hex()})
        self.addresses[name] = to_checksum_address(receipt["contractAddress"])
        return self.addresses[name]

    def call(self, sender: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome:
        data = "0x" + self.encode(name, function, arguments).hex()
        transaction = {"to": self.addresses[name], "data": data, "value": hex(value)}
        if not self.interface(name).mutable[function]:
            output = self._request("eth_call", {"from": sender, **transaction}, "latest")
            return Outcome(self.value(name, function, bytes.fromhex(output[2:])), [], 0)
        output, receipt = self._send(sender, transaction)
        logs = [
            (log["address"], [bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:]))
            for log in receipt["logs"]
        ]
        return Outcome(
            self.value(name, function, bytes.fromhex(output[2:])), self.decoded(logs), int(receipt["gasUsed"], 16)
        )

    def move(self, blocks: int = 0, seconds: int = 0) -> None:
        if seconds:
            self._request("evm_increaseTime", seconds)
        if blocks and self.is_anvil:
            self._request("anvil_mine", hex(blocks), hex(SECONDS_PER_BLOCK))
            return
        end = self.head + (blocks or 1)
        # A busy ganache answers `evm_mine` without having mined: what counts is the newest block.
        for _ in range(MOST_TRIES * (blocks or 1)):
            if self.head >= end:
                return
            self._request("evm_mine")
        raise TimeoutError(f"block {self.head} is the newest after as many calls of evm_mine as would do for {end}")

    @property
    def head(self) -> int:
        """Number of the newest block."""
        return int(self._request("eth_blockNumber"), 16)

    def balance(self, address: str) -> int:
        return int(self._request("eth_getBalance", address, "latest"), 16)


@cache
def artifacts() -> Artifacts:
    """ABI and bytecode of every contract, as Brownie compiled them."""
    import brownie.project  # only where Brownie is

    loaded = brownie.project.get_loaded_projects()
    return {
        name: {"abi": build["abi"], "bytecode": build["bytecode"]}
        for project in loaded
        for name, build in project._build.items()
        if build["bytecode"]
    }
