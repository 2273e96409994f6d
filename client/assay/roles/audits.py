"""Segments that nobody was drawn for: which of them to replay, and accusing those that are wrong."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from assay.commitments.execution import claim_root
from assay.dispute.case import Part
from assay.dispute.evidence import open_training
from assay.dispute.hash_tree import LeafTree
from assay.market.claims import accusation_of, claim_id_of, training_line_of
from assay.market.records import TaskRecord
from assay.roles.context import Action, Context, Send, Work
from assay.roles.jobs import FETCH_ATTEMPTS
from assay.roles.subjects import HashedLeaf, Subject, replays_on_chain
from assay.training.suspicion import rank_segments

logger = logging.getLogger(__name__)

MOST_RANDOM = 8
"""One 256-bit word chooses so many segments."""


@dataclass(frozen=True)
class AuditOptions:
    """How many segments of a proof are replayed though nobody was drawn for them."""

    random: int = 1
    suspicious: bool = False  # the one that looks most suspicious as well, for which all checkpoints are fetched
    fetch_attempts: int = FETCH_ATTEMPTS


@dataclass(frozen=True)
class Finding:
    """What a replay of a segment came to."""

    subject: Subject
    leaves: tuple[HashedLeaf, ...]
    is_right: bool


def audits(context: Context, task: TaskRecord, options: AuditOptions) -> Iterator[Action]:
    """Replay chosen segments of a registered proof, and accuse those that are wrong."""
    eligible = auditable(context, task)
    chosen = random_segments(context, task, eligible, options.random)
    if options.suspicious:
        # Beside the random ones, never in their place: a forger can plant segments that look worse than its false ones.
        ranking = yield from _ranking(context, task, options)
        chosen += [segment for segment in ranking if segment in eligible][:1]
    for segment in dict.fromkeys(chosen):
        key = f"audit:{task.id:x}:{segment}:{task.checkpoint_root.hex()}"
        if context.results.failures(key) >= options.fetch_attempts:
            continue
        finding = context.results.result(key)
        if finding is None:
            yield Work(key, lambda s=segment: check(context, task, s))  # type: ignore[misc]
        elif not finding.is_right:
            yield from (accuse_training if task.posting.exact else accuse)(context, finding.subject, finding.leaves)


def _ranking(context: Context, task: TaskRecord, options: AuditOptions) -> Generator[Action, None, list[int]]:
    """All segments, the most suspicious first; empty while that is not known."""
    key = f"suspicion:{task.id:x}:{task.checkpoint_root.hex()}"
    found: list[int] | None = context.results.result(key)
    if found is None and context.results.failures(key) < options.fetch_attempts:
        yield Work(key, lambda: suspicion(context, task))
    return found or []


def suspicion(context: Context, task: TaskRecord) -> list[int]:
    """Fetch a proof's checkpoints one after the other and rank its segments."""
    names = [descriptor.name for descriptor in context.bench.bundle(task).task.program.state]
    states = (context.bench.checkpoint(task, index) for index in range(task.segments + 1))
    ranked = rank_segments(states, names)
    logger.info(
        "ranked segments",
        extra={"task": f"{task.id:#x}", "segment": ranked[0].segment, "reason": ranked[0].reason},
    )
    return [each.segment for each in ranked]


def auditable(context: Context, task: TaskRecord) -> list[int]:
    """Segments that can be accused: all of an exact task, whose training claim is open to everyone; those not drawn of
    a tolerant one, once every share was drawn."""
    if task.posting.exact:
        return list(range(task.segments))
    rounds = [each for each in context.view.rounds_of(task.id) if not each.is_profile]
    if len({each.share for each in rounds}) < task.posting.verifiers:
        return []
    drawn = {segment for each in rounds for segment in each.segments}
    return [segment for segment in range(task.segments) if segment not in drawn]


def random_segments(context: Context, task: TaskRecord, eligible: Sequence[int], count: int) -> list[int]:
    """Segments chosen once, by a secret."""
    if not eligible or not count:
        return []
    word = int.from_bytes(context.secret(f"audit:{task.id:x}:{task.checkpoint_root.hex()}"), "big")
    left, chosen = list(eligible), []
    for place in range(min(count, MOST_RANDOM, len(left))):
        chosen.append(left.pop((word >> (32 * place)) % len(left)))
    return chosen


def check(context: Context, task: TaskRecord, segment: int) -> Finding:
    """Replay a segment and compare it with the solver's next checkpoint."""
    # An accusation's trace positions are those of the segment seed; no trace is shown in a case on a training claim.
    seed = 0 if task.posting.exact else context.market.verification.share(task.id, 0).segment_seed
    subject = Subject(task, (segment,), seed)
    leaves = context.bench.claim(subject)
    return Finding(subject, leaves, context.bench.passes(subject, leaves))


def accuse(context: Context, subject: Subject, leaves: Sequence[HashedLeaf]) -> Iterator[Action]:
    """Accuse an undrawn segment of a tolerant task by the own replay of it, unless somebody says just that. What else
    is said of it, or was, shields nothing: an accomplice of the solver can have said it, to be the one who lost it."""
    task, (segment,) = subject.task, subject.segments
    said = [context.view.claims.lines[number] for number in context.view.task(task.id).accusations]
    if accusation_of(task.id, segment, context.me) in context.view.task(task.id).accusations:
        return
    if any(line.segment == segment and not line.is_closed and line.root == claim_root(leaves) for line in said):
        return
    (opening,) = context.bench.checkpoint_openings(task, subject.segments)
    bond = context.market.parameters.accusation_bond
    call = context.market.claims.accuse(task.id, segment, replays_on_chain(leaves)[0], opening, bond)
    yield Send(f"accuse:{task.id:x}:{segment}", call, task.id, segment)


def accuse_training(context: Context, subject: Subject, _leaves: Sequence[HashedLeaf] = ()) -> Iterator[Action]:
    """Dispute the solver's checkpoint after a segment (exact mode)."""
    task, (segment,) = subject.task, subject.segments
    if not task.solver:
        return
    claim_id = claim_id_of(training_line_of(task.id), task.checkpoint_root, task.solver)
    if context.view.claims.is_challenged_by(claim_id, context.me):
        return
    if claim_id not in context.view.claims.opened:
        call = context.market.claims.publish_training(task.id)
        yield Send(f"publish-training:{task.id:x}", call, task.id)
        return
    checkpoints = LeafTree(context.bench.manifest(task).roots)
    evidence = open_training(checkpoints, segment + 1, task.posting.header)
    bond = context.market.parameters.case_bond
    call = context.market.court.open(claim_id, segment + 1, Part.END, bytes(32), evidence.as_tuple(), bond)
    yield Send(f"accuse:{claim_id:x}", call, task.id, segment)
