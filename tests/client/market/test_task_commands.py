"""`assay task`: from a task file to a task on chain, its refund, its proven model, and what is said about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from tasks.example import TASK, write_task

from assay.accounts import import_keystore
from assay.chain.errors import RevertedError
from assay.chain.sender import Sender
from assay.cli.task import task as task_commands
from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf as ClaimLeaf
from assay.commitments.execution import claim_root, derived_false_claim
from assay.errors import AssayError
from assay.market.deployment import write_deployment
from assay.market.errors import TaskStateError
from assay.market.events import ProofRegistered
from assay.market.reader import MarketReader
from assay.market.tasks import TasksContract
from assay.market.types import NO_DERIVATION, Checkpoint, Derivation, ReplayLeaf
from assay.market.verification import hidden_of, is_forced, salt_of
from assay.roles.context import Send
from assay.roles.session import open_sender
from assay.roles.upkeep import withdrawal
from assay.settings import load_settings
from assay.storage.directory import DirectoryStore
from assay.tasks.build import build_bundle
from assay.tasks.errors import BundleError, ProofFilesError, TaskFileError
from assay.tasks.posting import make_posting
from assay.tasks.proof import publish_proof
from assay.tasks.publish import fetch_bundle
from assay.tasks.submit import task_of_transaction
from assay.tasks.task_file import read_task_file
from assay.training.checkpoint import CheckpointFolder
from assay.training.train import Proof, train

from .conftest import COIN, World

SUBMITTER, SOLVER, VERIFIER, STRANGER = 1, 2, 3, 4
PASSWORD = "only for tests"


@dataclass
class Desk:
    """A submitter's machine: settings in the environment, and the commands."""

    world: World
    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, **changes: str) -> str:
        result = CliRunner().invoke(
            task_commands, list(words), env=self.environment | changes, catch_exceptions=False, standalone_mode=False
        )
        self.code = result.return_value
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(Path(self.environment["ASSAY_STORAGE_FOLDER"]))


@pytest.fixture
def desk(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    write_deployment(world.running.deployment, tmp_path / "deployment.json")
    for number in (SUBMITTER, STRANGER):
        import_keystore(tmp_path / f"{number}.key", world.running.chain.private_keys[number], PASSWORD, iterations=2)
    write_task(tmp_path / "task")
    monkeypatch.chdir(tmp_path / "task")
    environment = {
        "ASSAY_CHAIN_URL": world.running.chain.url,
        "ASSAY_CHAIN_DEPLOYMENT": str(tmp_path / "deployment.json"),
        "ASSAY_CHAIN_POLL_SECONDS": "0.1",
        "ASSAY_ACCOUNT_KEYSTORE": str(tmp_path / f"{SUBMITTER}.key"),
        "ASSAY_PASSWORD": PASSWORD,
        "ASSAY_STATE_FOLDER": str(tmp_path / "submitter"),
        "ASSAY_STORAGE_FOLDER": str(tmp_path / "store"),
        "XDG_CONFIG_HOME": str(tmp_path / "none"),
    }
    return Desk(world, tmp_path, environment)


def test_an_estimate_says_what_the_market_charges(desk: Desk) -> None:
    found = desk.json("estimate")
    work = found["work"]
    assert work["training"] == 12 * work["step"] > 0
    assert work["replay"] == 2 * 3 * work["step"]
    assert work["profile"] == 0
    parts = ("highest_reward", "verifier_fee", "profiler_fee", "draw_bounties", "tax")
    assert int(found["escrow"]) == sum(int(found[name]) for name in parts)
    assert found["segments"] == 4
    text = desk.run("estimate")
    assert "escrow" in text
    assert f"{work['training']} units" in text
    # Nothing was stored, signed or sent.
    assert desk.json("list") == []
    assert not desk.store.folder.exists()


def test_an_estimate_works_without_chain_or_deployment(desk: Desk) -> None:
    found = desk.run("estimate", "--json", ASSAY_CHAIN_URL="http://127.0.0.1:9", ASSAY_CHAIN_DEPLOYMENT="")
    assert json.loads(found)["gas_cost"] == "0"


def test_a_dry_run_sends_nothing(desk: Desk) -> None:
    dry = desk.json("submit", "--dry-run")
    assert dry == desk.json("estimate")
    assert desk.json("list") == []
    assert not desk.store.folder.exists()


def test_submit_list_show_explain_cancel_refund(desk: Desk) -> None:
    market, before = desk.world.market, desk.json("estimate")
    made = desk.json("submit")
    number = made["task"]
    assert made["escrow"] == before["escrow"]
    assert market.stakes.total() == int(before["escrow"])
    (row,) = desk.json("list")
    assert (row["task"], row["state"], row["mode"]) == (number, "open", "exact")
    assert desk.json("list", "--state", "settled") == []
    assert [each["task"] for each in desk.json("list", "--submitter", desk.world.address(SUBMITTER))] == [number]
    shown = desk.json("show", number[:12])
    assert shown["roots"]["program"] == before["roots"]["program"]
    assert shown["locations"] == made["locations"]
    assert number in desk.run("show", number)
    # What is posted can be fetched by everybody, and fits the chain.
    bundle = fetch_bundle([desk.store], shown["locations"], desk.folder / "fetched")
    assert bundle.manifest.program_root.hex() == shown["roots"]["program"]
    told = desk.json("explain", number)
    assert any("0 are on the roll" in sentence for sentence in told["reasons"])
    assert [row["rule"] for row in told["payments"]] == ["escrow of the task"]
    # The same again is the same task, unless another is asked for.
    again = desk.json("submit")
    assert (again["task"], again["repeated"]) == (number, True)
    other = desk.json("submit", "--another")
    assert other["task"] != number
    assert len(desk.json("list")) == 2
    cancelled = desk.json("cancel", number)
    assert cancelled["credit"] == made["escrow"]
    assert desk.json("show", number)["state"] == "cancelled"
    assert desk.json("cancel", number)["transaction"] == cancelled["transaction"]
    assert "refund to the submitter" in desk.run("explain", number)
    address = market.chain.web3.to_checksum_address(desk.world.address(SUBMITTER))
    balance = market.chain.web3.eth.get_balance(address)
    assert desk.json("withdraw")["amount"] == made["escrow"]
    gained = market.chain.web3.eth.get_balance(address) - balance
    assert int(made["escrow"]) * 0.99 < gained < int(made["escrow"])
    with pytest.raises(TaskStateError, match="no credit"):
        desk.run("withdraw")
    assert "TaskFinished" in desk.run("watch", number)


def post_with_locations(desk: Desk, account: int, locations: bytes) -> str:
    """Post a task as a client of one's own would, its locations being any bytes; returns its number."""
    world = desk.world
    terms = read_task_file(Path("task.toml"))
    bundle = build_bundle(terms, desk.folder / "strange")
    posting = make_posting(bundle, terms.market, "Z" * len(locations), world.market.parameters)
    call = world.market.tasks.submit(posting, world.market.tasks.escrow_of(posting))
    marked = b"Z" * len(locations)
    assert call.data.count(marked) == 1
    sent = world.do(account, replace(call, data=call.data.replace(marked, locations)))
    return f"{task_of_transaction(world.market, sent):#066x}"


def test_locations_that_are_no_text_keep_nobody_from_following_the_market(desk: Desk) -> None:
    strange = post_with_locations(desk, STRANGER, b"\xff\xfe" * 20)
    number = desk.json("submit")["task"]
    assert {each["task"] for each in desk.json("list")} == {strange, number}
    assert desk.json("show", strange)["locations"] == "\ufffd" * 40
    with pytest.raises(BundleError, match="not JSON"):
        fetch_bundle([desk.store], desk.json("show", strange)["locations"], desk.folder / "fetched")


def test_locations_cannot_pretend_to_be_what_the_chain_says(desk: Desk) -> None:
    strange = post_with_locations(desk, STRANGER, b"x\nstate                    settled\x1b[8m        ")
    told = desk.run("show", strange)
    assert [line.split()[1] for line in told.splitlines() if line.startswith("state ")] == ["open"]
    assert "\x1b" not in told
    assert "settled" in desk.json("show", strange)["locations"]


def test_amounts_are_shown_in_coins_and_told_to_programs_in_wei(desk: Desk) -> None:
    number = desk.json("submit")["task"]
    told = {line.split()[0]: line.split()[1:] for line in desk.run("show", number).splitlines()}
    assert told["highest_reward"] == ["2", "coins"]
    assert told["lowest_reward"] == ["0.5", "coins"]
    assert told["profiler_fee"] == ["0", "coins"]
    assert desk.json("show", number)["highest_reward"] == str(2 * COIN)


def test_a_withdrawal_by_hand_is_not_taken_for_a_later_one_of_a_role(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_PASSWORD", PASSWORD)
    desk.json("cancel", desk.json("submit")["task"])
    desk.json("withdraw")
    market = desk.world.market
    with open_sender(load_settings(environment=desk.environment), market) as sender:
        for number in range(10):
            view = SimpleNamespace(accounts=SimpleNamespace(withdrawals={sender.address: number}))
            purse = SimpleNamespace(credit=COIN)
            context: Any = SimpleNamespace(view=view, purse=purse, me=sender.address, market=market)
            (action,) = withdrawal(context, 1)
            assert isinstance(action, Send)
            assert sender.find(action.key) is None


class KilledError(Exception):
    """Stands for a process that ends at this line."""


@pytest.mark.parametrize("place", ["_sign", "_broadcast", "wait"])
def test_a_submission_killed_anywhere_posts_one_task(desk: Desk, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def kill(*_words: object, **_more: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Sender, place, kill)
        with pytest.raises(KilledError):
            desk.run("submit")
    made = desk.json("submit")
    assert made["repeated"] is (place != "_sign")
    assert [each["task"] for each in desk.json("list")] == [made["task"]]
    assert desk.world.market.stakes.total() == int(made["escrow"])


def test_what_cannot_work_is_refused_before_anything_is_paid(desk: Desk) -> None:
    with pytest.raises(TaskFileError, match="cannot read"):
        desk.run("submit", "absent.toml")
    desk.world.request("anvil_setBalance", desk.world.address(SUBMITTER), hex(COIN))
    with pytest.raises(TaskFileError, match="the escrow is 2"):
        desk.run("submit")
    desk.world.request("anvil_setBalance", desk.world.address(SUBMITTER), hex(100 * COIN))
    write_task(desk.folder / "task", TASK.replace("verifiers = 1", "verifiers = 1\nverifier_fee = 0.000001"))
    with pytest.raises(TaskFileError, match="market.verifier_fee is 0.000001 coins"):
        desk.run("submit")
    with pytest.raises(AssayError, match="assay deploy"):
        desk.run("list", ASSAY_CHAIN_DEPLOYMENT="")
    with pytest.raises(AssayError, match="assay account new"):
        desk.run("submit", ASSAY_ACCOUNT_KEYSTORE="")
    assert desk.world.market.stakes.total() == 0


def test_a_tolerant_task_that_profilers_would_refuse_is_refused_before_anything_is_paid(desk: Desk) -> None:
    training = 'mode = "tolerant"\nprecision = "bf16"'
    text = TASK.replace('mode = "exact"', training).replace("learning_rate = 0.01", "learning_rate = 1e-7")
    text = text.replace("steps = 12", "steps = 48").replace("checkpoint_interval = 3", "checkpoint_interval = 12")
    write_task(Path(), text)
    with pytest.raises(TaskFileError, match="use exact mode") as refused:
        desk.json("submit")
    assert "--unprofiled" in str(refused.value)
    assert desk.json("list") == []
    assert not desk.store.folder.exists()
    posted = desk.json("submit", "--unprofiled")["task"]
    assert [row["task"] for row in desk.json("list")] == [posted]


def test_a_task_whose_layer_could_stay_untrained_is_refused_though_the_market_would_take_it(desk: Desk) -> None:
    training = 'mode = "tolerant"\nprecision = "bf16"'
    write_task(Path(), TASK.replace('mode = "exact"', training).replace("interval = 3", "interval = 1"))
    with pytest.raises(TaskFileError, match="a weight tensor not trained") as refused:
        desk.json("submit")
    assert "The market asks less" in str(refused.value)
    assert desk.json("list") == []


def test_a_dry_run_and_an_estimate_say_what_tolerant_mode_would_let_pass(desk: Desk) -> None:
    write_task(Path(), TASK.replace('mode = "exact"', 'mode = "tolerant"\nprecision = "tf32"'))
    dry = desk.json("submit", "--dry-run")
    assert dry["profile"]["acceptable"]
    unseen = {forgery["kind"] for forgery in dry["profile"]["forgeries"] if not forgery["seen"]}
    assert "bf16" in unseen
    assert desk.json("estimate", "--profile") == dry
    plain = {name: value for name, value in dry.items() if name != "profile"}
    assert desk.json("estimate") == desk.json("submit", "--dry-run", "--unprofiled") == plain
    assert "Unseen would pass" in desk.run("estimate", "--profile")
    assert desk.json("list") == []
    assert "bf16" in desk.json("submit")["would_pass"]


def test_a_dry_run_ends_with_a_status_where_the_task_would_be_refused(desk: Desk) -> None:
    training = 'mode = "tolerant"\nprecision = "bf16"'
    write_task(Path(), TASK.replace('mode = "exact"', training).replace("interval = 3", "interval = 1"))
    text = desk.run("submit", "--dry-run")
    assert desk.code == 1
    assert "WOULD PASS" in text
    assert "escrow" in text


def test_only_the_submitter_cancels(desk: Desk) -> None:
    number = desk.json("submit")["task"]
    with pytest.raises(RevertedError, match="NotTheSubmitter"):
        desk.run(
            "cancel",
            number,
            ASSAY_ACCOUNT_KEYSTORE=str(desk.folder / f"{STRANGER}.key"),
            ASSAY_STATE_FOLDER=str(desk.folder / "stranger"),
        )


def test_a_cancellation_that_the_chain_refused_can_be_made_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    number, cancel = desk.json("submit")["task"], TasksContract.cancel
    with monkeypatch.context() as short_of_gas:
        short_of_gas.setattr(TasksContract, "cancel", lambda self, task_id: replace(cancel(self, task_id), gas=30_000))
        with pytest.raises(TaskStateError, match="the chain refused"):
            desk.run("cancel", number)
    assert desk.json("show", number)["state"] == "open"
    cancelled = desk.json("cancel", number)
    assert desk.json("show", number)["state"] == "cancelled"
    assert desk.json("cancel", number)["transaction"] == cancelled["transaction"]


def test_a_task_that_is_taken_is_not_cancelled(desk: Desk) -> None:
    number = desk.json("submit")["task"]
    take_and_register(desk, int(number, 16))
    with pytest.raises(TaskStateError, match="only open tasks can be cancelled") as refusal:
        desk.run("cancel", number)
    assert refusal.value.code == "task-state"


def take_and_register(desk: Desk, number: int, cheat: bool = False) -> Proof:
    """An honest solver's part; a cheat changes the last checkpoint."""
    world, market = desk.world, desk.world.market
    bundle = fetch_bundle([desk.store], market_posting(desk, number), desk.folder / "solver")
    proof = train(bundle.task, desk.folder / "run")
    if cheat:
        folder = CheckpointFolder(proof.folder, bundle.task.program.state)
        state = folder.read(bundle.task.segments)
        state[0] = state[0] + np.float32(1)
        proof = Proof(proof.folder, (*proof.roots[:-1], folder.write(bundle.task.segments, state)))
    world.do(SOLVER, market.stakes.deposit(5 * COIN))
    world.do(VERIFIER, market.stakes.deposit(2 * COIN))
    world.do(VERIFIER, market.stakes.enlist(1, 80))
    world.do(SOLVER, market.tasks.take(number, 0))
    levels = tree.levels(proof.roots)
    world.do(
        SOLVER,
        market.tasks.register(
            number, proof.root, proof.final_root, tree.proof_of(levels, 0),
            tree.proof_of(levels, bundle.task.segments), publish_proof(desk.store, proof),
        ),
    )  # fmt: skip
    return proof


def market_posting(desk: Desk, number: int) -> str:
    reader = MarketReader(desk.world.market)
    reader.poll()
    return reader.view.task(number).posting.locations


def verify(desk: Desk, number: int, proof: Proof) -> None:
    """A verifier's part up to settlement, as far as the chain can see it."""
    world, market = desk.world, desk.world.market
    reader = MarketReader(market)
    world.pass_time(1, 4)
    world.do(VERIFIER, market.verification.draw(number, 0))
    reader.poll()
    found = reader.view.current_round(number, 0)
    assert found is not None
    claim = [ClaimLeaf(segment, proof.roots[segment + 1], 0, bytes([9]) * 32) for segment in found.segments]
    secret = bytes([5]) * 32
    lie = derived_false_claim(claim, secret, number, found.id)
    hidden = hidden_of(secret, 0, found.verifier, found.id, claim_root(claim), claim_root(lie))
    world.do(VERIFIER, market.verification.commit(found.id, hidden))
    world.pass_time(1, market.parameters.join_blocks + 1)
    seed = market.seeds.lottery(market.verification.round(found.id).lottery_block, found.id)
    derivation, index, shown_claim = NO_DERIVATION, 0, claim
    if is_forced(secret, seed, market.parameters.forced_rate):
        place = next(n for n, (one, other) in enumerate(zip(claim, lie, strict=True)) if one != other)
        siblings = tree.proof_of(tree.levels([leaf.leaf() for leaf in lie]), place)
        derivation = Derivation(b"\x05" + claim[place].encode()[:-32], claim[place].trace_root, tuple(siblings))
        index, shown_claim = 1, lie
    levels = tree.levels(proof.roots)
    leaves = [ReplayLeaf(each.end_root, 0, each.trace_root) for each in shown_claim]
    opened = [Checkpoint(proof.roots[s + 1], tuple(tree.proof_of(levels, s + 1))) for s in found.segments]
    salt = salt_of(secret, found.id, index)
    world.do(VERIFIER, market.verification.show_replay(found.id, hidden, index, salt, leaves, opened))
    reader.poll()
    shown = reader.view.rounds[found.id].shown
    assert shown is not None
    world.do(VERIFIER, market.verification.disclose(found.id, secret, 0, shown, derivation))
    reader.poll()
    world.pass_time(reader.view.claims.lines[found.id].until - reader.view.time + 2)
    world.do(VERIFIER, market.settlement.settle(number))


def test_a_proven_model_is_fetched_and_audited(desk: Desk) -> None:
    number = int(desk.json("submit")["task"], 16)
    name = f"{number:#066x}"
    with pytest.raises(ProofFilesError, match="is open"):
        desk.run("fetch", name)
    proof = take_and_register(desk, number)
    told = " ".join(desk.json("explain", name)["reasons"])
    assert "a verifier is to be drawn" in told
    assert desk.json("show", name)["state"] == "verifying"
    with pytest.raises(ProofFilesError, match="not proven"):
        desk.run("fetch", name)
    verify(desk, number, proof)
    shown = desk.json("show", name)
    assert (shown["state"], shown["roots"]["final"]) == ("settled", proof.final_root.hex())
    assert shown["rounds"][0]["passes"] is True
    rules = {row["rule"] for row in desk.json("explain", name)["payments"]}
    assert {"auction price", "fee of the verifier", "stake returned", "refund to the submitter"} <= rules
    fetched = desk.json("fetch", name, "--folder", str(desk.folder / "model"))
    assert (fetched["proven"], fetched["root"]) == (True, proof.final_root.hex())
    model = load_file(fetched["model"])
    assert sorted(model) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    audited = desk.json("audit", name, "--all")
    assert [row["matches"] for row in audited["segments"]] == [True] * 4
    assert "match" in desk.run("audit", name, "--segment", "2")
    # Proofs stack: a further task goes on from the proven state, and from no other.
    text = TASK.replace("verifiers = 1", f'verifiers = 1\nbase_task = "{name}"')
    base = f"[model]\nbase_state = {json.dumps(fetched['full_state'])}"
    write_task(desk.folder / "task", text.replace("[model]", base))
    further = desk.json("submit")
    assert desk.json("show", further["task"])["base_task"] == name
    assert desk.json("show", further["task"])["roots"]["initial"] == proof.final_root.hex()
    begun = desk.folder / "run" / "checkpoint-000000.safetensors"
    write_task(desk.folder / "task", text.replace("[model]", f"[model]\nbase_state = {json.dumps(str(begun))}"))
    with pytest.raises(RevertedError, match="NotAProvenBase"):
        desk.run("submit")
    events = [json.loads(line) for line in desk.run("watch", name, "--json").splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "TaskSubmitted"
    assert ProofRegistered.__name__ in kinds
    assert desk.code == 0


def test_an_audit_finds_a_false_checkpoint(desk: Desk) -> None:
    number = int(desk.json("submit")["task"], 16)
    take_and_register(desk, number, cheat=True)
    audited = desk.json("audit", f"{number:#066x}", "--all")
    assert [row["matches"] for row in audited["segments"]] == [True, True, True, False]
    assert desk.code == 1
    assert "MISMATCH" in desk.run("audit", f"{number:#066x}", "--segment", "3")
    assert desk.run("watch", f"{number:#066x}", "--timeout", "0")
    assert desk.code == 1


def test_a_task_that_is_not_there_is_told(desk: Desk) -> None:
    for command in ("show", "explain", "watch", "cancel", "fetch", "audit"):
        with pytest.raises(AssayError, match="assay task list"):
            desk.run(command, "0x1234")
