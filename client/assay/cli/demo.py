"""`assay demo`: the scalar operations that disputes end with, on this machine and on a chain, bit against bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from web3 import HTTPProvider, Web3

from assay.arithmetic import binary32, transcendental
from assay.arithmetic.self_check import operands
from assay.chain.local import LocalChain, local_chain
from assay.cli.options import json_option
from assay.contracts import load_contract
from assay.errors import AssayError
from assay.program.operator import Body

Patterns = npt.NDArray[np.uint32]
CASES_A_CALL = 1000
# Above what a block of the default local chain takes: calls are not mined.
CALL_GAS = 25_000_000

OPERATIONS: dict[Body, Callable[..., int]] = {
    Body.ADD: binary32.add,
    Body.SUB: binary32.sub,
    Body.MUL: binary32.mul,
    Body.DIV: binary32.div,
    Body.SQRT: binary32.sqrt,
    Body.FMA: binary32.fma,
    Body.EXP: transcendental.exp,
    Body.LOG: transcendental.log,
    Body.TANH: transcendental.tanh,
    Body.ERF: transcendental.erf,
    Body.SIN: transcendental.sin,
    Body.COS: transcendental.cos,
}
ARITY = {
    Body.SQRT: 1,
    Body.FMA: 3,
    **dict.fromkeys((Body.EXP, Body.LOG, Body.TANH, Body.ERF, Body.SIN, Body.COS), 1),
}


class BitsDifferError(AssayError):
    """The chain computed other bits than this machine."""

    code = "bits-differ"


@dataclass(frozen=True)
class Comparison:
    """One operation: how many cases were run on chain, how many gave the same bits, and the mean gas of one."""

    operation: str
    cases: int
    equal: int
    gas: int


def deploy(web3: Web3, chain: LocalChain, name: str) -> Any:
    """Deploy a packaged contract without constructor arguments from the chain's first account."""
    compiled = load_contract(name)
    account = web3.eth.account.from_key(chain.private_keys[0])
    contract = web3.eth.contract(abi=compiled.abi, bytecode=compiled.bytecode)
    fields: Any = {"from": account.address, "nonce": web3.eth.get_transaction_count(account.address)}
    signed = account.sign_transaction(contract.constructor().build_transaction(fields))
    receipt = web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(signed.raw_transaction))
    return web3.eth.contract(address=receipt["contractAddress"], abi=compiled.abi)


def compare(harness: Any) -> Iterator[Comparison]:
    """Run every operation on the operands of the self-check, by the reference here and by the contract there."""
    for body, function in OPERATIONS.items():
        arity = ARITY.get(body, 2)
        cases = np.array(operands(), dtype=np.uint32)[:, :arity]  # (cases, arity)
        expected = np.array([function(*(int(word) for word in case)) for case in cases], dtype=np.uint32)
        found, gas = run_on_chain(harness, body, cases)
        yield Comparison(body.name.lower(), len(cases), int((expected == found).sum()), gas)


def run_on_chain(harness: Any, body: Body, cases: Patterns) -> tuple[Patterns, int]:
    """The contract's results (cases,), and the mean gas of one case."""
    results, gas = [], 0
    for begin in range(0, len(cases), CASES_A_CALL):
        packed = cases[begin : begin + CASES_A_CALL].astype(">u4").tobytes()
        answer = harness.functions.evaluate(int(body), packed).call({"gas": CALL_GAS})
        results.append(np.frombuffer(answer, dtype=">u4").astype(np.uint32))
        gas += harness.functions.measure(int(body), packed).call({"gas": CALL_GAS})[1]
    return np.concatenate(results), gas // len(cases)


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """Start a local chain, deploy the arithmetic, and compare it bit by bit with this machine's.

    Exits with 1 where a single bit differs.
    """
    rows = []
    with local_chain(options=("--gas-limit", "30000000")) as chain:
        web3 = Web3(HTTPProvider(chain.url, request_kwargs={"timeout": 60}))
        harness = deploy(web3, chain, "Binary32Harness")
        if not as_json:
            click.echo(f"local chain {chain.chain_id} at {chain.url}, arithmetic deployed at {harness.address}")
            click.echo(f"{'operation':10} {'cases':>8} {'same bits':>10} {'gas each':>9}")
        for row in compare(harness):
            rows.append(row)
            if not as_json:
                click.echo(f"{row.operation:10} {row.cases:8} {row.equal:10} {row.gas:9}")
    wrong = [row for row in rows if row.equal != row.cases]
    if as_json:
        click.echo(json.dumps({"identical": not wrong, "operations": [asdict(row) for row in rows]}))
    if wrong:
        raise BitsDifferError(
            f"{wrong[0].operation}: {wrong[0].cases - wrong[0].equal} of {wrong[0].cases} results differ on chain: "
            "run `assay doctor`, and `scripts/compile --check` in a checkout"
        )
    if not as_json:
        click.echo(
            "Every result has the same bits on chain: a dispute that gets down to one operation is decided by it."
        )
