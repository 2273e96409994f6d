"""From the packaged contracts' interfaces to calldata and back, with structs and enums as this package's own types.

Encodes and decodes with eth_abi directly: a reader of thousands of logs spends its time here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3.types import LogReceipt

from assay.contracts import load_contract
from assay.market import types
from assay.market.deployment import artifact_of
from assay.market.errors import InterfaceError

_UPPER = re.compile(r"(?<!^)(?=[A-Z])")
_STRUCTS: dict[str, type[Any]] = {
    each.__name__: each
    for each in (
        types.Posting, types.Task, types.Share, types.Round, types.Hidden, types.Shown, types.Derivation,
        types.ReplayLeaf, types.ProfileLeaf, types.Checkpoint, types.Answer, types.Tally, types.Line, types.Published,
        types.Place, types.Entry, types.Demand, types.StageWork,
    )
}  # fmt: skip
_ENUMS: dict[str, type[IntEnum]] = {
    "State": types.TaskState,
    "Class": types.Class,
    "ShareState": types.ShareState,
    "RoundState": types.RoundState,
    "Fault": types.Fault,
    "AnswerState": types.AnswerState,
    "ClaimKind": types.ClaimKind,
}


def snake(name: str) -> str:
    """`taskId` as `task_id`."""
    return _UPPER.sub("_", name.rstrip("_")).lower()


def type_of(item: Mapping[str, Any]) -> str:
    """The ABI type of a parameter, tuples spelt out."""
    kind = str(item["type"])
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(type_of(part) for part in item["components"]) + ")" + kind[5:]


def _decoded_type(item: Mapping[str, Any]) -> str:
    """The ABI type that a parameter is decoded as. Texts are decoded as bytes, which are encoded alike: the contracts
    take any bytes for a text, and what is no UTF-8 must not keep anybody from reading on."""
    return re.sub(r"\bstring\b", "bytes", type_of(item))


def _plain(item: Mapping[str, Any], value: Any) -> Any:
    """A value as eth_abi takes it: structs as tuples in the ABI's order."""
    if item["type"].endswith("]"):
        inner = {**item, "type": item["type"].rpartition("[")[0]}
        return [_plain(inner, each) for each in value]
    if item["type"] != "tuple":
        return int(value) if isinstance(value, IntEnum) else value
    if is_dataclass(value):
        return tuple(_plain(part, getattr(value, snake(part["name"]))) for part in item["components"])
    if isinstance(value, Mapping):
        return tuple(_plain(part, value[part["name"]]) for part in item["components"])
    return tuple(_plain(part, each) for part, each in zip(item["components"], value, strict=True))


def _typed(item: Mapping[str, Any], value: Any, own: bool) -> Any:
    """A decoded value: structs as this package's types (else as mappings by the contract's names), enums, addresses."""
    kind = item["type"]
    if kind.endswith("]"):
        inner = {**item, "type": kind.rpartition("[")[0]}
        return tuple(_typed(inner, each, own) for each in value)
    name = str(item.get("internalType", "")).partition(" ")[2].partition("[")[0].rpartition(".")[2]
    if kind == "tuple":
        parts = item["components"]
        struct = _STRUCTS.get(name) if own else None
        values = [_typed(part, each, own) for part, each in zip(parts, value, strict=True)]
        if struct is None:
            return {part["name"]: each for part, each in zip(parts, values, strict=True)}
        return struct(**{snake(part["name"]): each for part, each in zip(parts, values, strict=True)})
    if kind == "address":
        return to_checksum_address(value)
    if kind == "string":
        return value.decode(errors="replace")
    if own and item.get("internalType", "").startswith("enum ") and name in _ENUMS:
        return _ENUMS[name](value)
    return value


@dataclass(frozen=True)
class DecodedLog:
    """A log of a known contract: its event and arguments, by their names in Solidity; structs typed where known."""

    contract: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class _Function:
    selector: bytes
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    types: tuple[str, ...]


class Interface:
    """One contract's functions and events. `own_types=False` keeps structs as mappings (the court's)."""

    def __init__(self, name: str, abi: Sequence[Mapping[str, Any]], own_types: bool = True) -> None:
        self.name, self.own_types = name, own_types
        self.errors = [dict(item) for item in abi if item["type"] == "error"]
        self._functions: dict[str, _Function] = {}
        self._events: dict[bytes, tuple[str, tuple[Mapping[str, Any], ...]]] = {}
        for item in abi:
            if item["type"] not in ("function", "event"):
                continue
            kinds = tuple(type_of(part) for part in item["inputs"])
            digest = keccak(text=f"{item['name']}({','.join(kinds)})")
            if item["type"] == "function":
                self._functions[item["name"]] = _Function(
                    digest[:4], tuple(item["inputs"]), tuple(item["outputs"]), kinds
                )
            else:
                self._events[digest] = (item["name"], tuple(item["inputs"]))

    def encode(self, function: str, arguments: Sequence[Any]) -> bytes:
        """Calldata. Raises `InterfaceError` for arguments that do not fit."""
        known = self._functions.get(function)
        if known is None:
            raise InterfaceError(f"{self.name} has no function {function}: this client and the contracts differ")
        try:
            values = [_plain(item, value) for item, value in zip(known.inputs, arguments, strict=True)]
            return known.selector + encode(known.types, values)
        except (EncodingError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise InterfaceError(f"{self.name}.{function} does not take these arguments: {error}") from error

    def result(self, function: str, data: bytes) -> Any:
        """What a call returned: one value, or a tuple of several."""
        outputs = self._functions[function].outputs
        try:
            values = decode([_decoded_type(item) for item in outputs], data)
        except DecodingError as error:
            raise InterfaceError(
                f"{self.name}.{function} answers with {len(data)} bytes that do not fit: is this another deployment?"
            ) from error
        typed = tuple(_typed(item, value, self.own_types) for item, value in zip(outputs, values, strict=True))
        return typed[0] if len(typed) == 1 else typed

    def decode_call(self, calldata: bytes) -> tuple[str, Mapping[str, Any]] | None:
        """The function that calldata calls, with its arguments by their names; None if it is no call of this one."""
        for name, function in self._functions.items():
            if function.selector == calldata[:4]:
                try:
                    values = decode([_decoded_type(item) for item in function.inputs], calldata[4:])
                except DecodingError:
                    return None
                return name, {
                    item["name"]: _typed(item, value, self.own_types)
                    for item, value in zip(function.inputs, values, strict=True)
                }
        return None

    def event_of(self, log: LogReceipt) -> DecodedLog | None:
        """`event` of a log as web3 gives it."""
        return self.event([bytes(topic) for topic in log["topics"]], bytes(HexBytes(log["data"])))

    def event(self, topics: Sequence[bytes], data: bytes) -> DecodedLog | None:
        """The event that a log is, or None if it is none of this contract's."""
        found = self._events.get(bytes(topics[0])) if topics else None
        if found is None:
            return None
        name, inputs = found
        indexed = iter(topics[1:])
        try:
            plain = iter(decode([_decoded_type(item) for item in inputs if not item["indexed"]], data))
            arguments = {}
            for item in inputs:
                value = decode([type_of(item)], bytes(next(indexed)))[0] if item["indexed"] else next(plain)
                arguments[item["name"]] = _typed(item, value, self.own_types)
        except (DecodingError, StopIteration, ValueError) as error:
            raise InterfaceError(f"a log {name} of {self.name} does not decode: is this another deployment?") from error
        return DecodedLog(self.name, name, arguments)


@cache
def interface_of(contract: str) -> Interface:
    """The interface of a contract of a deployment, or of another packaged one."""
    artifact = artifact_of(contract)
    return Interface(contract, load_contract(artifact).abi, own_types=artifact != "Court")


def all_errors(contracts: Sequence[str]) -> list[dict[str, Any]]:
    """Error definitions of some packaged contracts, for `assay.chain.rpc.Chain`."""
    return [error for name in contracts for error in interface_of(name).errors]


def field_names(struct: type[Any]) -> tuple[str, ...]:
    """Names of a struct's fields, in order."""
    return tuple(field.name for field in fields(struct))
