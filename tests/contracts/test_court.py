"""The court under Brownie: it deploys beside its prover and refuter, takes a case, and ends one by the clock.

Whole cases, the rules of moves and refutations are played in tests/client/dispute, on the same contracts.
"""

from __future__ import annotations

import hashlib
from typing import Any

import brownie
import pytest

ALLOWANCE, EXTENSION = 3600, 60
END, EXPAND, CLOSED = 0, 1, 5


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha(b"\x01", left, right)


HEADER = (
    bytes([0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]) + bytes(32) + bytes(4) + bytes(32) + b"\x01"
    + b"\x00" + (1).to_bytes(4, "big") + sha(b"operators") + (1).to_bytes(16, "big") + sha(b"table")
)  # fmt: skip
STATES = [sha(b"state", bytes([number])) for number in range(2)]


@pytest.fixture
def court(accounts: Any) -> Any:
    deployer = accounts[0]
    claims = deployer.deploy(brownie.ClaimsHarness)
    prover, refuter = deployer.deploy(brownie.Prover), deployer.deploy(brownie.Refuter)
    court = deployer.deploy(brownie.Court, claims, prover, refuter, ALLOWANCE, EXTENSION, 1, 1)
    claims.setCourt(court, {"from": deployer})
    return court


@pytest.fixture
def claims(court: Any) -> Any:
    return brownie.ClaimsHarness.at(court.CLAIMS())


def post_training_claim(claims: Any, claimant: Any) -> int:
    """A training claim of one segment of four steps."""
    claim = (
        2, claimant, node(*STATES), 2, sha(b"\x02", HEADER), bytes(32), STATES[0], node(*STATES), bytes(32),
        1, 4, 4, 7, 8, True,
    )  # fmt: skip
    claims.post(1, claim, [], {"from": claimant})
    return 1


def open_case(court: Any, challenger: Any, claim_id: int, bond: int | None = None) -> int:
    evidence = (STATES[1], [STATES[0]], STATES[0], [STATES[1]], bytes(32), [], HEADER)
    value = court.MINIMUM_BOND() if bond is None else bond
    transaction = court.open(claim_id, 1, END, bytes(32), evidence, {"from": challenger, "value": value})
    return int(transaction.events["CaseOpened"]["caseId"])


@pytest.mark.smoke
def test_a_case_opens_and_a_silent_claimant_loses_it(court: Any, claims: Any, accounts: Any) -> None:
    case_id = open_case(court, accounts[2], post_training_claim(claims, accounts[1]))
    assert court.caseOf(case_id)[1][0] == EXPAND
    with brownie.reverts():
        court.timeout(case_id, {"from": accounts[3]})
    brownie.chain.sleep(ALLOWANCE + 1)
    brownie.chain.mine()
    transaction = court.timeout(case_id, {"from": accounts[3]})
    assert transaction.events["CaseClosed"]["challengerWon"]
    assert court.caseOf(case_id)[1][0] == CLOSED
    assert claims.reports(case_id)[4:6] == (1, True)
    with brownie.reverts():
        court.timeout(case_id, {"from": accounts[3]})


@pytest.mark.smoke
def test_expansion_is_the_claimants_alone(court: Any, claims: Any, accounts: Any) -> None:
    case_id = open_case(court, accounts[2], post_training_claim(claims, accounts[1]))
    leaves = [sha(b"step", bytes([number])) for number in range(3)] + [STATES[1]]
    root = node(node(*leaves[:2]), node(*leaves[2:]))
    position = court.positionOf(case_id)
    with brownie.reverts():
        court.expand(case_id, position, root, b"".join(leaves), {"from": accounts[2]})
    court.expand(case_id, position, root, b"".join(leaves), {"from": accounts[1]})
    with brownie.reverts():
        court.expand(case_id, position, root, b"".join(leaves), {"from": accounts[1]})


@pytest.mark.smoke
def test_a_case_needs_its_bond(court: Any, claims: Any, accounts: Any) -> None:
    claim_id = post_training_claim(claims, accounts[1])
    with brownie.reverts():
        open_case(court, accounts[2], claim_id, court.MINIMUM_BOND() - 1)


def test_every_contract_of_the_court_fits_the_size_limit(court: Any) -> None:
    for address in (court.address, court.PROVER(), court.REFUTER()):
        assert len(brownie.web3.eth.get_code(address)) < 24 * 1024
