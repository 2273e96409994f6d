"""A stateful model of the market: random calls of every external function by honest, adversarial and outside accounts.

What is checked after every call is in model_books.py; at the end calls that anyone may make end every task and leave
nothing held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from eth_abi import encode
from eth_utils import keccak

from market_chain import Chain
from market_world import (
    CASE,
    CLASSES,
    CREDIT,
    DEMAND,
    ESCROW,
    ETHER,
    FREE,
    LEAVING,
    LOCKED,
    PROFILE,
    RESERVE,
    ROUND,
    STATES,
    ZERO,
    Round,
    Tree,
    claim_tree,
    header,
    named,
    sha,
)
from model_books import (
    BLOWERS,
    CHALLENGERS,
    CHEAT,
    EVERYBODY,
    GUESSER,
    HONEST,
    HONEST_PEOPLE,
    HONEST_SOLVER,
    LIARS,
    OUTSIDER,
    SUBMITTERS,
    TERMINAL,
    Books,
    OpenCase,
    Play,
    Task,
)

CHUNK = sha(b"data") * 32
DATA_ENTRY = sha(b"\x09", b"\x01", (256).to_bytes(4, "big"))
HEADERS = {exact: (lambda text: text[:12] + DATA_ENTRY + text[44:])(header(exact)) for exact in (True, False)}
DATA_ROOT = sha(b"\x00", CHUNK)


class Model(Books):
    """The random driver. `gentle` lets honest people act before every deadline, and the court decide truly."""

    def __init__(self, chain: Chain, seed: int, gentle: bool) -> None:
        super().__init__(chain, seed, gentle)
        self.accusations: dict[int, tuple[int, int]] = {}
        self.cases: dict[int, OpenCase] = {}
        self.training: dict[int, int] = {}
        for actor in EVERYBODY:
            self.deposit(actor, 60 * ETHER)
        for actor in [*HONEST, *LIARS]:
            self.call(actor, "Stakes", "enlist", 3, 100)

    # ---- what people do ----

    def deposit(self, actor: str, amount: int) -> None:
        if self.call(actor, "Stakes", "deposit", value=amount):
            self.deposited[actor.lower()] += amount

    def stakes(self) -> None:
        actor = self.pick(EVERYBODY)
        choice = self.random.randrange(7)
        amount = self.random.choice([0, 1, ETHER // 3, ETHER, 30 * ETHER])
        if choice == 0:
            self.deposit(actor, amount)
        elif choice == 1:
            self.call(actor, "Stakes", "withdraw")
        elif choice == 2:
            self.call(actor, "Stakes", "restake", min(amount, self.buckets[CREDIT, int(actor, 16)]))
        elif choice == 3:
            self.call(actor, "Stakes", "leave", amount if actor not in HONEST_PEOPLE else 0)
        elif choice == 4:
            self.call(OUTSIDER, "Stakes", "release", actor)
        elif choice == 5:
            self.roll(actor)
        else:
            self.call(OUTSIDER, "Stakes", "prune", actor)

    def roll(self, actor: str) -> None:
        if self.gentle and actor in HONEST_PEOPLE and actor not in HONEST:
            # An honest account that does no verifier's duties takes no seat.
            return
        if self.random.random() < 0.7:
            self.call(actor, "Stakes", "enlist", self.random.randrange(3), self.random.choice([3, 60, 100, 200]))
        else:
            self.call(actor, "Stakes", "delist", self.random.randrange(3))

    def submit(self) -> None:
        if sum(task.state not in STATES[TERMINAL:] for task in self.tasks.values()) > 8:
            return
        exact = self.random.random() < 0.5
        verifiers = self.random.choice([1, 1, 2, 3])
        posting = self.world.posting(
            exact, header=HEADERS[exact], dataRoot=DATA_ROOT, verifiers=verifiers, taskSeed=self.calls
        )
        submitter = self.pick(SUBMITTERS)
        value = self.world.see("Market", "escrowOf", tuple(posting.values()))
        if self.random.random() < 0.05:
            value += self.random.choice([-1, 1])
        outcome = self.call(submitter, "Market", "submit", tuple(posting.values()), value=value)
        if outcome:
            self.deposited[submitter.lower()] += value
            task = self.tasks[outcome.value]
            task.exact, task.verifiers, task.submitter = exact, verifiers, submitter
            task.state = "Open" if exact else "Profiling"
            self.world.postings[task.id] = posting

    def take(self) -> None:
        task = self.task("Open")
        if task:
            solver = self.someone(self.pick([HONEST_SOLVER, HONEST_SOLVER, CHEAT]))
            if self.call(solver, "Market", "take", task.id, self.random.choice([0, 0, ETHER, 11 * ETHER])):
                task.solver = solver
                task.cheat = None if solver == HONEST_SOLVER else self.random.choice([None, 0, 4, 6])

    def register(self) -> None:
        task = self.task("Taken")
        if task and task.solver:
            self.register_for(task, self.someone(task.solver))

    def register_for(self, task: Task, solver: str) -> None:
        tree = Tree(self.world.states_of(task.id, task.cheat))
        if self.call(solver, *self.registration(task, tree)):
            self.world.checkpoints[task.id] = tree

    def registration(self, task: Task, tree: Tree) -> tuple[Any, ...]:
        """The call that registers a task's proof."""
        last = len(self.world.states_of(task.id)) - 1
        ends = (tree.levels[0][last], tree.proof(0), tree.proof(last))
        return "Market", "register", task.id, tree.root, *ends, "ipfs://proof"

    def market(self) -> None:
        task = self.task("Open", "Taken")
        if task is None:
            return
        function = self.random.choice(["stepDown", "late", "cancel", "expire"])
        if self.random.random() < 0.3 and function in ("stepDown", "cancel"):
            return
        if function == "stepDown":
            self.step_down(task, task.solver or OUTSIDER)
        else:
            self.call(self.someone(task.submitter if function == "cancel" else OUTSIDER), "Market", function, task.id)

    def step_down(self, task: Task, actor: str) -> None:
        if actor != HONEST_SOLVER:
            self.call(actor, "Market", "stepDown", task.id)

    def draw(self) -> None:
        task = self.task("Profiling", "Verifying")
        if task:
            share = PROFILE if task.state == "Profiling" else self.random.randrange(task.verifiers)
            self.call(self.pick(EVERYBODY), "Verification", "draw", task.id, share)

    def commit(self) -> None:
        play = self.play(1)
        if play:
            round_ = play.round
            if play.state == 1:
                round_.secret, round_.order = named("r", round_.id), self.random.randrange(2)
            self.call(self.someone(round_.verifier), "Verification", "commit", round_.id, self.world.hidden(round_))

    def forced(self, round_: Round) -> bool:
        """What the lottery demands, or False while its seed is not known."""
        block = self.world.see("Verification", "roundOf", round_.id)[7]
        seed = self.world.see("FixedSeeds", "seedAt", block, round_.id.to_bytes(32, "big"))
        return bool(seed != ZERO and self.world.see("Verification", "isForced", round_.secret, seed))

    def show(self) -> None:
        play = self.play(2)
        if play:
            liar = play.round.verifier in [liar.lower() for liar in LIARS]
            self.show_for(play, self.someone(play.round.verifier), liar and self.random.random() < 0.1)

    def show_for(self, play: Play, actor: str, other: bool = False) -> None:
        round_ = play.round
        if round_.secret == ZERO or (play.state == 2 and not self.past_lottery(round_)):
            return
        round_.forced = self.forced(round_)
        if other:
            # Shows the one of the two that the lottery did not choose.
            round_.forced = not round_.forced
        leaves, index = self.world.claims_of(round_)
        arguments: list[Any] = [round_.id, self.world.hidden(round_), index, self.world.salt(round_, index), leaves]
        function = "showProfile" if round_.share == PROFILE else "showReplay"
        if function == "showReplay":
            if round_.task not in self.world.checkpoints:
                return
            arguments.append(self.world.openings(round_.task, round_.segments))
        outcome = self.call(actor, "Verification", function, *arguments)
        if outcome:
            round_.shown = outcome.event("ProfileShown" if round_.share == PROFILE else "ReplayShown")["shown"]
            round_.shown_leaves = leaves
        round_.forced = self.forced(round_)

    def disclose(self) -> None:
        play = self.play(3)
        if play and play.round.shown:
            self.disclose_for(play, self.someone(play.round.verifier))

    def disclose_for(self, play: Play, actor: str) -> None:
        round_ = play.round
        if round_.shown:
            self.call(
                actor,
                "Verification",
                "disclose",
                round_.id,
                round_.secret,
                round_.order,
                round_.shown,
                self.world.derivation(round_),
            )

    def ways_out(self) -> None:
        play = self.play(1, 2, 3)
        if play is None:
            return
        round_ = play.round
        choice = self.random.randrange(4)
        if choice == 0:
            self.call(self.pick(EVERYBODY), "Verification", "timeout", round_.id)
        elif choice == 1 and self.random.random() < 0.4:
            # An honest verifier that can fetch does not step back.
            if not (self.gentle and round_.verifier in [actor.lower() for actor in HONEST]):
                self.call(self.someone(round_.verifier), "Verification", "stepBack", round_.id)
        elif choice == 2 and round_.secret != ZERO and self.random.random() < 0.3:
            if round_.verifier in [actor.lower() for actor in HONEST]:
                return
            bringer = self.pick([*BLOWERS, OUTSIDER])
            commitment = keccak(encode(["bytes32", "address", "uint256"], [round_.secret, bringer, round_.id]))
            self.call(bringer, "Verification", "commitLeak", commitment)
            if round_.shown:
                self.call(bringer, "Verification", "leakShown", round_.id, round_.secret, round_.order, round_.shown)
            else:
                hidden = self.world.hidden(round_)
                self.call(bringer, "Verification", "leak", round_.id, round_.secret, round_.order, hidden)
        elif choice == 3:
            task = self.task("Profiling", "Verifying")
            if task:
                share = PROFILE if task.state == "Profiling" else self.random.randrange(task.verifiers)
                actor = self.pick([*LIARS, *CHALLENGERS, OUTSIDER])
                self.call(actor, "Verification", "volunteer", task.id, share)
                self.call(OUTSIDER, "Verification", "giveUp", task.id, share)

    # ---- whistleblowers ----

    def join(self) -> None:
        play = self.play(2)
        if play:
            self.call(self.pick([*BLOWERS, GUESSER, *LIARS]), "Answers", "join", play.round.id)

    def answer_of(self, play: Play, actor: str) -> bytes:
        if actor in BLOWERS:
            return claim_tree(play.round.segments, play.truth).root
        return named("guess", actor)

    def joined(self, play: Play, actor: str) -> int:
        return int(self.world.see("Answers", "answerOf", play.round.id, actor)[1])

    def answer(self) -> None:
        play = self.play(3)
        if play:
            self.answer_for(play, self.pick([*BLOWERS, GUESSER]))

    def answer_for(self, play: Play, actor: str) -> None:
        root = self.answer_of(play, actor)
        shown = self.world.see("Verification", "roundOf", play.round.id)[6]
        commitment = keccak(
            encode(["uint256", "address", "bytes32", "bytes32"], [play.round.id, actor, root, named(actor)])
        )
        self.call(actor, "Answers", "commitAnswer", play.round.id, shown, commitment)

    def reveal(self) -> None:
        play = self.play(3)
        if play:
            self.reveal_for(play, self.pick([*BLOWERS, GUESSER]))

    def reveal_for(self, play: Play, actor: str) -> None:
        root = self.answer_of(play, actor)
        self.call(actor, "Answers", "revealAnswer", play.round.id, root, named(actor))

    def collect(self) -> None:
        play = self.play(4, 5)
        if play:
            self.call(OUTSIDER, "Answers", "collect", play.round.id, self.pick([*BLOWERS, GUESSER, *LIARS]))

    # ---- disputes ----

    def truth_of(self, line: int) -> bytes:
        if line in self.plays:
            return claim_tree(self.plays[line].round.segments, self.plays[line].truth).root
        task_id, segment = self.accusations[line]
        return claim_tree([segment], self.accused_truth(task_id, segment)).root

    def accused_truth(self, task_id: int, segment: int) -> list[Any]:
        cheat = self.tasks[task_id].cheat
        bad = cheat is not None and segment >= cheat
        return [(named("state", segment + 1), 0x40000000 if bad else 0x3F000000, named("trace", segment))]

    def challenge(self) -> None:
        line = self.pick(list(self.lines)[-12:])
        if line is not None:
            truthful = self.random.random() < 0.6
            actor = self.pick(CHALLENGERS if not truthful or not self.gentle else [*CHALLENGERS, *BLOWERS])
            self.challenge_for(line, actor, truthful)

    def challenge_for(self, line: int, actor: str, truthful: bool) -> None:
        bond = self.world.parameters["caseBond"]
        if line in self.plays:
            play = self.plays[line]
            word = self.random.choice(["sybil", "lie", "mistake"])
            leaves = play.truth if truthful else self.world.wrong(play.round, word, self.random.random() < 0.5)
            root = claim_tree(play.round.segments, leaves).root
            if play.round.share == PROFILE:
                outcome = self.call(actor, "Claims", "publishProfile", line, leaves)
            else:
                openings = self.world.openings(play.round.task, play.round.segments)
                outcome = self.call(actor, "Claims", "publishReplay", line, leaves, openings)
        else:
            task_id, segment = self.accusations[line]
            leaves = self.accused_truth(task_id, segment)
            if not truthful:
                leaves = [(leaves[0][0], self.random.choice([0, 0x7FC00000]), named("lie", self.random.random()))]
            root = claim_tree([segment], leaves).root
            openings = self.world.openings(task_id, [segment])
            outcome = self.call(actor, "Claims", "publishReplay", line, leaves, openings)
        if outcome:
            self.open_case(actor, outcome.value, line, root, bond)

    def open_case(self, actor: str, claim: int, line: int, root: bytes, bond: int) -> None:
        claimed = self.lines.get(line, ZERO)
        if self.random.random() < 0.03:
            bond -= 1
        outcome = self.call(actor, "HarnessCourt", "open", claim, root, value=bond)
        if outcome:
            self.deposited[actor.lower()] += bond
            self.cases[outcome.value] = OpenCase(outcome.value, claim, line, claimed)

    def close_case(self, case: OpenCase) -> None:
        """The court: a claim falls if it is not the truth. An expired clock is chaos's to give."""
        if case.line in self.lines:
            won = case.root != self.truth_of(case.line)
        else:
            won = self.tasks[self.training[case.line]].cheat is not None
        if not self.gentle and self.random.random() < 0.15:
            won = not won
        overshoot = 0 if self.gentle else self.random.choice([0, 0, 0, ETHER // 40, -ETHER // 40, ETHER, -9 * ETHER])
        if self.call(OUTSIDER, "HarnessCourt", "close", case.id, case.claim, won, overshoot):
            del self.cases[case.id]

    def court(self) -> None:
        case = self.pick(list(self.cases.values()))
        if case:
            self.close_case(case)

    def train_case(self) -> None:
        task = self.task("Verifying")
        if task is None:
            return
        actor = self.pick(CHALLENGERS)
        outcome = self.call(actor, "Claims", "publishTraining", task.id)
        if outcome and (task.cheat is None or self.random.random() < 0.3):
            line = self.world.see("Claims", "trainingLineOf", task.id)
            self.training[line] = task.id
            self.open_case(actor, outcome.value, line, ZERO, self.world.parameters["caseBond"])

    def accuse(self) -> None:
        task = self.task("Verifying")
        if task is None or task.exact or task.id not in self.world.checkpoints:
            return
        segment = self.random.randrange(8)
        truth = self.accused_truth(task.id, segment)
        leaf = truth if truth[0][1] == 0x40000000 else [(truth[0][0], 0x40000000, named("false accusation"))]
        bond = self.world.parameters["accusationBond"]
        openings = self.world.openings(task.id, [segment])
        actor = self.pick(CHALLENGERS)
        line = self.world.see("Claims", "accusationOf", task.id, segment, actor)
        outcome = self.call(actor, "Claims", "accuse", task.id, segment, leaf, openings, value=bond)
        if outcome:
            self.deposited[actor.lower()] += bond
            self.accusations[line] = (task.id, segment)

    def close_accusation(self) -> None:
        line = self.pick(list(self.accusations))
        if line is not None:
            self.call(OUTSIDER, "Claims", "closeAccusation", line)

    def refute(self) -> None:
        task = self.task("Profiling", "Open", "Taken", "Verifying")
        if task and self.random.random() < 0.05:
            self.call(OUTSIDER, "HarnessCourt", "refute", task.id, self.pick(CHALLENGERS))

    # ---- demands and settlement ----

    def demand(self) -> None:
        task = self.task("Verifying")
        if task is None:
            return
        play = self.pick([play for play in self.plays.values() if play.round.task == task.id])
        asker = self.pick([task.submitter or OUTSIDER, *([play.round.verifier] if play else []), *BLOWERS])
        if self.gentle and asker.lower() in [actor.lower() for actor in HONEST_PEOPLE]:
            # A demand costs its price: an honest account makes none for nothing.
            return
        outcome = self.call(
            asker,
            "Demands",
            "demand",
            task.id,
            play.round.id if play else 0,
            (True, 0, 0, self.random.choice([0, 0, 0, 1])),
            HEADERS[task.exact],
            (0, 0, 1, 256, []),
            value=self.world.parameters["demandPrice"],
        )
        if outcome:
            self.deposited[asker.lower()] += self.world.parameters["demandPrice"]

    def serve(self) -> None:
        demand = self.pick(list(self.demands)[-6:])
        if demand is not None:
            if self.random.random() < 0.5:
                self.call(self.pick(EVERYBODY), "Demands", "serve", demand, CHUNK, [])
            else:
                self.call(OUTSIDER, "Demands", "notServed", demand)

    def settle(self) -> None:
        task = self.task("Verifying", "Profiling")
        if task:
            function = "settle" if task.state == "Verifying" else "settleProfile"
            self.call(OUTSIDER, "Settlement", function, task.id)

    def release(self) -> None:
        task = self.task(*STATES[TERMINAL:])
        if task:
            share = self.random.choice([PROFILE, *range(task.verifiers)])
            self.call(OUTSIDER, "Settlement", "release", task.id, share)

    def trespass(self) -> None:
        """Functions that only the market's own contracts may call."""
        actor = self.pick(EVERYBODY)
        name, function, *arguments = self.pick(self.trespasses(actor))
        assert self.call(actor, name, function, *arguments) is None, function

    def trespasses(self, actor: str) -> list[tuple[Any, ...]]:
        task = self.pick(list(self.tasks)) or 0
        round_id = self.pick(list(self.plays)) or 0
        account = int(actor, 16)
        return [
            ("Stakes", "move", ESCROW, task, CREDIT, account, 1),
            ("Stakes", "lock", actor, 1),
            ("Stakes", "noteJoin", actor),
            ("Stakes", "enter", CREDIT, account),
            ("Market", "open", task, ZERO),
            ("Market", "settled", task),
            ("Market", "failed", task, actor),
            ("Market", "abandoned", task, True),
            ("Market", "refused", task),
            ("Market", "refuted", task, actor),
            ("Market", "chargeSolver", task, 1),
            ("Verification", "beginProfile", task),
            ("Verification", "beginReplay", task, 1),
            ("Verification", "markReleased", task, 0),
            ("Verification", "markVoid", round_id),
            ("Answers", "voidRound", round_id),
            ("Answers", "resolve", round_id, ZERO, 1),
            ("Claims", "enter", round_id, actor, ZERO, True, ZERO, 0),
            ("Claims", "caseOpened", 1, 1, actor, ZERO),
            ("Claims", "caseClosed", 1, 1, True, 0),
            ("Claims", "programRefuted", task, actor),
            ("Claims", "returnBond", round_id),
            ("Jackpot", "reserve", round_id, 1),
            ("Jackpot", "fixWinners", round_id, 1),
        ]

    # ---- time, and the duties of the honest ----

    def jump(self) -> None:
        if self.gentle:
            self.duties()
            self.world.chain.move(blocks=self.random.randrange(1, 12), seconds=self.random.randrange(0, 400))
        else:
            self.world.chain.move(
                blocks=self.random.choice([1, 3, 10, 25, 110, 300]),
                seconds=self.random.choice([0, 60, 600, 1800, 4000, 8000, 100_000])
                if self.random.random() < 0.4
                else 0,
            )

    def duties(self) -> None:
        """What honest people do before time passes: gentle runs only."""
        lower = [actor.lower() for actor in HONEST]
        for play in list(self.plays.values())[-40:]:
            round_ = play.round
            if round_.verifier in lower:
                if play.state == 1 and self.tasks[round_.task].state in ("Profiling", "Verifying"):
                    round_.secret = named("r", round_.id)
                    self.call(round_.verifier, "Verification", "commit", round_.id, self.world.hidden(round_))
                elif play.state == 2 and self.past_lottery(round_):
                    self.show_for(play, round_.verifier)
                elif play.state == 3 and self.world.see("Verification", "answersClosed", round_.id):
                    self.disclose_for(play, round_.verifier)
            if play.state == 3:
                for actor in BLOWERS:
                    state = self.joined(play, actor)
                    if state == 1:
                        self.answer_for(play, actor)
                    elif state == 2:
                        self.reveal_for(play, actor)
        for task in self.tasks.values():
            if task.state == "Taken" and task.solver == HONEST_SOLVER:
                self.register_for(task, HONEST_SOLVER)
        for demand, task_id in list(self.demands.items()):
            if self.tasks[task_id].solver == HONEST_SOLVER and self.call(
                HONEST_SOLVER, "Demands", "serve", demand, CHUNK, []
            ):
                del self.demands[demand]
        for line, root in list(self.lines.items()):
            # An honest challenger watches every claim; one case is enough.
            if (
                self.until[line] - 12 >= self.now
                and not any(case.line == line and case.root == root for case in self.cases.values())
                and root != self.truth_of(line)
            ):
                self.challenge_for(line, BLOWERS[0], True)

    def past_lottery(self, round_: Round) -> bool:
        return self.world.next_block() - 1 > int(self.world.see("Verification", "roundOf", round_.id)[7])

    # ---- the run ----

    def actions(self) -> Iterator[tuple[int, Callable[[], None]]]:
        yield from [
            (3, self.submit),
            (5, self.take),
            (5, self.register),
            (1, self.market),
            (8, self.draw),
            (8, self.commit),
            (8, self.show),
            (8, self.disclose),
            (4, self.ways_out),
            (6, self.join),
            (6, self.answer),
            (6, self.reveal),
            (4, self.collect),
            (4, self.challenge),
            (4, self.court),
            (1, self.train_case),
            (2, self.accuse),
            (2, self.close_accusation),
            (1, self.refute),
            (2, self.demand),
            (2, self.serve),
            (6, self.settle),
            (3, self.release),
            (2, self.trespass),
            (3, self.stakes),
            (10, self.jump),
        ]

    def run(self, calls: int) -> None:
        weights, actions = zip(*self.actions(), strict=True)
        while self.calls < calls:
            self.random.choices(actions, weights)[0]()
        self.check_sums()

    def drain(self) -> None:
        """Ends every task by calls anyone may make, and pays out everything."""
        gentle, self.gentle = self.gentle, True
        for _ in range(200):
            if gentle:
                self.duties()
            for case in list(self.cases.values()):
                self.close_case(case)
            live = [task for task in self.tasks.values() if STATES.index(task.state) < TERMINAL]
            for task in live:
                self.end(task)
            if not live and not self.cases:
                break
            # The honest act in time as long as any round is running.
            if gentle and any(task.state in ("Profiling", "Verifying") for task in live):
                self.world.chain.move(blocks=15, seconds=500)
            else:
                self.world.chain.move(blocks=120, seconds=100_000)
        assert not self.cases
        assert all(STATES.index(task.state) >= TERMINAL for task in self.tasks.values())
        self.world.chain.move(seconds=400_000)
        for line in self.accusations:
            self.call(OUTSIDER, "Claims", "closeAccusation", line)
        for demand in self.demands:
            self.call(OUTSIDER, "Demands", "notServed", demand)
        for task in self.tasks.values():
            for share in (PROFILE, *range(task.verifiers)):
                self.call(OUTSIDER, "Settlement", "release", task.id, share)
        for play in self.plays.values():
            for actor in [*BLOWERS, GUESSER, *LIARS]:
                self.call(OUTSIDER, "Answers", "collect", play.round.id, actor)
        self.check_sums()
        for kind in (LOCKED, ESCROW, ROUND, CASE, DEMAND, RESERVE):
            held = {key: amount for key, amount in self.buckets.items() if key[0] == kind and amount}
            assert not held, (CLASSES[kind], held)

    def end(self, task: Task) -> None:
        share_range = [PROFILE] if task.state == "Profiling" else list(range(task.verifiers))
        if task.state in ("Profiling", "Verifying"):
            for share in share_range:
                self.call(OUTSIDER, "Verification", "draw", task.id, share)
                self.call(OUTSIDER, "Verification", "giveUp", task.id, share)
            for play in self.plays.values():
                if play.round.task == task.id and play.state in (1, 2, 3):
                    self.call(OUTSIDER, "Verification", "timeout", play.round.id)
            for line, (owner, _) in self.accusations.items():
                if owner == task.id:
                    self.call(OUTSIDER, "Claims", "closeAccusation", line)
            for demand, owner in self.demands.items():
                if owner == task.id:
                    self.call(OUTSIDER, "Demands", "notServed", demand)
            function = "settleProfile" if task.state == "Profiling" else "settle"
            self.call(OUTSIDER, "Settlement", function, task.id)
        elif task.state == "Open":
            self.call(OUTSIDER, "Market", "expire", task.id)
        else:
            self.call(OUTSIDER, "Market", "late", task.id)

    def worth(self, actor: str) -> int:
        """All an actor has in the ledger or took out, less all it put in."""
        held = sum(self.buckets[kind, int(actor, 16)] for kind in (FREE, LOCKED, LEAVING, CREDIT))
        return held + self.withdrawn[actor.lower()] - self.deposited[actor.lower()]
