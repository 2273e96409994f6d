"""What members of groups hold against each other, on the random market: statements and accusations before the real
court, reports of absence and answers to them.

After every call the balances of `StageClaims` and `Presence` are what their events say: bonds of what is open, and
credits; every few calls so are their own sums. At the end anyone ends whatever is pending, and groups share out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from group_model import BY_NAME, HONEST_MEMBERS, MEMBERS, STRANGER, Group, GroupModel, Member
from group_world import DAY, HOUR, GroupsWorld
from market_chain import Chain, Event
from market_world import ETHER, ZERO, Tree, named
from model_books import OUTSIDER
from presence_world import subject_of
from stage_play import EVIDENCE, STEPS, Cursor, StageRun, choose, expand, prove, reveal
from stage_world import FAULT, bits, scalar_leaf

ALLOWANCE, EXTENSION = 2400, 1200
GAS_PRICE, OVERSHOOT_PRICE = 10**9, ETHER // 4000  # two extensions cost more than a bond
SEGMENTS = 8
SMALL_FAULT = bits(0.5)


class MembersWorld(GroupsWorld):
    """A deployment whose court of stages is the real one. The market's own decides on command."""

    contracts = (*GroupsWorld.contracts, "Prover", "Refuter")
    court_code = "Court"

    def arguments_of(self, name: str, addresses: dict[str, str]) -> tuple[Any, ...]:
        if name in ("Prover", "Refuter"):
            return ()
        if name == "StageCourt":
            keepers = (addresses["StageClaims"], addresses["Prover"], addresses["Refuter"])
            return (*keepers, ALLOWANCE, EXTENSION, GAS_PRICE, OVERSHOOT_PRICE)
        return super().arguments_of(name, addresses)


@dataclass
class StageClaim:
    """A statement of a member, or an accusation of one."""

    id: int
    group: Group
    member: Member
    claimant: Member
    run: StageRun
    work: tuple[Any, ...]
    is_accusation: bool
    until: int
    has_fallen: bool = False
    cases: int = 0


@dataclass
class StageCase:
    """An open case, what its challenger goes for, and whether it takes all the time it has for a move."""

    id: int
    claim: StageClaim
    challenger: Member
    facts: tuple[Any, ...]
    step: int
    tensor: int
    is_slow: bool
    cursor: Cursor = field(default_factory=Cursor)
    position: bytes = ZERO


@dataclass
class Absence:
    """A report that is neither answered nor concluded."""

    id: int
    group: Group
    member: Member
    reporter: Member
    first: int
    last: int
    until: int


class MembersModel(GroupModel):
    """The random driver in which members also dispute. In gentle runs honest ones say what is true, and act in time."""

    world_type = MembersWorld

    def __init__(self, chain: Chain, seed: int, gentle: bool) -> None:
        self.claims: dict[int, StageClaim] = {}
        self.pending: dict[int, StageClaim] = {}  # accusations
        self.stage_cases: dict[int, StageCase] = {}
        self.reports: dict[int, Absence] = {}
        self.credits: dict[str, Counter[str]] = {"StageClaims": Counter(), "Presence": Counter()}
        self.gained: Counter[str] = Counter()
        self.draft: Any = None
        chain.interface("Prover")  # type: ignore[attr-defined]
        super().__init__(chain, seed, gentle)

    # ---- what is checked after every call ----

    def bond(self, kind: str) -> int:
        return self.world.parameters[f"{kind}Bond"]

    def check_step(self) -> None:
        super().check_step()
        case, accusation = self.bond("case"), self.bond("accusation")
        stages = case * len(self.stage_cases) + accusation * len(self.pending)
        assert self.balance("StageClaims") == stages + self.credits["StageClaims"].total()
        assert self.balance("Presence") == accusation * len(self.reports) + self.credits["Presence"].total()

    def check_sums(self) -> None:
        super().check_sums()
        for name in ("StageCourt", "Prover", "Refuter"):
            assert self.balance(name) == 0
        for ledger, credits in self.credits.items():
            for member in (*MEMBERS, STRANGER):
                assert self.world.see(ledger, "creditOf", member.address) == credits[member.name]

    def check_group(self, group: Group) -> None:
        super().check_group(group)
        stages, reports = self.pending_of(group)
        assert self.world.see("StageClaims", "pendingOf", group.address) == stages
        assert self.world.see("Presence", "pendingOf", group.address) == reports

    def pending_of(self, group: Group) -> tuple[int, int]:
        """What keeps the group from sharing out: cases and accusations, and reports."""
        stages = [*self.pending.values(), *(case.claim for case in self.stage_cases.values())]
        return (
            sum(claim.group is group for claim in stages),
            sum(report.group is group for report in self.reports.values()),
        )

    def note(self, event: Event) -> None:
        if event.contract in self.credits:
            self.note_ledger(self.credits[event.contract], event)
            if event.contract == "StageClaims":
                self.note_stage(event)
            else:
                self.note_presence(event)
        elif event.contract == "StageCourt":
            self.note_court(event)
        else:
            super().note(event)

    def note_ledger(self, credits: Counter[str], event: Event) -> None:
        if event.name == "CoinCredited":
            credits[event.values["account"]] += event.values["amount"]
            self.gained[event.values["account"]] += event.values["amount"]
        elif event.name == "Withdrawn":
            assert credits.pop(event.values["account"]) == event.values["amount"]

    def note_stage(self, event: Event) -> None:
        values = event.values
        if event.name == "StageAccused":
            claim = self.claims[values["claimId"]] = self.pending[values["claimId"]] = self.drafted(values["claimId"])
            self.reached[f"accused {'truly' if claim.run.is_true else 'falsely'}"] += 1
        elif event.name == "AccusationConcluded":
            claim = self.pending.pop(values["claimId"])
            assert not claim.cases
            assert self.now > claim.until, "everybody has had the time to object"
            self.convicted_by(claim)
        elif event.name == "CaseOpened":
            case = self.stage_cases[values["caseId"]] = self.drafted(values["caseId"])
            case.claim.cases += 1
        elif event.name == "CaseClosed":
            self.close_stage_case(self.stage_cases.pop(values["caseId"]), values["challengerWon"])
        elif event.name == "CoinCredited" and 0 < values["amount"] < self.bond("case"):
            self.reached["clock extension paid"] += 1

    def close_stage_case(self, case: StageCase, is_won: bool) -> None:
        claim = case.claim
        claim.cases -= 1
        self.reached[f"case {'won' if is_won else 'lost'}"] += 1
        if is_won and not claim.has_fallen:
            claim.has_fallen = True
            if claim.is_accusation:
                self.pending.pop(claim.id)
                self.reached["accusation fell"] += 1
            else:
                self.convicted_by(claim)

    def convicted_by(self, claim: StageClaim) -> None:
        assert claim.group.state in ("Working", "Closed"), "nobody is convicted once the coin is shared out"
        claim.group.convicted.add(claim.member.name)
        self.reached[f"{'accusation stood' if claim.is_accusation else 'statement fell'}, {claim.group.state}"] += 1

    def note_court(self, event: Event) -> None:
        """Follows the case. Its events name the position that the next move answers."""
        if event.name == "CaseOpened":
            self.draft.position = event.values["position"]
            return
        case = self.stage_cases[event.values["caseId"]]
        case.position = event.values.get("position", ZERO)
        if event.name == "Expanded":
            case.cursor = case.cursor.expanded(case.claim.run)
        elif event.name == "Revealed":
            case.cursor = case.cursor.revealed()
        elif event.name == "Chosen":
            case.cursor = Cursor.of(event.values["cursor"])
        elif event.name == "TimedOut":
            is_challenger = event.values["silent"] == case.challenger.name
            self.reached[f"{'challenger' if is_challenger else 'claimant'} out of time"] += 1
        elif event.name == "NextStateProven":
            self.reached["case proven"] += 1

    def note_presence(self, event: Event) -> None:
        if event.name == "AbsenceReported":
            self.reports[event.values["reportId"]] = self.drafted(event.values["reportId"])
        if event.name not in ("ReportAnswered", "AbsenceConcluded"):
            return
        report = self.reports.pop(event.values["reportId"])
        assert report.group.state in ("Working", "Closed"), "nobody is absent once the coin is shared out"
        if event.name == "AbsenceConcluded":
            assert self.now > report.until, "everybody has had the time to answer"
            absent = report.group.absent.setdefault(report.member.name, set())
            before = len(absent)
            absent |= set(range(report.first, report.last + 1))
            assert len(absent) - before == event.values["segments"]
            self.reached["overlapping absence"] += event.values["segments"] <= report.last - report.first

    # ---- choosing ----

    def spared(self, member: Member) -> bool:
        """Whether the member says and does only what is right."""
        return self.gentle and member in HONEST_MEMBERS

    def claim_at_hand(self) -> StageClaim | None:
        if self.random.random() < 0.03:
            return self.pick(list(self.claims.values()))
        return self.pick([claim for claim in list(self.claims.values())[-30:] if not claim.has_fallen][-8:])

    def pay(self, draft: Any, member: Member, bond: str, name: str, function: str, *arguments: Any) -> None:
        """A call with a bond, sometimes a wrong one. Its event makes the draft part of the books."""
        value = self.bond(bond) + (self.random.choice([-1, 1]) if self.random.random() < 0.03 else 0)
        self.draft = draft
        if self.call(member.address, name, function, *arguments, value=value):
            self.gained[member.name] -= value

    def drafted(self, number: int) -> Any:
        self.pay_once("bond taken", number)
        assert self.draft.id == 0
        self.draft.id = number
        return self.draft

    # ---- statements and accusations ----

    def state(self) -> None:
        """A member's statement is published, or its work is called garbage."""
        group = self.group("Working", "Closed")
        if group and group.task:
            if group.task.exact != (self.random.random() < 0.03):
                self.publish(group)
            else:
                self.accuse_member(group)

    def stage_work(self, group: Group, run: StageRun, **changes: Any) -> tuple[Any, ...]:
        self.turn_to(group)
        segment = self.random.randrange(SEGMENTS + (self.random.random() < 0.03))
        until = self.now + self.random.choice([HOUR, DAY, 30 * DAY])
        return group.actor.stage_work(segment, **({"until": until} | run.roots | changes))

    def publish(self, group: Group) -> None:
        member = self.member_of(group)
        lie, end = None, None
        if not self.spared(member):
            lie = self.pick([None, None, (self.random.randrange(STEPS), self.random.randrange(2), named("lie"))])
            end = named("other end") if self.random.random() < 0.15 else None
        run = StageRun(("stage", self.calls), lie=lie, end=end)
        work = self.stage_work(group, run)
        outcome = self.call(OUTSIDER, "StageClaims", "publish", work, group.actor.signed_stage(member, work))
        if outcome:
            number = int(outcome.value)
            self.claims[number] = StageClaim(number, group, member, member, run, work, False, work[3])

    def accuse_member(self, group: Group) -> None:
        """An accusation: true where the accused's work was garbage, or of what was good work."""
        accuser = self.member_of(group)
        member = self.member_of(group, accuser)
        is_garbage = self.spared(accuser) or (not self.spared(member) and self.random.random() < 0.5)
        if is_garbage and self.spared(member):
            return
        leaf, lie, end = scalar_leaf(FAULT), None, None
        if not is_garbage:
            if self.random.random() < 0.5:
                end = Tree([leaf, named("rest")])
            else:
                lie = (STEPS - 1, 0, leaf)
        elif not self.spared(accuser) and self.random.random() < 0.3:
            # Garbage it was, but not this garbage.
            lie = (self.random.randrange(STEPS - 1), 1, named("lie"))
        gave = leaf if is_garbage else scalar_leaf(SMALL_FAULT)
        run = StageRun(("checked", self.calls), gave, lie, end.root if end else None)
        work = self.stage_work(group, run, endRoot=ZERO)
        proof = (end or run.states[-1]).proof(0)
        fault = FAULT if self.random.random() < 0.97 else SMALL_FAULT
        self.accuse_of(group, accuser, member, run, work, fault, proof)
        if self.random.random() < 0.1:
            # A member speaks once; another may say the same.
            again = self.pick([accuser, *([] if self.gentle else [self.member_of(group, member)])])
            self.accuse_of(group, again, member, run, work, fault, proof)

    def accuse_of(
        self,
        group: Group,
        accuser: Member,
        member: Member,
        run: StageRun,
        work: tuple[Any, ...],
        fault: int,
        proof: list[bytes],
    ) -> None:
        self.turn_to(group)
        arguments = (work, group.actor.signed_stage(member, work), run.end_root, fault, proof)
        until = self.now + 12 + self.world.parameters["disputeSeconds"]
        draft = StageClaim(0, group, member, accuser, run, work, True, until)
        self.pay(draft, accuser, "accusation", "StageClaims", "accuse", *arguments)

    def conclude(self) -> None:
        claim: StageClaim | None = self.pick(list(self.pending.values())[-8:])
        if claim and self.random.random() < 0.05:
            claim = self.claim_at_hand()
        if claim:
            self.turn_to(claim.group)
            self.call(OUTSIDER, "StageClaims", "conclude", claim.id)

    # ---- cases ----

    def take_to_court(self) -> None:
        claim = self.claim_at_hand()
        if claim:
            challenger = self.member_of(claim.group, claim.claimant)
            if not (self.spared(challenger) and claim.run.is_true):
                self.open_stage_case(claim, challenger)

    def open_stage_case(self, claim: StageClaim, challenger: Member) -> None:
        step, tensor = self.random.randrange(STEPS), self.random.randrange(2)
        if claim.run.end and (self.spared(challenger) or self.random.random() < 0.8):
            step = STEPS - 1
        elif claim.run.lie and (self.spared(challenger) or self.random.random() < 0.8):
            step, tensor, _ = claim.run.lie
        is_slow = not self.gentle and self.random.random() < 0.4
        draft = StageCase(0, claim, challenger, self.facts_of(claim), step, tensor, is_slow)
        self.pay(draft, challenger, "case", "StageCourt", "open", claim.id, 0, 0, ZERO, EVIDENCE)

    def facts_of(self, claim: StageClaim) -> tuple[Any, ...]:
        roots = claim.run.roots
        assert claim.group.task
        seed = self.world.postings[claim.group.task.id]["taskSeed"]
        known = (roots["programRoot"], roots["dataRoot"], roots["startRoot"], roots["endRoot"])
        return (*known, ZERO, ZERO, ZERO, seed)

    def plead(self) -> None:
        """Everybody in a case makes some moves, or lets its clock run."""
        for case in list(self.stage_cases.values()):
            is_refused = False
            while self.random.random() < 0.8 and not is_refused and case.id in self.stage_cases:
                if case.is_slow and case.cursor.phase == "Choose":
                    self.world.chain.move(seconds=EXTENSION - 60)
                is_refused = not self.move(case)
            if self.random.random() < (0.5 if is_refused else 0.02):
                self.turn_to(case.claim.group)
                self.call(OUTSIDER, "StageCourt", "timeout", case.id)

    def move(self, case: StageCase) -> bool:
        """The move of whoever is in turn, rarely made by somebody else."""
        run, cursor = case.claim.run, case.cursor
        actor: Member = self.pick([*MEMBERS, STRANGER])
        by_party = self.random.random() < 0.97
        if cursor.phase == "Choose":
            move = choose(run, cursor, case.step, case.tensor)
            actor = case.challenger if by_party else actor
        elif cursor.phase == "Prove":
            move = prove(run, cursor, case.facts)
        elif cursor.phase == "Reveal":
            move = reveal(run, cursor)
        else:
            move = expand(run, cursor)
            actor = case.claim.claimant if by_party else actor
        function, *arguments = move
        self.turn_to(case.claim.group)
        return self.call(actor.address, "StageCourt", function, case.id, case.position, *arguments) is not None

    # ---- presence ----

    def was_there(self, group: Group, member: Member, segment: int) -> bool:
        """Honest members always are, and somebody is with them; of the others some miss some segments."""
        is_constant = member in HONEST_MEMBERS or member in group.members[:2]
        return is_constant or named("there", group.address, member.role, segment // 3)[0] < 128

    def report(self) -> None:
        group = self.group("Working", "Closed")
        if group is None:
            return
        reporter = self.member_of(group)
        member = self.member_of(group, reporter)
        first = self.random.randrange(SEGMENTS)
        last = min(first + self.random.randrange(4), SEGMENTS - (self.random.random() < 0.97))
        # A receipt is one member's word, and a friend's may be false: who is to lose nothing does not report.
        if self.spared(reporter) or member not in group.members:
            return
        until = self.now + 12 + self.world.parameters["disputeSeconds"]
        draft = Absence(0, group, member, reporter, first, last, until)
        place = group.members.index(member)
        self.pay(draft, reporter, "accusation", "Presence", "report", group.address, place, first, last)

    def answer_report(self) -> None:
        """Somebody shows a receipt, if there is one; sometimes a friend's that is false."""
        report: Absence | None = self.pick(list(self.reports.values()))
        if report and not self.show_presence(report) and self.random.random() < 0.1:
            self.show_receipt(report, report.first, self.member_of(report.group))

    def show_presence(self, report: Absence) -> bool:
        for segment in range(report.first, report.last + 1):
            others = [member for member in report.group.members if member != report.member]
            if self.was_there(report.group, report.member, segment):
                # Whoever was alone has nobody's receipt.
                there = [member for member in others if self.was_there(report.group, member, segment)]
                return bool(there) and self.show_receipt(report, segment, there[0])
        return False

    def show_receipt(self, report: Absence, segment: int, signer: Member) -> bool:
        assert report.group.task
        self.turn_to(report.group)
        accounts = [report.member.address, signer.address]
        if self.random.random() < 0.03:
            accounts.pop(0)
        run = self.random.randrange(2)
        statement = (report.group.task.id, run, subject_of(segment, accounts), ZERO)
        signature = report.group.actor.signed(signer, statement)
        return self.call(OUTSIDER, "Presence", "answer", report.id, run, segment, accounts, signature) is not None

    def conclude_report(self) -> None:
        report: Absence | None = self.pick(list(self.reports.values()))
        if report:
            self.turn_to(report.group)
            self.call(OUTSIDER, "Presence", "conclude", report.id)

    # ---- coin ----

    def withdraw_from_ledger(self) -> None:
        ledger = self.pick(["StageClaims", "Presence"])
        entitled = [BY_NAME[name] for name, amount in self.credits[ledger].items() if amount]
        self.call(self.pick([*entitled, STRANGER]).address, ledger, "withdraw")

    def share_out(self, group: Group) -> bool:
        waiting, before = self.pending_of(group), Counter(self.refused)
        if not super().share_out(group):
            for what in ("CasesOpen", "ReportsPending"):
                self.reached[f"share refused: {what}"] += self.refused[what] - before[what]
            return False
        assert waiting == (0, 0), "nothing is shared out before it is decided"
        return True

    # ---- time, and the duties of the honest ----

    def duties(self) -> None:
        super().duties()
        for claim in list(self.pending.values()):
            answers = [case for case in self.stage_cases.values() if case.claim is claim]
            is_answered = any(self.spared(case.challenger) for case in answers)
            if self.spared(claim.member) and self.now + 12 <= claim.until and not is_answered:
                self.open_stage_case(claim, claim.member)
        for case in list(self.stage_cases.values()):
            self.move_if_honest(case)
        for report in list(self.reports.values()):
            if self.spared(report.member):
                self.show_presence(report)

    def move_if_honest(self, case: StageCase) -> None:
        """What the honest side of a case can do now."""
        challenges, claims = self.spared(case.challenger), self.spared(case.claim.claimant)
        while case.id in self.stage_cases:
            phase = case.cursor.phase
            if not (challenges if phase == "Choose" else claims or (challenges and phase == "Prove")):
                return
            self.move(case)

    # ---- the run ----

    def trespasses(self, actor: str) -> list[tuple[Any, ...]]:
        claim, case = self.pick([*self.claims, 1]), self.pick([*self.stage_cases, 1])
        return [
            *super().trespasses(actor),
            ("StageClaims", "caseOpened", case, claim, actor, ZERO),
            ("StageClaims", "caseClosed", case, claim, True, 0),
            ("StageClaims", "programRefuted", 1, actor),
        ]

    def actions(self) -> Iterator[tuple[int, Callable[[], None]]]:
        yield from super().actions()
        yield from [
            (7, self.state),
            (7, self.take_to_court),
            (7, self.plead),
            (3, self.conclude),
            (7, self.report),
            (4, self.answer_report),
            (4, self.conclude_report),
            (2, self.withdraw_from_ledger),
        ]

    def drain(self) -> None:
        """Ends what members hold against each other by calls of anyone, then everything else."""
        while self.stage_cases or self.pending or self.reports:
            if self.gentle:
                self.duties()
            self.world.chain.move(seconds=500 if self.gentle else 2 * HOUR)
            self.end_disputes()
        super().drain()
        for ledger, credits in self.credits.items():
            for member in MEMBERS:
                assert not credits[member.name] or self.call(member.address, ledger, "withdraw")
            assert self.balance(ledger) == 0
        self.check_sums()

    def end_disputes(self) -> None:
        """Whatever has had its time is ended, by a stranger."""
        for case in list(self.stage_cases.values()):
            self.turn_to(case.claim.group)
            if self.now + 12 > self.world.see("StageCourt", "deadlineOf", case.id):
                assert self.call(OUTSIDER, "StageCourt", "timeout", case.id)
        for claim in list(self.pending.values()):
            self.turn_to(claim.group)
            if self.now + 12 > claim.until and not claim.cases:
                assert self.call(OUTSIDER, "StageClaims", "conclude", claim.id)
        for report in list(self.reports.values()):
            self.turn_to(report.group)
            if self.now + 12 > report.until:
                assert self.call(OUTSIDER, "Presence", "conclude", report.id)
