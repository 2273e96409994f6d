"""The court alone on a local chain, to measure cases and to test them: claims posted at will, players that take turns.

Accounts are the chain's own unlocked ones. Every transaction's gas is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import decode as abi_decode
from eth_utils.abi import event_abi_to_log_topic, function_abi_to_4byte_selector
from web3 import HTTPProvider, Web3
from web3._utils.events import get_event_data
from web3.contract import Contract
from web3.exceptions import ContractLogicError

from assay.chain.local import LocalChain
from assay.contracts import load_contract
from assay.dispute.case import CaseView, Part, Phase
from assay.dispute.evidence import OpenEvidence
from assay.dispute.moves import Move
from assay.dispute.reader import Event, view_of
from assay.errors import AssayError

ALLOWANCE = 3 * 24 * 3600
EXTENSION = 3600
OVERSHOOT_PRICE = 10**9
GAS_PRICE = 10**9
GAS_LIMIT = 16_000_000  # below the cap of a transaction on the main network

Player = Callable[[CaseView], Move | None]
"""From a case's view to a move, or None to stay silent."""


class RevertedError(AssayError):
    """A transaction was reverted: `name` is the custom error, `values` its arguments."""

    code = "reverted"

    def __init__(self, name: str, values: tuple[Any, ...] = ()) -> None:
        super().__init__(f"the call reverts with {name}{values}: compare with contracts/interfaces/ICourt.sol")
        self.name = name
        self.values = values


@dataclass(frozen=True)
class PostedClaim:
    """A claim as the court will see it; fields as in the contract's `Claim`, in its order."""

    kind: int  # 0 replay, 1 profile, 2 training
    claimant: str
    root: bytes
    leaves: int
    program_root: bytes
    data_root: bytes
    initial_root: bytes
    checkpoint_root: bytes
    threshold_root: bytes
    segments: int
    interval: int
    steps: int
    task_seed: int
    draw_seed: int
    exact: bool

    def as_tuple(self) -> tuple[Any, ...]:
        """For the contract's ABI."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


@dataclass(frozen=True)
class Outcome:
    """How a case ended, with every move's function and gas."""

    challenger_won: bool
    gas: tuple[tuple[str, int], ...]

    @property
    def moves(self) -> int:
        """Transactions, the opening included."""
        return len(self.gas)


@dataclass
class Arena:
    """The deployed court and the keeper of claims that stands in for the market's own."""

    chain: LocalChain
    web3: Web3
    claims: Contract
    court: Contract
    errors: Mapping[bytes, dict[str, Any]]
    events: Mapping[bytes, Any]
    sizes: Mapping[str, int]
    gas: dict[int, list[tuple[str, int]]] = field(default_factory=dict)

    # ---- Transactions -----------------------------------------------------------------------------------------------

    def transact(self, sender: str, call: Any, value: int = 0, gas: int = GAS_LIMIT) -> Any:
        """Send a call and return its receipt. `RevertedError` where the contract refuses, before anything is sent."""
        fields: Any = {"from": sender, "value": value, "gas": gas, "gasPrice": 0}
        try:
            call.call(fields)
        except ContractLogicError as error:
            raise self.reverted(error) from error
        receipt = self.web3.eth.wait_for_transaction_receipt(call.transact(fields))
        if receipt["status"] != 1:
            raise RevertedError("mined and reverted")
        return receipt

    def reverted(self, error: ContractLogicError) -> RevertedError:
        """The custom error behind web3's exception."""
        data = error.data if isinstance(error.data, str) and error.data.startswith("0x") else "0x"
        raw = bytes.fromhex(data[2:])
        found = self.errors.get(raw[:4])
        if found is None:
            return RevertedError(str(error) if not raw else f"0x{raw[:4].hex()}")
        return RevertedError(str(found["name"]), tuple(abi_decode([_type(i) for i in found["inputs"]], raw[4:])))

    def open(
        self,
        challenger: str,
        claim_id: int,
        leaf: int,
        part: Part,
        evidence: OpenEvidence,
        answer_root: bytes = bytes(32),
        bond: int | None = None,
    ) -> int:
        """Open a case and return its id."""
        value = self.court.functions.MINIMUM_BOND().call() if bond is None else bond
        call = self.court.functions.open(claim_id, leaf, int(part), answer_root, evidence.as_tuple())
        receipt = self.transact(challenger, call, value)
        opened = next(e for e in self._decoded(receipt["logs"]) if e.name == "CaseOpened")
        case_id = int(opened.arguments["caseId"])
        self.gas[case_id] = [("open", int(receipt["gasUsed"]))]
        return case_id

    def call_of(self, view: CaseView, move: Move) -> Any:
        """The court's function with a move's arguments."""
        function = self.court.functions[move.function]
        if move.function == "timeout":
            return function(view.case_id)
        return function(view.case_id, view.position, *move.arguments)

    def play(self, sender: str, view: CaseView, move: Move, gas: int = GAS_LIMIT) -> Any:
        """Make a move in a case and return the receipt."""
        receipt = self.transact(sender, self.call_of(view, move), gas=gas)
        self.gas.setdefault(view.case_id, []).append((move.function, int(receipt["gasUsed"])))
        return receipt

    # ---- Reading ----------------------------------------------------------------------------------------------------

    def view(self, case_id: int) -> CaseView:
        """The case as a player sees it, from the chain alone."""
        functions = self.court.functions
        outputs = functions.caseOf(case_id).call()
        (abi,) = (item for item in self.court.abi if item.get("name") == "caseOf")
        case, cursor = (named(item, value) for item, value in zip(abi["outputs"], outputs, strict=True))  # type: ignore[typeddict-item]
        case["cursor"] = cursor
        topics: Any = [None, "0x" + case_id.to_bytes(32, "big").hex()]
        logs = self.web3.eth.get_logs({"address": self.court.address, "topics": topics, "fromBlock": 0})
        return view_of(case_id, functions.positionOf(case_id).call(), case, self._decoded(logs))

    def _decoded(self, logs: Sequence[Any]) -> list[Event]:
        events = []
        for log in logs:
            abi = self.events.get(bytes(log["topics"][0]))
            if abi is None or log["address"] != self.court.address:
                continue
            arguments = get_event_data(self.web3.codec, abi, log)["args"]
            events.append(
                Event(abi["name"], {item["name"]: named(item, arguments[item["name"]]) for item in abi["inputs"]})
            )
        return events

    def report(self, case_id: int) -> Mapping[str, Any]:
        """What the court has told the keeper of claims about a case."""
        names = ("claimId", "challenger", "answerRoot", "bond", "closed", "challengerWon", "overshoot")
        return dict(zip(names, self.claims.functions.reports(case_id).call(), strict=True))

    # ---- Time -------------------------------------------------------------------------------------------------------

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.rpc("evm_increaseTime", seconds)
        self.rpc("evm_mine")

    def rpc(self, method: str, *parameters: Any) -> Any:
        """A call of the node's own."""
        answer = self.web3.provider.make_request(method, list(parameters))  # type: ignore[arg-type]
        if "result" not in answer:
            raise RevertedError(f"{method}: {answer.get('error')}")
        return answer["result"]

    # ---- Whole cases ------------------------------------------------------------------------------------------------

    def play_out(self, case_id: int, claimant: Player, challenger: Player, most: int = 120) -> Outcome:
        """Let both players move until the case is decided. A player that stays silent in its turn runs out of time;
        in the last move the challenger gets its chance before the claimant's clock ends."""
        for _ in range(most):
            view = self.view(case_id)
            phase = view.cursor.phase
            if phase == Phase.CLOSED:
                break
            turn = [(view.challenger, challenger)] if phase == Phase.CHOOSE else [(view.claimant, claimant)]
            if phase == Phase.PROVE:
                turn.append((view.challenger, challenger))
            for sender, player in turn:
                move = player(view)
                if move is not None:
                    self.play(sender, view, move)
                    break
            else:
                self.wait(ALLOWANCE + 1)
                self.play(view.challenger, view, Move("timeout", ()))
        return Outcome(bool(self.report(case_id)["challengerWon"]), tuple(self.gas[case_id]))


def named(abi: Mapping[str, Any], value: Any) -> Any:
    """A decoded value with its structs as mappings by name."""
    if not abi["type"].startswith("tuple") or isinstance(value, Mapping):
        return value
    if abi["type"] == "tuple":
        return {item["name"]: named(item, part) for item, part in zip(abi["components"], value, strict=True)}
    return [named({**abi, "type": "tuple"}, part) for part in value]


def _type(item: Mapping[str, Any]) -> str:
    if not item["type"].startswith("tuple"):
        return str(item["type"])
    return "(" + ",".join(_type(part) for part in item["components"]) + ")" + str(item["type"][5:])


def silent(view: CaseView) -> None:
    """A player that never moves."""


def deploy(web3: Web3, name: str, *arguments: Any) -> Contract:
    """Deploy a packaged contract from the node's first account."""
    compiled = load_contract(name)
    factory = web3.eth.contract(abi=compiled.abi, bytecode=compiled.bytecode)
    fields: Any = {"from": web3.eth.accounts[0], "gas": GAS_LIMIT, "gasPrice": 0}
    receipt = web3.eth.wait_for_transaction_receipt(factory.constructor(*arguments).transact(fields))
    found: Any = web3.eth.contract(address=receipt["contractAddress"], abi=compiled.abi)
    contract: Contract = found
    return contract


def make_arena(chain: LocalChain, allowance: int = ALLOWANCE, extension: int = EXTENSION) -> Arena:
    """Deploy court, prover, refuter and the stand-in for the keeper of claims on a local chain."""
    web3 = Web3(HTTPProvider(chain.url, request_kwargs={"timeout": 60}))
    claims, prover, refuter = deploy(web3, "ClaimsHarness"), deploy(web3, "Prover"), deploy(web3, "Refuter")
    addresses = (claims.address, prover.address, refuter.address)
    court = deploy(web3, "Court", *addresses, allowance, extension, GAS_PRICE, OVERSHOOT_PRICE)
    fields: Any = {"from": web3.eth.accounts[0], "gasPrice": 0}
    web3.eth.wait_for_transaction_receipt(claims.functions.setCourt(court.address).transact(fields))
    contracts = {"ClaimsHarness": claims, "Prover": prover, "Refuter": refuter, "Court": court}
    items: list[Any] = [item for contract in contracts.values() for item in contract.abi]
    events: list[Any] = [item for item in court.abi if item["type"] == "event"]
    return Arena(
        chain=chain,
        web3=web3,
        claims=claims,
        court=court,
        errors={function_abi_to_4byte_selector(item): item for item in items if item["type"] == "error"},
        events={event_abi_to_log_topic(item): item for item in events},
        sizes={name: len(web3.eth.get_code(contract.address)) for name, contract in contracts.items()},
    )
