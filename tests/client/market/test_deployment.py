"""Deploying, deployment files, and what happens when file and chain do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account

from assay.chain.errors import RevertedError
from assay.chain.sender import Call, Sender
from assay.market.connection import connect
from assay.market.deploy import ORDER, check_court_bond, deploy_market, predicted_addresses
from assay.market.deployment import read_deployment, write_deployment
from assay.market.errors import DeploymentError
from assay.market.parameters import LOCAL, LOCAL_COURT, PUBLIC, PUBLIC_COURT, CourtParameters
from assay.state import StateFolder

from .conftest import COIN, World


def test_contracts_lie_where_they_were_told_each_other_lie(world: World) -> None:
    market = world.market
    assert predicted_addresses(world.address(0), 0) == dict(market.addresses)
    assert market.court.ask("CLAIMS") == market.address("Claims")
    assert market.court.ask("PROVER") == market.address("Prover")
    assert market.stage_court.ask("CLAIMS") == market.address("StageClaims")
    assert market.stage_court.ask("PROVER") == market.address("Prover")
    assert market.stage_claims.case_bond() == LOCAL.case_bond
    assert market.stage_claims.pending_of(world.address(1)) == market.stage_claims.credit_of(world.address(1)) == 0
    assert not market.stage_claims.has_fallen(1)
    assert (market.presence.bond(), market.presence.window()) == (LOCAL.accusation_bond, LOCAL.dispute_seconds)
    assert market.presence.pending_of(world.address(1)) == market.presence.credit_of(world.address(1)) == 0
    assert not market.presence.was_absent(world.address(1), world.address(2), 0)
    assert market.stakes.seat() == LOCAL.seat
    assert market.claims.case_bond() == LOCAL.case_bond >= market.court.minimum_bond()
    # Coin that only modules may bring shows that the contracts know each other.
    with pytest.raises(RevertedError, match="NotAModule"):
        market.stakes.ask("enter", 0, 0, sender=world.address(1))


def test_every_parameter_set_satisfies_the_contracts() -> None:
    check_court_bond(PUBLIC, PUBLIC_COURT)
    check_court_bond(LOCAL, LOCAL_COURT)
    with pytest.raises(DeploymentError, match="case bond"):
        check_court_bond(PUBLIC, CourtParameters(gas_price=10**12))
    with pytest.raises(DeploymentError, match="'seats'"):
        PUBLIC.with_changes({"seats": 1})


def test_public_parameters_deploy(world: World) -> None:
    deployment = deploy_market(world.sender(3), PUBLIC, PUBLIC_COURT)
    assert deployment.addresses != world.market.addresses
    assert deployment.parameters == PUBLIC


def test_a_deployment_broken_off_is_finished(world: World, tmp_path: Path) -> None:
    key = world.running.chain.private_keys[4]
    sender = Sender(world.market.chain, Account.from_key(key), StateFolder(tmp_path / "broken"))

    class KilledError(Exception):
        pass

    def kill(name: str, _address: str) -> None:
        if name == "Market":
            raise KilledError

    with pytest.raises(KilledError):
        deploy_market(sender, LOCAL, LOCAL_COURT, kill)
    sender.state.close()
    again = Sender(world.market.chain, Account.from_key(key), StateFolder(tmp_path / "broken"))
    deployment = deploy_market(again, LOCAL, LOCAL_COURT)
    assert deployment.addresses == predicted_addresses(world.address(4), 0)
    count = world.market.chain.web3.eth.get_transaction_count(again.address)  # type: ignore[arg-type]
    assert count == len(ORDER)
    # A finished one is not taken up again: the next is a new deployment.
    assert deploy_market(again, LOCAL, LOCAL_COURT).addresses != deployment.addresses
    again.state.close()


def test_the_file_comes_back(world: World, tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    write_deployment(world.running.deployment, path)
    assert read_deployment(path) == world.running.deployment
    market = connect(world.running.chain.url, path)
    assert market.stakes.total() == 0


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (["format"], 2, "format 1"),
        (["addresses", "Court"], "0x12", "address of Court"),
        (["addresses", "Bank"], "0x" + "11" * 20, "exactly the contracts"),
        (["parameters", "seat"], "one", "numbers"),
        (["parameters", "extra"], "1", "parameters"),
        (["court"], [], "damaged"),
        (["chain_id"], "main", "damaged"),
    ],
)
def test_a_wrong_file_is_refused(world: World, tmp_path: Path, keys: list[str], value: object, words: str) -> None:
    record = world.running.deployment.as_json()
    table = record
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DeploymentError) as caught:
        read_deployment(path)
    assert words in str(caught.value)


def test_a_file_of_a_market_without_some_contract_says_which_and_what_to_do(world: World, tmp_path: Path) -> None:
    record = world.running.deployment.as_json()
    for name in ("StageClaims", "StageCourt", "Presence"):
        del record["addresses"][name]
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DeploymentError, match=r"no contract Presence, StageClaims, StageCourt: .*deploy again"):
        read_deployment(path)


def test_another_chain_or_no_contract_is_told(world: World, tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    for field, value, words in (
        ("chain_id", 1, "is chain 31337"),
        ("Demands", "0x" + "11" * 20, "no contract Demands"),
    ):
        record = world.running.deployment.as_json()
        (record if field in record else record["addresses"])[field] = value
        path.write_text(json.dumps(record))
        with pytest.raises(DeploymentError) as caught:
            connect(world.running.chain.url, path)
        assert words in str(caught.value)
    with pytest.raises(DeploymentError, match="assay deploy"):
        connect(world.running.chain.url, tmp_path / "absent.json")


def test_refusals_are_told_by_their_name_and_values(world: World) -> None:
    with pytest.raises(RevertedError, match=rf"NotBacked\(1, 0, {COIN}\)"):
        world.sender(1).submit("enlist", world.market.stakes.enlist(1, 60))
    with pytest.raises(RevertedError, match="NothingDeposited"):
        world.sender(1).submit("deposit", world.market.stakes.deposit(0))
    assert isinstance(world.market.stakes.withdraw(), Call)
