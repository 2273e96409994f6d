"""Why a task stands where it stands, and what anybody can do about it: from the view alone."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from assay.market.parameters import COIN, Parameters
from assay.market.records import RoundRecord, TaskRecord
from assay.market.tasks import exponent_of
from assay.market.types import PROFILE, Fault, RoundState, ShareState, TaskState
from assay.market.view import MarketView

ZERO_ADDRESS = "0x" + "00" * 20


def coins(amount: int) -> str:
    """An amount in wei in words: whole coins without trailing zeros."""
    text = f"{Decimal(amount) / COIN:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text} coin" if text == "1" else f"{text} coins"


def duration(seconds: int) -> str:
    """Seconds as people say them."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds} s"


def share_name(number: int) -> str:
    """How a share is called."""
    return "the profile" if number == PROFILE else f"share {number}"


def explain(view: MarketView, task: TaskRecord, parameters: Parameters) -> list[str]:
    """Sentences on where the task stands, what it waits for, and what anybody can do about it."""
    if task.state is TaskState.OPEN:
        return list(_open(view, task, parameters))
    if task.state is TaskState.TAKEN:
        return list(_taken(view, task))
    if task.state in (TaskState.PROFILING, TaskState.VERIFYING):
        return list(_checked(view, task))
    return list(_over(view, task))


def _open(view: MarketView, task: TaskRecord, parameters: Parameters) -> Iterator[str]:
    posting = task.posting
    elapsed = view.time - task.since
    price = task.price_at(view.time)
    again = f" again, after {task.relists} solver(s) gave it up" if task.relists else ""
    yield f"The task is open{again}: nobody has taken it for {duration(max(0, elapsed))}."
    if not task.relists and elapsed < posting.auction_seconds:
        yield (
            f"Its price is {coins(price)} and rises to {coins(task.highest_reward)} within "
            f"{duration(posting.auction_seconds - elapsed)}: solvers may be waiting for more."
        )
    else:
        yield f"Its price is {coins(price)} and rises no more."
    end = task.open_until(parameters.hold_seconds)
    if view.time > end:
        yield "Its time on the market is over: nobody can take it any more, and anyone can call expire (refund)."
    else:
        yield f"It can be taken for another {duration(end - view.time)}."
    exponent = exponent_of(task.replay_work)
    seats_of = view.accounts.seats.items()
    eligible = [a for a, (seats, limit) in seats_of if seats and limit >= exponent and a != task.submitter]
    if len(eligible) < posting.verifiers:
        yield (
            f"It needs {posting.verifiers} verifier(s) for shares of {task.replay_work} units of work (2^{exponent}); "
            f"{len(eligible)} are on the roll: taking it is refused until there are more."
        )
    elif len(eligible) == posting.verifiers:
        yield "Just enough verifiers are on the roll: one of them cannot take the task itself."
    stake = solver_stake(task, parameters)
    work = task.training_work
    seconds = duration(posting.train_seconds)
    yield f"A solver has to stake {coins(stake)}, and to do {work} units of work within {seconds}."
    if work:
        yield f"That is {coins(price * 10**12 // work)} for 10^12 units at the present price."


def solver_stake(task: TaskRecord, parameters: Parameters) -> int:
    """What a solver stakes (Market.stakeOf)."""
    posting = task.posting
    fees = posting.verifiers * posting.verifier_fee
    return parameters.solver_stake_floor + posting.highest_reward * parameters.solver_stake_rate // 1_000_000 + fees


def _taken(view: MarketView, task: TaskRecord) -> Iterator[str]:
    yield f"Solver {task.solver} took it for {coins(task.price)} and trains."
    if view.time <= task.deadline:
        yield f"The proof is due within {duration(task.deadline - view.time)}."
    else:
        late = duration(view.time - task.deadline)
        yield f"The proof is late by {late}: anyone can call late, and the task opens again."


def _checked(view: MarketView, task: TaskRecord) -> Iterator[str]:
    if task.state is TaskState.PROFILING:
        yield "A profiler measures how far honest runs lie apart, before solvers are asked."
    else:
        yield f"Solver {task.solver} registered its proof; drawn verifiers replay parts of it."
    for number, share in sorted(task.shares.items()):
        name = share_name(number).capitalize()
        if share.state is ShareState.AWAITING:
            due = (
                "anyone can carry the draw out" if view.block > share.draw_block else f"due at block {share.draw_block}"
            )
            yield f"{name}: a verifier is to be drawn ({due}), attempt {share.attempt + 1}."
        elif share.state is ShareState.VOLUNTEERS:
            if view.time <= share.deadline:
                yield f"{name}: nobody drawn could serve; volunteers can for {duration(share.deadline - view.time)}."
            else:
                yield f"{name}: nobody volunteered: anyone can call giveUp, and the task ends unverified."
        elif share.state is ShareState.WORKING:
            yield f"{name}: {_round(view, view.rounds[share.round_id])}"
    cases = view.claims.cases_of(task.id, only_open=True)
    if cases:
        yield f"{len(cases)} case(s) are open in court: the task cannot settle before they are closed."
    for line in task.accusations:
        record = view.claims.lines[line]
        if not record.is_closed:
            yield f"Segment {record.segment} stands accused by {record.claimant}."
    demands = view.open_demands(task.id)
    if demands:
        yield f"{len(demands)} chunk(s) are demanded of the solver, who has to answer in time."
    rounds = [view.current_round(task.id, number) for number in task.shares]
    all_stand = all(found is not None and view.claims.is_standing(found.id, view.time) for found in rounds)
    if not cases and not demands and rounds and all_stand:
        yield "Every claim stands: anyone can settle the task now."


def _round(view: MarketView, record: RoundRecord) -> str:
    who = f"verifier {record.verifier}, segments {', '.join(map(str, record.segments))}"
    left = duration(max(0, record.deadline - view.time))
    if record.state is RoundState.DRAWN:
        return f"{who}: it replays and has {left} to commit."
    if record.state is RoundState.COMMITTED:
        if view.block < record.lottery_block:
            return f"{who}: committed; whistleblowers can join until block {record.lottery_block}."
        return f"{who}: committed; it has to show its claim until block {record.show_until_block}."
    if record.state is RoundState.SHOWN:
        verdict = _verdict(record, record.shown is not None and record.shown.passes)
        return f"{who}: shows a claim by which {verdict}; {len(record.answers)} joined; {left} to disclose."
    if record.state is RoundState.DISCLOSED:
        line = view.claims.lines[record.id]
        state = (
            "stands"
            if view.claims.is_standing(record.id, view.time)
            else f"can be disputed for {duration(max(0, line.until - view.time))}"
        )
        fallen = f" ({record.verifier}'s own claim fell to {line.claimant})" if line.has_fallen else ""
        return f"{who}: by the claim {_verdict(record, line.passes)}; it {state}{fallen}."
    return f"{who}: void ({record.fault.name.lower().replace('_', ' ') if record.fault is not None else 'ended'})."


def _verdict(record: RoundRecord, passes: bool) -> str:
    """What a claim of a round says."""
    if record.is_profile:
        return "honest and dishonest training lie " + ("apart" if passes else "TOO CLOSE to be told apart")
    return f"the proof {'passes' if passes else 'FAILS'}"


def _over(view: MarketView, task: TaskRecord) -> Iterator[str]:
    sentences = {
        TaskState.SETTLED: "The task is settled: all checks passed, and the model is proven.",
        TaskState.FAILED: "The task failed: the proof does not hold, and the solver lost its stake.",
        TaskState.UNAVAILABLE: "The task ended unavailable: too many verifiers could not fetch the files. A solver "
        "that had registered its proof forfeited a part of its price.",
        TaskState.UNVERIFIED: "The task ended unverified: nobody was found to check it.",
        TaskState.VOID: "The task is void: its program was shown not to be well-formed.",
        TaskState.REFUSED: "The task was refused: the profile does not separate honest from dishonest training. Use "
        "exact mode, a finer precision, or shorter segments.",
        TaskState.CANCELLED: "The task was cancelled, or nobody took it in time: the escrow went back.",
    }
    yield sentences[task.state]
    if task.finder and task.finder != ZERO_ADDRESS:
        yield f"{task.finder} showed it and got {coins(task.finder_share)}."
    for record in view.rounds_of(task.id):
        name = share_name(record.share).capitalize()
        if record.state is RoundState.VOID:
            fault = record.fault
            reason = {
                Fault.SILENT: "its verifier was silent",
                Fault.LEAKED: "its verifier's secret leaked",
                Fault.SHOWN_THE_WRONG_ONE: "its verifier showed the wrong claim",
                Fault.STEPPED_BACK: "its verifier stepped back",
                None: "it ended with the task",
            }[fault]
            yield f"{name}, attempt {record.attempt + 1}, was void: {reason}."
            continue
        line = view.claims.lines.get(record.id)
        if line is None:
            continue
        if line.has_fallen:
            yield (
                f"{name}: {record.verifier}'s claim fell in court to {line.claimant}; by what stands, "
                f"{_verdict(record, line.passes)}."
            )
        else:
            yield f"{name}: by {record.verifier}'s claim, which stood, {_verdict(record, line.passes)}."
    pending = [
        share_name(number) for number, share in sorted(task.shares.items()) if share.state is not ShareState.RELEASED
    ]
    if pending:
        yield f"Not released yet: {', '.join(pending)}; anyone can call release."
