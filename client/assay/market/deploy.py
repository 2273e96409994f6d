"""Deploying the market: sixteen contracts that are told each other's addresses beforehand (they follow from the
deployer's account and nonce), so that none has an owner who could exchange another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from web3.types import Nonce
from web3.utils import get_create_address

from assay.chain.rpc import Chain
from assay.chain.sender import Call, Outcome, Sender
from assay.contracts import load_contract
from assay.market.abi import type_of
from assay.market.deployment import COMPANIONS, HELPERS, MODULES, Deployment, artifact_of
from assay.market.errors import DeploymentError
from assay.market.parameters import PUBLIC, PUBLIC_COURT, CourtParameters, Parameters

ORDER = (*HELPERS, *MODULES, *COMPANIONS)
"""The order of deployment, and of the deployer's nonces."""

Report = Callable[[str, str], None]
"""Gets a contract's name and address once it is deployed."""


def created_address(deployer: str, nonce: int) -> str:
    """Address of the contract that an account creates with a nonce (Yellow Paper, section 7)."""
    return str(get_create_address(to_checksum_address(deployer), Nonce(nonce)))


def predicted_addresses(deployer: str, nonce: int) -> dict[str, str]:
    """Addresses of all contracts if the first is deployed with `nonce`."""
    return {name: created_address(deployer, nonce + place) for place, name in enumerate(ORDER)}


def constructor_arguments(
    name: str, addresses: dict[str, str], parameters: Parameters, court: CourtParameters
) -> tuple[Any, ...]:
    """What each contract's constructor is given."""
    if name in (*HELPERS, "Seeds"):
        return ()
    if artifact_of(name) == "Court":
        keeper = addresses["Claims" if name == "Court" else "StageClaims"]
        return (
            keeper, addresses["Prover"], addresses["Refuter"], court.allowance, court.extension, court.gas_price,
            court.overshoot_price,
        )  # fmt: skip
    if name == "StageClaims":
        bonds = parameters.case_bond, parameters.accusation_bond
        return addresses["Groups"], addresses["Market"], addresses["StageCourt"], *bonds, parameters.dispute_seconds
    if name == "Presence":
        return addresses["Groups"], addresses["Market"], parameters.accusation_bond, parameters.dispute_seconds
    modules = tuple(addresses[module] for module in MODULES)
    companions = addresses["StageClaims"], addresses["Presence"]
    return (modules, *companions) if name == "Groups" else (parameters.values(), modules)


def creation_code(name: str, arguments: Sequence[Any]) -> bytes:
    """Bytecode and constructor arguments of a contract of the deployment."""
    compiled = load_contract(artifact_of(name))
    inputs: list[dict[str, Any]] = next((item["inputs"] for item in compiled.abi if item["type"] == "constructor"), [])
    return bytes.fromhex(compiled.bytecode[2:]) + encode([type_of(item) for item in inputs], list(arguments))


def deploy_market(
    sender: Sender,
    parameters: Parameters = PUBLIC,
    court: CourtParameters = PUBLIC_COURT,
    report: Report | None = None,
) -> Deployment:
    """Deploy all contracts through a sender. A deployment broken off is finished by calling this again.

    Raises `DeploymentError` where another transaction of the account came between, or the chain refuses a contract.
    """
    check_court_bond(parameters, court)
    chain = sender.chain
    first = _first_nonce(sender)
    addresses = predicted_addresses(sender.address, first)
    block = chain.ask("asking for the newest block", lambda: chain.web3.eth.block_number)
    started = sender.state.put_once(f"deployment:{sender.chain_id}:{sender.address}:{first}", str(block))
    for place, name in enumerate(ORDER):
        code = creation_code(name, constructor_arguments(name, addresses, parameters, court))
        sent = sender.submit(_key(first, name), Call(None, code))
        if sent.nonce != first + place:
            raise DeploymentError(
                f"another transaction of {sender.address} took nonce {first + place} during the deployment: use an "
                "account that does nothing else, and deploy again"
            )
    for name in ORDER:
        sent = sender.wait(_key(first, name))
        if sent.outcome is not Outcome.SUCCEEDED:
            raise DeploymentError(f"the chain refuses {name} ({sent.hash}): does it allow contracts of 24 KiB?")
        if report is not None:
            report(name, addresses[name])
    deployment = Deployment(sender.chain_id, int(started), sender.address, addresses, parameters, court)
    check_deployment(chain, deployment)
    sender.state.put(_unfinished(sender), "")
    return deployment


def _unfinished(sender: Sender) -> str:
    """Under this the first nonce of a deployment is remembered until all of it is there."""
    return f"deploy-from:{sender.chain_id}:{sender.address}"


def _key(first: int, name: str) -> str:
    return f"deploy:{first}:{name}"


def _first_nonce(sender: Sender) -> int:
    """Nonce of the first contract: that of a deployment begun and not finished, else the account's next."""
    known = sender.state.get(_unfinished(sender))
    if known:
        return int(known)
    eth = sender.chain.web3.eth
    account = sender.chain.web3.to_checksum_address(sender.address)
    count = sender.chain.ask("asking for the nonce", lambda: eth.get_transaction_count(account, "pending"))
    sender.state.put(_unfinished(sender), str(count))
    return int(count)


def check_court_bond(parameters: Parameters, court: CourtParameters) -> None:
    """Raise `DeploymentError` if the case bond is below what the court asks for: then no case could be opened."""
    moves, move_gas, prove_gas = 28, 90_000, 500_000  # Court.MOVES_A_SIDE, MOVE_GAS, PROVE_GAS
    least = (moves * move_gas + prove_gas) * court.gas_price
    if parameters.case_bond < least:
        raise DeploymentError(
            f"the case bond is {parameters.case_bond} wei, {least} must cover the other side's gas at "
            f"{court.gas_price} wei: raise case_bond or lower the court's gas price"
        )


def check_deployment(chain: Chain, deployment: Deployment) -> None:
    """Raise `DeploymentError` unless the chain is the deployment's and holds code at every address."""
    chain_id = chain.ask("asking for the chain id", lambda: chain.web3.eth.chain_id)
    if chain_id != deployment.chain_id:
        raise DeploymentError(
            f"the deployment is for chain {deployment.chain_id}, {chain.url} is chain {chain_id}: correct chain.url or "
            "chain.deployment"
        )
    for name, address in deployment.addresses.items():
        checksum = chain.web3.to_checksum_address(address)
        code = chain.ask(f"asking for the code of {name}", lambda place=checksum: chain.web3.eth.get_code(place))  # type: ignore[misc]
        if not code:
            raise DeploymentError(
                f"there is no contract {name} at {address} on chain {chain_id}: was the local chain started anew? "
                "Deploy again, or correct chain.deployment"
            )
