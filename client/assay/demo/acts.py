"""The acts of the demonstration. Each plays a story through the role processes and then asks the chain how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assay.chain.sender import Outcome, Sender
from assay.demo.digits import accuracy, write_task
from assay.demo.stage import PARAMETERS, ActError, Stage
from assay.market.events import CoinMoved
from assay.market.records import CaseRecord, RoundRecord, TaskRecord
from assay.market.types import MILLION, AnswerState, Class, TaskState
from assay.roles.case_report import CaseReport, report_case
from assay.state import StateFolder
from assay.storage.directory import DirectoryStore
from assay.tasks.build import build_bundle
from assay.tasks.posting import estimate, make_posting
from assay.tasks.proof import fetch_checkpoint, fetch_proof_manifest
from assay.tasks.publish import publish_bundle
from assay.tasks.task_file import read_task_file
from assay.training.checkpoint import write_tensors

STEPS, INTERVAL = 320, 40
ROLE_COMMANDS = {
    "solver": ("assay", "solver", "run"),
    "verifier": ("assay", "verifier", "run"),
    "whistleblower": ("assay", "whistleblower", "run", "--audits", "0", "--stake", "2"),
    "lying verifier": ("assay.demo.dishonest", "verifier"),
    "false accuser": ("assay.demo.dishonest", "accuser"),
    "cheating solver": ("assay.demo.dishonest", "solver"),
}


@dataclass
class Act:
    """How an act went. `checks` are sentences about the chain, each true or false. Amounts in wei."""

    name: str
    title: str
    checks: list[tuple[str, bool]] = field(default_factory=list)
    transactions: int = 0
    seconds: float = 0.0
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(true for _, true in self.checks)

    def check(self, sentence: str, true: bool) -> None:
        """Note whether something is as it must be."""
        self.checks.append((sentence, bool(true)))

    def as_json(self) -> dict[str, Any]:
        """For `--json`: amounts as decimal text, in wei."""
        return {
            "name": self.name,
            "title": self.title,
            "ok": self.ok,
            "checks": [{"check": sentence, "ok": true} for sentence, true in self.checks],
            "transactions": self.transactions,
            "seconds": round(self.seconds, 2),
            "before": {name: str(amount) for name, amount in self.before.items()},
            "after": {name: str(amount) for name, amount in self.after.items()},
        }


@dataclass(frozen=True)
class Model:
    """The proven model, where it lies, and how well it does on samples it was never trained on."""

    path: Path
    test_accuracy: float

    def as_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "test_accuracy": self.test_accuracy}


class Play:
    """The five acts on one stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.model: Model | None = None
        self.case: CaseReport | None = None
        stage.say("the submitter traces the model and publishes program and data")
        self.bundle = build_bundle(
            read_task_file(write_task(stage.folder / "submitter" / "task", STEPS, INTERVAL, 1)),
            stage.folder / "submitter" / "bundle",
        )
        self.file = read_task_file(stage.folder / "submitter" / "task" / "task.toml")
        self.store = DirectoryStore(stage.store)
        self.locations = publish_bundle(self.store, self.bundle)
        self.submissions = 0
        self.state = StateFolder(stage.folder / "submitter" / "state")
        self.sender = Sender(stage.market.chain, stage.account("submitter"), self.state)

    def close(self) -> None:
        self.state.close()

    # ---- Steps that the acts share ----------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a role unless it is on stage already."""
        if name not in self.stage.actors:
            self.stage.start(name, ROLE_COMMANDS[name])

    def submit(self, verifiers: int = 1) -> TaskRecord:
        """Post the task once more, with that many verifiers."""
        terms = replace(self.file.market, verifiers=verifiers)
        posting = make_posting(self.bundle, terms, self.locations, PARAMETERS)
        escrow = estimate(posting, self.bundle.task.program, PARAMETERS).escrow
        known = set(self.stage.reader.view.tasks)
        self.submissions += 1
        sent = self.sender.send(f"submit:{self.submissions}", self.stage.market.tasks.submit(posting, escrow))
        if sent.outcome is not Outcome.SUCCEEDED:
            raise ActError(f"the chain refused the task in {sent.hash}")
        self.stage.reader.poll()
        (task_id,) = set(self.stage.reader.view.tasks) - known
        self.stage.say(f"  {'submitter':14} submit {task_id:#x}"[:60])
        return self.task(task_id)

    def task(self, task_id: int) -> TaskRecord:
        return self.stage.reader.view.tasks[task_id]

    def until_over(self, task_id: int, limit: float = 300.0) -> TaskRecord:
        """Play until a task has ended and nobody has anything left to do."""
        self.stage.play_until("the task's end", lambda: self.task(task_id).state.is_over, limit)
        self.stage.settle_down()
        return self.task(task_id)

    def moved(self, source: Class, source_id: int | str, target: Class, target_id: int | str) -> int:
        """Sum of what the ledger has moved from one bucket to another, in wei."""
        ids = [int(each, 16) if isinstance(each, str) else each for each in (source_id, target_id)]
        return sum(
            move.amount
            for move in self.moves()
            if (move.from_, move.from_id, move.to, move.to_id) == (source, ids[0], target, ids[1])
        )

    def moves(self) -> list[CoinMoved]:
        """All that the ledger has moved so far."""
        logged = (each.event for each in self.stage.reader.events("Stakes"))
        return [event for event in logged if isinstance(event, CoinMoved)]

    def address(self, name: str) -> str:
        return str(self.stage.account(name).address)

    def round_of(self, task: TaskRecord, verifier: str) -> RoundRecord | None:
        """A verifier's round of a task."""
        rounds = self.stage.reader.view.rounds_of(task.id)
        return next((each for each in reversed(rounds) if each.verifier == self.address(verifier)), None)

    def cases_against(self, line: int) -> list[CaseRecord]:
        """All cases on claims of a line."""
        view = self.stage.reader.view
        return [case for case in view.claims.cases.values() if view.claims.opened[case.claim_id].line == line]

    def gather(self) -> None:
        """The honest roles, on stage and on the roll."""
        for name in ("verifier", "whistleblower", "solver"):
            self.start(name)
        verifier, stakes = self.address("verifier"), self.stage.market.stakes
        self.stage.play_until("a verifier on the roll", lambda: stakes.seats(verifier) > 0)

    # ---- Acts -------------------------------------------------------------------------------------------------------

    def honest(self, act: Act) -> None:
        """(a) A solver trains, is verified, is paid; the submitter fetches the proven model."""
        self.gather()
        task = self.until_over(self.submit().id)
        solver, verifier = self.address("solver"), self.address("verifier")
        act.check("the task is settled", task.state is TaskState.SETTLED)
        paid = self.moved(Class.ESCROW, task.id, Class.CREDIT, solver)
        bounties = PARAMETERS.draw_bounty
        act.check("the solver was paid the auction's price", paid in (task.price, task.price + bounties))
        fee = self.moved(Class.ESCROW, task.id, Class.CREDIT, verifier)
        act.check(
            "the verifier was paid its fee", fee in (task.posting.verifier_fee, task.posting.verifier_fee + bounties)
        )
        self.model = self.fetch(task)
        act.check(f"the model names {self.model.test_accuracy:.1%} of the test digits", self.model.test_accuracy > 0.9)

    def fetch(self, task: TaskRecord) -> Model:
        """Fetch the final state, compared with the root on chain."""
        folder = self.stage.folder / "submitter" / "model"
        manifest = fetch_proof_manifest([self.store], task.proof_locations, folder, task.checkpoint_root, task.segments)
        if manifest.roots[-1] != task.final_root:
            raise ActError("the published model is not the registered one")
        program = self.bundle.task.program
        state = fetch_checkpoint([self.store], manifest, task.segments, program, folder)
        path = folder / "model.safetensors"
        write_tensors(path, state)
        return Model(path, accuracy(state))

    def lying_verifier(self, act: Act) -> None:
        """(c) A verifier's claim is false in one multiply-add; a whistleblower goes to court, the chain executes it."""
        self.gather()
        self.start("lying verifier")
        liar = self.address("lying verifier")
        self.stage.play_until("the liar on the roll", lambda: self.stage.market.stakes.seats(liar) > 0)
        task = self.until_over(self.submit(verifiers=2).id, limit=400)
        found = self.round_of(task, "lying verifier")
        act.check("the liar was drawn", found is not None)
        cases = [] if found is None else self.cases_against(found.id)
        act.check("the whistleblower opened a case", any(c.challenger == self.address("whistleblower") for c in cases))
        if found is None or not cases:
            return
        self.case = report_case(self.stage.market, cases[0].id)
        act.check("the challenger won", self.case.challenger_won)
        operation = self.case.operation
        act.check("the chain executed one operation, and it contradicts the claim",
                  operation is not None and operation.result != operation.claimed)  # fmt: skip
        act.check(
            "the liar lost its whole seat",
            self.stage.market.stakes.locked(liar) == 0 == self.stage.market.stakes.free(liar),
        )
        finders = PARAMETERS.seat * PARAMETERS.finder_rate // MILLION
        share = self.moved(Class.LOCKED, liar, Class.ROUND, found.id)
        act.check("the finders' part of it went to whoever was right", share == finders)
        act.check("the honest solver was paid all the same", task.state is TaskState.SETTLED)
        self.stage.stop("lying verifier")

    def jackpot(self, act: Act) -> None:
        """(d) The lottery forces a verifier to show a false claim; the whistleblower answers rightly: the jackpot."""
        self.gather()
        for _ in range(12):
            task = self.until_over(self.submit().id)
            found = self.round_of(task, "verifier")
            prize = 0 if found is None else self.stage.market.jackpot.prize(found.id)
            # The first taxes and lost stakes fill the pool: without them there is no prize.
            if found is not None and found.forced and prize > 0:
                break
        else:
            raise ActError("twelve rounds and none was forced: that happens once in four thousand runs, try again")
        assert found is not None
        me = self.address("whistleblower")
        won = self.moved(Class.ROUND, found.id, Class.CREDIT, me)
        collected = found.answers.get(me) is AnswerState.COLLECTED
        act.check("a false claim was shown and answered rightly", found.forced and collected)
        act.check("the jackpot is not empty", prize > 0)
        act.check("the whistleblower has it", won == prize)
        fee = self.moved(Class.ESCROW, task.id, Class.CREDIT, self.address("verifier"))
        act.check("the forced verifier still earned its fee", fee >= task.posting.verifier_fee)
        act.check("the task is settled", task.state is TaskState.SETTLED)

    def false_accusation(self, act: Act) -> None:
        """(e) An honest proof is accused; the case is lost, and with it the bond."""
        self.gather()
        self.start("false accuser")
        accuser = self.address("false accuser")
        task = self.until_over(self.submit().id, limit=400)
        cases = [case for case in self.stage.reader.view.claims.cases.values() if case.challenger == accuser]
        act.check("the proof was accused", bool(cases))
        act.check("the accuser lost", bool(cases) and all(case.challenger_won is False for case in cases))
        for case in cases:
            half = PARAMETERS.case_bond // 2
            act.check("half of the bond went to the solver",
                      self.moved(Class.CASE, case.id, Class.CREDIT, self.address("solver")) == half)  # fmt: skip
            act.check("the rest went to the jackpot pool",
                      self.moved(Class.CASE, case.id, Class.POOL, 0) == PARAMETERS.case_bond - half)  # fmt: skip
        act.check("the task is settled", task.state is TaskState.SETTLED)
        self.stage.stop("false accuser")

    def cheating_solver(self, act: Act) -> None:
        """(b) A solver posts checkpoints that nobody trained; the drawn replay finds it, its stake is lost."""
        self.gather()
        self.stage.stop("solver")
        self.start("cheating solver")
        task = self.until_over(self.submit().id)
        cheat = self.address("cheating solver")
        act.check("the cheat took the task", task.solver == cheat)
        act.check("the task failed", task.state is TaskState.FAILED)
        act.check("the cheat lost its stake", self.stage.market.stakes.locked(cheat) == 0)
        # Whoever carries out a draw has its bounty, whatever else it did.
        earned = self.moved(Class.ESCROW, task.id, Class.CREDIT, cheat)
        act.check("the cheat was paid nothing for its work", earned in (0, PARAMETERS.draw_bounty))
        submitter = self.address("submitter")
        back = self.moved(Class.ESCROW, task.id, Class.CREDIT, submitter)
        act.check("the submitter has its reward back", back >= task.posting.highest_reward)
        share = self.moved(Class.ESCROW, task.id, Class.CREDIT, self.address("verifier"))
        act.check("the verifier earned its fee and a share", share > task.posting.verifier_fee)
        self.stage.stop("cheating solver")

    # ---- Accounts ---------------------------------------------------------------------------------------------------

    def ledger(self) -> tuple[int, int]:
        """What all buckets of the ledger hold, and what its contract has, in wei."""
        stakes = self.stage.market.stakes
        return stakes.total(), int(self.stage.market.chain.web3.eth.get_balance(stakes.address))

    def payments(self) -> list[tuple[str, str, int]]:
        """Who paid whom: sums of what the ledger moved, by kind and account, in wei."""
        names = {int(str(account.address), 16): name for name, account in self.stage.accounts.items()}
        sums: dict[tuple[str, str], int] = {}
        for move in self.moves():
            ends = []
            for kind, number in ((move.from_, move.from_id), (move.to, move.to_id)):
                owner = names.get(number)
                ends.append(f"{kind.name.lower()}{f' of the {owner}' if owner else ''}")
            pair = (ends[0], ends[1])
            sums[pair] = sums.get(pair, 0) + move.amount
        return [(source, target, amount) for (source, target), amount in sorted(sums.items())]

    # ---- The whole play ---------------------------------------------------------------------------------------------

    def perform(self, name: str, title: str, story: Callable[[Act], None]) -> Act:
        """Play one act and measure it."""
        self.stage.say(f"act ({name}): {title}")
        act = Act(name, title)
        self.stage.reader.poll()
        first, begin = self.stage.reader.view.block, time.monotonic()
        act.before = self.stage.balances()
        story(act)
        act.seconds = time.monotonic() - begin
        self.stage.reader.poll()
        eth = self.stage.market.chain.web3.eth
        last = self.stage.reader.view.block
        act.transactions = sum(eth.get_block_transaction_count(n) for n in range(first + 1, last + 1))
        act.after = self.stage.balances()
        for sentence, true in act.checks:
            self.stage.say(f"  {'yes' if true else 'NO ':14} {sentence}")
        return act


ACTS: tuple[tuple[str, str, Callable[[Play, Act], None]], ...] = (
    ("a", "an honest solver trains, is verified, is paid", Play.honest),
    ("c", "a verifier that lies is taken to court", Play.lying_verifier),
    ("d", "a forced error is exposed and the jackpot paid", Play.jackpot),
    ("e", "a false accusation fails and costs its bond", Play.false_accusation),
    ("b", "a solver that cheats is caught and slashed", Play.cheating_solver),
)
"""In the order played: the lost stake of (c) fills the pool that (d) is paid from."""
