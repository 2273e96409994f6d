"""What a case of the court came to: its moves, their gas, and the scalar operation that the chain executed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eth_abi.abi import decode
from hexbytes import HexBytes

from assay.market.abi import interface_of
from assay.market.connection import Market
from assay.market.court import CourtContract
from assay.program.encoding import decode_operator
from assay.program.operator import Operator, Source
from assay.program.reference import loop_indices, position

CASE_EVENTS = ("CaseOpened", "Expanded", "Revealed", "Chosen", "Proven", "NextStateProven", "CaseClosed")


@dataclass(frozen=True)
class CaseMove:
    """One transaction of a case."""

    function: str
    sender: str
    gas: int
    transaction: str


@dataclass(frozen=True)
class Operation:
    """The operation executed on chain. Words are the 32 bits of binary32 or int32 values."""

    body: str
    step: int
    operator: int
    element: int
    term: int
    operands: tuple[int, ...]
    accumulator: int | None
    result: int
    claimed: int


@dataclass(frozen=True)
class CaseReport:
    """A case from its opening to its end."""

    case_id: int
    challenger_won: bool
    moves: tuple[CaseMove, ...]
    operation: Operation | None

    @property
    def gas(self) -> int:
        return sum(move.gas for move in self.moves)

    def as_json(self) -> dict[str, Any]:
        """For `--json`; words in hexadecimal."""
        operation = self.operation
        return {
            "case": f"{self.case_id:#x}",
            "challenger_won": self.challenger_won,
            "moves": [asdict(move) for move in self.moves],
            "gas": self.gas,
            "operation": None
            if operation is None
            else {
                "body": operation.body,
                "step": operation.step,
                "operator": operation.operator,
                "element": operation.element,
                "term": operation.term,
                "operands": [f"{word:#010x}" for word in operation.operands],
                "accumulator": None if operation.accumulator is None else f"{operation.accumulator:#010x}",
                "result": f"{operation.result:#010x}",
                "claimed": f"{operation.claimed:#010x}",
            },
        }

    def describe(self) -> str:
        """The case in two sentences."""
        text = f"The case took {len(self.moves)} transactions and {self.gas} gas."
        operation = self.operation
        if operation is not None:
            read = ", ".join(f"{word:#010x}" for word in operation.operands)
            onto = "" if operation.accumulator is None else f" onto {operation.accumulator:#010x}"
            text += (
                f" The chain executed one {operation.body} (step {operation.step}, operator {operation.operator}, "
                f"element {operation.element}, term {operation.term}) of {read}{onto}: {operation.result:#010x}, "
                f"claimed was {operation.claimed:#010x}."
            )
        return text


def report_case(market: Market, case_id: int, court: CourtContract | None = None) -> CaseReport:
    """Read a closed case from the chain, of the market's court unless another is given."""
    court, eth = court or market.court, market.chain.web3.eth
    topics: Any = [None, "0x" + case_id.to_bytes(32, "big").hex()]
    logs = eth.get_logs({"address": court.address, "topics": topics, "fromBlock": market.deployment.block})
    moves: dict[str, CaseMove] = {}
    won, operation = False, None
    for log in logs:
        event = court.interface.event_of(log)
        if event is None or event.name not in CASE_EVENTS:
            continue
        digest = HexBytes(log["transactionHash"]).to_0x_hex()
        transaction = eth.get_transaction(log["transactionHash"])
        if digest not in moves:
            receipt = eth.get_transaction_receipt(log["transactionHash"])
            function = function_of(bytes(HexBytes(transaction["input"])))
            moves[digest] = CaseMove(function, transaction["from"], receipt["gasUsed"], digest)
        if event.name == "CaseClosed":
            won = bool(event.arguments["challengerWon"])
        elif event.name == "Proven":
            arguments = event.arguments
            operation = _operation(court, case_id, bytes(HexBytes(transaction["input"])), arguments)
    return CaseReport(case_id, won, tuple(moves.values()), operation)


def function_of(calldata: bytes) -> str:
    """Name of the court's function that calldata calls."""
    called = interface_of("Court").decode_call(calldata)
    return "unknown" if called is None else called[0]


def _operation(court: CourtContract, case_id: int, calldata: bytes, proven: Any) -> Operation:
    function = interface_of("Court")._functions["prove"]
    *_, evidence = decode(function.types, calldata[4:])
    (record, _work, _siblings), openings, previous = evidence
    _, cursor = court.ask("caseOf", case_id)
    operator = decode_operator(record)
    element, terms = int(cursor["element"]), int(cursor["terms"])
    term = int(cursor["index"]) if terms > 1 else 0
    accumulator = _word(previous[0], term - 1) if previous[0] else None
    if accumulator is None and operator.reduced:
        accumulator = 0
    return Operation(
        operator.body.name.lower(), int(cursor["step"]), int(cursor["operator"]), element, term,
        _operands(operator, openings, element, term), accumulator, int(proven["result"]), int(proven["claimed"]),
    )  # fmt: skip


def _word(chunk: bytes, place: int) -> int:
    return int.from_bytes(chunk[4 * (place & 255) : 4 * (place & 255) + 4], "little")


def _operands(operator: Operator, openings: Any, element: int, term: int) -> tuple[int, ...]:
    indices = loop_indices(element, operator.extents) + loop_indices(term, operator.reduced)
    words = []
    for operand, (chunk, _proof) in zip(operator.operands, openings, strict=False):
        where = position(operand, indices)
        if operand.source is Source.IMMEDIATE:
            words.append(operand.index)
        elif where is None or not chunk:
            words.append(operand.fill)
        else:
            words.append(_word(chunk, where))
    return tuple(words)
