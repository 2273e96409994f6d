"""A node on a live chain: what one transaction comes to keeps it from no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eth_account import Account

from assay.chain.sender import Call, Outcome, Sender
from assay.market.connection import Market, open_chain
from assay.market.local import LocalMarket, local_market
from assay.roles.bench import Workbench
from assay.roles.context import Action, Context, Send
from assay.roles.metrics import Metrics
from assay.roles.node import Node
from assay.state import StateFolder

# Its code is an invalid instruction: no node says that this would be refused by a contract, only that it fails.
FAILING = bytes.fromhex("60fe60005360016000f3")


@dataclass
class Planned:
    """A player that always wants the same."""

    actions: Sequence[Action] = ()
    name: str = "planned"
    seen: list[Context] = field(default_factory=list)

    def plan(self, context: Context) -> Sequence[Action]:
        self.seen.append(context)
        return self.actions


@pytest.fixture(scope="module")
def local() -> Iterator[LocalMarket]:
    with local_market() as local:
        yield local


@pytest.fixture
def node(local: LocalMarket, tmp_path: Path) -> Iterator[Node]:
    with StateFolder(tmp_path) as state:
        market = Market(open_chain(local.chain.url), local.deployment)
        sender = Sender(market.chain, Account.from_key(local.chain.private_keys[1]), state)
        yield Node(market, sender, state, Workbench(tmp_path / "work", (), state), [Planned()], Metrics("test"))


def test_a_request_that_the_endpoint_answers_with_an_error_keeps_a_node_from_nothing_else(node: Node) -> None:
    contract = node.sender.send("deploy", Call(None, FAILING)).contract
    assert contract is not None
    good = Call(node.market.chain.web3.to_checksum_address("0x" + "77" * 20), b"", 1)
    node.players = [Planned([Send("bad", Call(contract, b"")), Send("good", good)]), Planned([Send("better", good)])]
    for _ in range(3):
        assert node.step() is not None
    sent = {key: found.outcome for key in ("bad", "good", "better") if (found := node.sender.find(key)) is not None}
    assert sent == {"good": Outcome.SUCCEEDED, "better": Outcome.SUCCEEDED}


def test_a_transaction_that_was_mined_before_its_replacement_counts_as_mined(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, provider = node.sender, node.market.chain.web3.provider
    call = Call(node.market.chain.web3.to_checksum_address("0x" + "77" * 20), b"", 1)
    provider.make_request("evm_setAutomine", [False])  # type: ignore[arg-type]
    sender.submit("pay", call)
    with monkeypatch.context() as patch:
        patch.setattr(sender, "_broadcast", lambda raw: None)
        now = sender.clock()
        patch.setattr(sender, "clock", lambda: now + sender.fees.stuck_seconds)
        sender.advance()
    provider.make_request("evm_mine", [])  # type: ignore[arg-type]
    provider.make_request("evm_setAutomine", [True])  # type: ignore[arg-type]
    node.players = [Planned([Send("pay", call)])]
    for _ in range(3):
        assert node.step() is not None
    sent = sender.find("pay")
    assert sent is not None
    assert (len(sent.hashes), sent.outcome) == (2, Outcome.SUCCEEDED)
    assert node.summary.all.succeeded == 1
