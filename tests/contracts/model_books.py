"""What the random models of the market are made of: actors, calls on a chain, and a ledger kept from events alone.

After every call it checks that nothing was paid twice and that states only move forward; every few calls, that the
chain's sums are its own and that the balance covers them.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from market_chain import Chain, Event, Outcome, RevertedError, address_of
from market_world import CLASSES, CREDIT, FREE, MODULES, PROFILE, STATES, Round, World

SUBMITTERS = [address_of(f"submitter {n}") for n in range(2)]
HONEST_SOLVER, CHEAT = address_of("honest solver"), address_of("cheating solver")
HONEST = [address_of(f"honest verifier {n}") for n in range(4)]
LIARS = [address_of(f"lying verifier {n}") for n in range(3)]
BLOWERS = [address_of(f"whistleblower {n}") for n in range(3)]
GUESSER = address_of("guessing whistleblower")
CHALLENGERS = [address_of(f"challenger {n}") for n in range(2)]
OUTSIDER = address_of("outsider")
EVERYBODY = [*SUBMITTERS, HONEST_SOLVER, CHEAT, *HONEST, *LIARS, *BLOWERS, GUESSER, *CHALLENGERS, OUTSIDER]
HONEST_PEOPLE = [HONEST_SOLVER, *HONEST, *BLOWERS]

TERMINAL = STATES.index("Settled")


@dataclass
class Task:
    """What the model knows of a task."""

    id: int
    exact: bool
    verifiers: int
    submitter: str
    cheat: int | None = None
    state: str = "None"
    relists: int = 0
    solver: str = ""


@dataclass
class Play:
    """What the model knows of a round beside what its verifier keeps."""

    round: Round
    truth: list[Any]
    joined: dict[str, bytes] = field(default_factory=dict)
    revealed: set[str] = field(default_factory=set)
    state: int = 1


@dataclass
class OpenCase:
    """A case the court has not closed."""

    id: int
    claim: int
    line: int
    root: bytes


class Books:
    """A deployment, what the model knows of it, and the choices of chance. `gentle` runs spare the honest."""

    world_type: type[World] = World

    def __init__(self, chain: Chain, seed: int, gentle: bool) -> None:
        self.random = random.Random(seed)
        self.gentle = gentle
        self.world = self.world_type(chain, forcedRate=300_000, maximalReplacements=1, activeBlocks=100)
        self.buckets: Counter[tuple[int, int]] = Counter()
        self.once: set[tuple[Any, ...]] = set()
        self.tasks: dict[int, Task] = {}
        self.plays: dict[int, Play] = {}
        self.lines: dict[int, bytes] = {}
        self.until: dict[int, int] = {}
        self.demands: dict[int, int] = {}
        self.calls = 0
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.deposited: Counter[str] = Counter()
        self.withdrawn: Counter[str] = Counter()

    @property
    def now(self) -> int:
        return int(self.world.chain.time)  # type: ignore[attr-defined]

    def balance(self, name: str) -> int:
        """Coin of a contract."""
        return self.world.chain.balance(self.world.chain.addresses[name])  # type: ignore[attr-defined]

    # ---- calls and what is checked after each ----

    def call(self, actor: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome | None:
        self.calls += 1
        try:
            outcome = self.world.do(actor, name, function, *arguments, value=value)
        except RevertedError as error:
            self.refusal_is_meant(error, function, arguments)
            self.refused[error.name] += 1
            return None
        self.done[f"{name}.{function}"] += 1
        for event in outcome.events:
            self.note(event)
        if self.calls % 25 == 0:
            self.check_sums()
        return outcome

    @staticmethod
    def refusal_is_meant(error: RevertedError, *context: Any) -> None:
        """Whatever is refused is refused by a custom error, never by an overflow or for want of gas."""
        assert error.name not in ("Panic", "halted", "unknown"), (context, error)

    def pay_once(self, *what: Any) -> None:
        assert what not in self.once, f"twice: {what}"
        self.once.add(what)

    def note(self, event: Event) -> None:
        values = event.values
        if event.contract == "Stakes" and event.name == "Entered":
            self.buckets[values["class"], values["id"]] += values["amount"]
        elif event.name == "Moved":
            source, target = (values["from"], values["fromId"]), (values["to"], values["toId"])
            assert self.buckets[source] >= values["amount"], event
            self.buckets[source] -= values["amount"]
            self.buckets[target] += values["amount"]
            if values["from"] == CREDIT:
                assert (values["to"], values["toId"]) == (FREE, values["fromId"]), "only its owner moves a credit"
        elif event.name == "Left":
            self.buckets[CREDIT, int(values["account"], 16)] -= values["amount"]
            self.withdrawn[values["account"].lower()] += values["amount"]
        elif event.name == "Submitted":
            self.step(values["taskId"], "Profiling")
        elif event.contract == "Market" and event.name in ("Opened", "Taken", "Registered"):
            self.step(values["taskId"], {"Opened": "Open", "Taken": "Taken", "Registered": "Verifying"}[event.name])
        elif event.name == "Finished":
            self.pay_once("finished", values["taskId"])
            self.step(values["taskId"], STATES[values["state"]])
        elif event.name == "Drawn":
            self.pay_once("drawn", values["roundId"])
            self.note_draw(values)
        elif event.name in ("Committed", "ReplayShown", "ProfileShown", "Disclosed", "Voided"):
            state = {"Committed": 2, "ReplayShown": 3, "ProfileShown": 3, "Disclosed": 4, "Voided": 5}[event.name]
            play = self.plays[values["roundId"]]
            assert state > play.state, "rounds only move forward"
            assert state == play.state + 1 or event.name == "Voided", "no phase is skipped"
            play.state = state
        elif event.name == "Released":
            self.pay_once("released", values["taskId"], values["share"])
            assert STATES.index(self.tasks[values["taskId"]].state) >= TERMINAL or values["share"] == PROFILE
        elif event.name == "Collected":
            self.pay_once("collected", values["roundId"], values["whistleblower"])
        elif event.name == "CaseClosed":
            self.pay_once("case", values["caseId"])
        elif event.name in ("Served", "NotServed"):
            self.pay_once("demand", values["demandId"])
        elif event.name == "AccusationClosed":
            self.pay_once("accusation", values["line"])
        elif event.name == "Entered":
            self.lines[values["line"]] = values["root"]
            self.until[values["line"]] = values["until"]
        elif event.name == "Fell":
            self.lines[values["line"]] = values["newRoot"]
            self.until[values["line"]] = values["until"]
        elif event.name == "Demanded":
            self.demands[values["demandId"]] = values["taskId"]

    def step(self, task_id: int, state: str) -> None:
        task = self.tasks.setdefault(task_id, Task(task_id, True, 1, ""))
        before = task.state
        if state == "Open" and before == "Taken":
            task.relists += 1
            assert task.relists <= self.world.parameters["maximalRelists"]
        else:
            assert STATES.index(state) > STATES.index(before) or state == before == "Profiling", (before, state)
            assert STATES.index(before) < TERMINAL, (before, state)
        task.state = state

    def note_draw(self, values: dict[str, Any]) -> None:
        round_ = self.world.round_of(values)
        task = self.tasks[round_.task]
        truth = round_.truth
        if round_.share != PROFILE and not task.exact and task.cheat is not None:
            truth = [
                (leaf[0], 0x40000000 if s >= task.cheat else leaf[1], leaf[2])
                for s, leaf in zip(round_.segments, truth, strict=True)
            ]
        round_.truth = truth
        if round_.verifier in [liar.lower() for liar in LIARS] and self.random.random() < 0.6:
            round_.truth = self.world.wrong(round_, "lie", self.random.random() < 0.5)
        self.plays[round_.id] = Play(round_, truth)

    def check_sums(self) -> None:
        sums: Counter[int] = Counter()
        for (kind, _), amount in self.buckets.items():
            sums[kind] += amount
        for kind in range(len(CLASSES)):
            assert self.world.see("Stakes", "totalOf", kind) == sums[kind], CLASSES[kind]
        for module in MODULES:
            assert self.balance(module) == (sum(sums.values()) if module == "Stakes" else 0), module

    # ---- choosing ----

    def pick(self, among: list[Any]) -> Any:
        return self.random.choice(among) if among else None

    def someone(self, likely: str) -> str:
        """Usually the one whose move it is, sometimes anybody (in gentle runs, anybody who is not honest)."""
        if self.random.random() < 0.85:
            return likely
        return self.pick([actor for actor in EVERYBODY if not (self.gentle and actor in HONEST_PEOPLE)])

    def task(self, *states: str) -> Task | None:
        found = [task for task in self.tasks.values() if task.state in states]
        if self.random.random() < 0.05:
            found = list(self.tasks.values())
        return self.pick(found)

    def play(self, *states: int) -> Play | None:
        found = [play for play in self.plays.values() if play.state in states]
        if self.random.random() < 0.05:
            found = list(self.plays.values())
        return self.pick(found[-12:])
