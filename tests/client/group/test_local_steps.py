"""Local-steps training as a task: members side by side give the proof of one machine; a cheat is one member's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from assay.group.compression.choice import parse_compression, wire_ratios
from assay.group.errors import GroupMessageError, PlacementError
from assay.group.local_steps import (
    Composer,
    LocalMember,
    LocalPart,
    empty_replica,
    member_of_segment,
    message_bytes,
)
from assay.program.errors import UnsupportedError
from assay.program.graph import dump_graph, load_graph
from assay.program.local_schedule import LocalSteps
from assay.program.local_steps_graph import with_local_steps
from assay.program.optimizer import SGD, AdamW, Optimizer, WarmupCosine
from assay.program.sections import build_program
from assay.program.trace import TracedTask, trace
from assay.training.checkpoint import CheckpointFolder
from assay.training.replay import Replayer
from assay.training.task import TrainingTask
from assay.training.train import CanonicalRunner, Proof, train

SETTINGS = LocalSteps(members=3, inner_steps=4)
ROUNDS = 3


def samples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    inputs = random.normal(size=(96, 6)).astype(np.float32)
    return inputs, (inputs[:, 0] > inputs[:, 1]).astype(np.int32)


def traced_task(optimizer: Optimizer | None = None) -> TracedTask:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 2))
    inputs, labels = samples()
    batch = [torch.from_numpy(inputs[:8]), torch.from_numpy(labels[:8].astype(np.int64))]
    return trace(model, "cross_entropy", optimizer or AdamW(WarmupCosine(0.02, 2, ROUNDS * 4)), batch, len(inputs))


def local_task(
    settings: LocalSteps = SETTINGS, rounds: int = ROUNDS, optimizer: Optimizer | None = None
) -> TrainingTask:
    made = with_local_steps(traced_task(optimizer), settings)
    steps = rounds * settings.round_steps
    return TrainingTask(build_program(made.graph), made.initial_state, samples(), 5, steps, settings.inner_steps)


class Lazy(LocalMember):
    """A member that leaves out the last step of its runs from the second round on."""

    def inner_run(self, begin_step: Callable[[int], None] = lambda _step: None) -> LocalPart:
        run, interval = self.run.step, self.task.interval

        def step(number: int, watch: Sequence[object] = ()) -> object:
            skipped = number % interval == interval - 2 and self.round >= 1
            return None if skipped else run(number)

        self.run.step = step  # type: ignore[method-assign, assignment]
        try:
            return super().inner_run(begin_step)
        finally:
            self.run.step = run  # type: ignore[method-assign]


def train_side_by_side(
    task: TrainingTask, folder: Path, kinds: Callable[[int], type[LocalMember]] = lambda member: LocalMember
) -> Proof:
    """All members, none of which sees another's state: only messages pass between them."""
    members = [kinds(number)(task, SETTINGS, number) for number in range(SETTINGS.members)]
    checkpoints = CheckpointFolder(folder / "proof", task.program.state)
    composer = Composer(task, SETTINGS, task.state)
    roots = [checkpoints.write(0, task.state)]
    while members[0].round < members[0].rounds:
        parts = [member.inner_run() for member in members]
        for member in members:
            member.finish_round([part.message for part in parts])
        for part in parts:
            composer.add(part)
            roots.append(checkpoints.write(composer.segment, composer.state))
    return Proof(checkpoints.folder, tuple(roots))


@pytest.fixture(scope="module")
def task() -> TrainingTask:
    return local_task()


@pytest.fixture(scope="module")
def sequential(task: TrainingTask, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    return train(task, tmp_path_factory.mktemp("sequential"))


def test_members_side_by_side_give_the_proof_of_one_machine(
    task: TrainingTask, sequential: Proof, tmp_path: Path
) -> None:
    assert train_side_by_side(task, tmp_path).roots == sequential.roots


def test_a_cheating_member_is_found_and_only_its_segments_fail(task: TrainingTask, tmp_path: Path) -> None:
    proof = train_side_by_side(task, tmp_path, lambda member: Lazy if member == 1 else LocalMember)
    checkpoints = CheckpointFolder(proof.folder, task.program.state)
    replayer = Replayer(task)
    failed = [
        segment
        for segment in range(task.segments)
        if replayer.replay(segment, checkpoints.read(segment), 7).leaf.end_root != proof.roots[segment + 1]
    ]
    assert failed == [4, 7]
    assert {member_of_segment(SETTINGS, segment) for segment in failed} == {1}


def test_the_group_learns_as_its_members_would_alone() -> None:
    settings = LocalSteps(members=3, inner_steps=8)
    task = local_task(settings, rounds=8, optimizer=AdamW(0.02))
    runner = CanonicalRunner(task)
    runner.load(task.state)
    losses = []
    for step in range(task.steps):
        runner.advance(step)
        losses.append(runner.loss() or 0.0)
    assert np.mean(losses[-24:]) < np.mean(losses[:24]) / 3


def test_a_member_goes_on_from_a_composed_state_as_if_it_had_never_stopped(
    task: TrainingTask, sequential: Proof
) -> None:
    checkpoints = CheckpointFolder(sequential.folder, task.program.state)
    member = LocalMember(task, SETTINGS, 1)
    member.resume(1, checkpoints.read(3))
    replica = member.inner_run().replica
    ended = checkpoints.read(5)
    assert all(np.array_equal(part, ended[n][1]) for part, n in zip(replica, member.layout.stacks, strict=True))


def test_a_segment_touches_only_its_member_s_replica(task: TrainingTask, sequential: Proof) -> None:
    checkpoints = CheckpointFolder(sequential.folder, task.program.state)
    before, after = (checkpoints.read(index) for index in (4, 5))  # round 1, member 1
    for descriptor, old, new in zip(task.program.state, before, after, strict=True):
        if descriptor.name.startswith(("members.", "error.")):
            changed = [member for member in range(SETTINGS.members) if not np.array_equal(old[member], new[member])]
            assert changed in ([1], []), descriptor.name
        elif not descriptor.name.startswith("exchange."):
            assert np.array_equal(old, new), descriptor.name


def test_a_message_is_four_times_smaller_than_the_parameters() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8))
    batch = [torch.zeros(8, 64), torch.zeros(8, dtype=torch.int64)]
    made = with_local_steps(trace(model, "cross_entropy", SGD(0.1), batch, 8), SETTINGS)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 4 * count / message_bytes(build_program(made.graph), SETTINGS) > 3.9


@pytest.mark.parametrize(
    ("optimizer", "moments"), [(SGD(0.1), 0), (SGD(0.1, 0.9), 1), (AdamW(0.1), 2)], ids=["sgd", "momentum", "adamw"]
)
def test_what_members_send_is_what_a_plan_reckons_with(optimizer: Optimizer, moments: int) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8))
    batch = [torch.zeros(8, 64), torch.zeros(8, dtype=torch.int64)]
    program = build_program(with_local_steps(trace(model, "cross_entropy", optimizer, batch, 8), SETTINGS).graph)
    parameter_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    ratio = wire_ratios(parse_compression(f"none-g{SETTINGS.bits}"))[2]
    assert message_bytes(program, SETTINGS) == pytest.approx(parameter_bytes / ratio, rel=0.01)
    replica_bytes = sum(part.nbytes for part in empty_replica(program))
    assert replica_bytes == pytest.approx((1 + moments) * parameter_bytes, rel=0.001)


def test_the_graph_is_data_like_any_other() -> None:
    graph = with_local_steps(traced_task(), SETTINGS).graph
    assert dump_graph(load_graph(dump_graph(graph))) == dump_graph(graph)


def test_what_no_exchange_brings_together_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batch = [torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)]
    with pytest.raises(UnsupportedError, match="running_mean in every step"):
        with_local_steps(trace(model, "cross_entropy", SGD(0.1), batch, 8), SETTINGS)


def test_a_schedule_without_whole_runs_is_refused(task: TrainingTask) -> None:
    with pytest.raises(PlacementError, match="segments of 5 steps"):
        LocalMember(task, LocalSteps(3, 5), 0)
    with pytest.raises(PlacementError, match="trains 3 members, the settings say 2"):
        LocalMember(task, LocalSteps(2, 4), 0)
    plain = traced_task()
    other = TrainingTask(build_program(plain.graph), plain.initial_state, samples(), 5, 36, 4)
    with pytest.raises(PlacementError, match="no replicas"):
        LocalMember(other, SETTINGS, 0)


def test_messages_of_another_size_are_refused(task: TrainingTask) -> None:
    member = LocalMember(task, SETTINGS, 0)
    with pytest.raises(GroupMessageError, match="2 messages"):
        member.finish_round([np.zeros(3, np.uint8)] * 2)
