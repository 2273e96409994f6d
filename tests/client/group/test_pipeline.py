"""Pipelines of real processes: torch's schedules with encoded boundaries, replicas, and the replay of one stage."""

from __future__ import annotations

import json
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from assay.commitments import tree
from assay.group.audit import StageInputs, first_deviation, replay_stage
from assay.group.checkpoint import complete_checkpoints, group_state_root, load_part, part_path, save_part, tensor_roots
from assay.group.compression.choice import parse_compression
from assay.group.compression.emulate import train_emulated
from assay.group.errors import GroupMessageError, PlacementError
from assay.group.pipeline.model import character_gpt
from assay.group.pipeline.stage import BACKWARD, FORWARD
from assay.group.pipeline.worker import PipelineWorker, WorkerSettings, share_batch
from assay.group.simulate.member import character_workload
from assay.group.transcript import Transcript, account_signer, check_statement, make_statement

SMALL = {"batch": 16, "samples": 32, "context": 16, "width": 32, "layers": 4, "learning_rate": 1e-3}
KEY = "0x" + "11" * 32
ADDRESS = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
STEPS = 4
RUNS = {
    # name: (layers of each stage, replicas, micro-batches, compression, schedule)
    "plain": ((2, 2), 2, 2, "none", "gpipe"),
    "interleaved": ((2, 2), 2, 2, "none", "1f1b"),
    "repeat": ((2, 2), 2, 2, "none", "gpipe"),
    "averaged in 8 bits": ((2, 2), 2, 2, "none-g8", "gpipe"),
    "four stages": ((1, 1, 1, 1), 1, 2, "aqsgd-8-8", "gpipe"),
    "whole batch": ((3, 1), 2, 1, "aqsgd-4-8", "gpipe"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def member(rank: int, port: int, folder: str) -> None:
    """Run every entry of RUNS in one process group of four, then the checks that need live workers."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=4, timeout=timedelta(seconds=100)
    )
    report: dict[str, Any] = {}
    for name, (split, replicas, microbatches, compression, schedule) in RUNS.items():
        settings = WorkerSettings(split, replicas, microbatches, parse_compression(compression), schedule)
        transcript = Transcript(keep=True)
        worker = PipelineWorker(character_workload(**SMALL), settings, transcript.observe)
        place = part_path(Path(folder) / name, 0, settings.stages, worker.stage_index, worker.replica)
        averaged: dict[int, torch.Tensor] = {}
        plain_average = worker.average.average

        def remembered(vector: torch.Tensor, step: dict[int, torch.Tensor] = averaged) -> torch.Tensor:
            step[len(step)] = plain_average(vector)  # noqa: B023 - called within this turn of the loop
            return step[len(step) - 1]

        worker.average.average = remembered  # type: ignore[method-assign]
        save_part(worker.parts, place)
        losses = []
        for step in range(STEPS):
            transcript.step = step
            losses.append(worker.step())
        roots = {kind: [root.hex() for root in found] for kind, found in tensor_roots(worker.parts).items()}
        report[name] = {
            "losses": [loss for loss in losses if loss is not None],
            "roots": roots,
            "stage": worker.stage_index,
            "replica": worker.replica,
            "wire": [worker.stage.wire.sent, worker.stage.wire.uncompressed],
            "caches": [codec.cache.digest().hex() for codec in worker.codecs if hasattr(codec, "cache")],
            "replay": replay_differs(worker, transcript, place, averaged),
        }
        dist.barrier()
    Path(folder, f"report-{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


def replay_differs(
    worker: PipelineWorker, transcript: Transcript, place: Path, averaged: dict[int, torch.Tensor]
) -> str | None:
    """Replay this stage from its first checkpoint; None where every message and the final state are reproduced."""
    stated = {
        (direction, step, chunk): digest
        for direction in (FORWARD, BACKWARD)
        for (step, chunk), digest in transcript.hashes.get(("sent", direction), {}).items()
    }
    expected = tensor_roots(worker.parts)
    load_part(worker.parts, [place], place)
    samples = {step: list(torch.split(worker.samples_of(step), worker.microbatch)) for step in range(STEPS)}
    messages = transcript.messages
    given = StageInputs(messages.get(("received", FORWARD), {}), messages.get(("received", BACKWARD), {}), averaged)
    replayed = replay_stage(
        worker.parts, worker.before, worker.after, worker.workload.inputs, worker.workload.targets,
        worker.workload.loss, samples, given,
    )  # fmt: skip
    deviation = first_deviation(replayed, stated)
    if deviation is not None:
        return f"{deviation}"
    if tensor_roots(worker.parts) != expected:
        return "the final state differs"
    forged = dict(stated)
    last = max(forged, key=lambda key: key[1])
    forged[last] = bytes(32)
    found = first_deviation(replayed, forged)
    return None if found is not None and (found.direction, found.step, found.chunk) == last else "missed a forgery"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pipeline")
    torch.multiprocessing.spawn(member, args=(free_port(), str(folder)), nprocs=4)
    return [json.loads((folder / f"report-{rank}.json").read_text()) for rank in range(4)]


def losses(reports: list[dict[str, Any]], name: str) -> list[float]:
    rows = [report[name]["losses"] for report in reports if report[name]["losses"]]
    return torch.tensor(rows).mean(dim=0).tolist()


def emulated(compression: str, boundaries: int) -> list[float]:
    return train_emulated(character_workload(**SMALL), parse_compression(compression), boundaries, STEPS, STEPS)[0]


def test_an_uncompressed_pipeline_trains_like_one_machine(reports: list[dict[str, Any]]) -> None:
    assert losses(reports, "plain") == pytest.approx(emulated("none", 1), abs=2e-5)


def test_schedules_and_repeats_give_the_same_bits(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert report["plain"]["roots"] == report["repeat"]["roots"] == report["interleaved"]["roots"]


@pytest.mark.parametrize("name", ["plain", "averaged in 8 bits", "whole batch"])
def test_replicas_of_a_stage_stay_equal(reports: list[dict[str, Any]], name: str) -> None:
    for stage in range(2):
        roots = [report[name]["roots"]["parameter"] for report in reports if report[name]["stage"] == stage]
        assert len(roots) == 2
        assert roots[0] == roots[1]


def test_gradients_in_eight_bits_stay_close(reports: list[dict[str, Any]]) -> None:
    assert losses(reports, "averaged in 8 bits") == pytest.approx(losses(reports, "plain"), abs=5e-3)
    assert losses(reports, "averaged in 8 bits") != losses(reports, "plain")


def test_compressed_pipelines_follow_their_emulation(reports: list[dict[str, Any]]) -> None:
    assert losses(reports, "four stages") == pytest.approx(emulated("aqsgd-8-8", 3), abs=2e-3)


def test_both_ends_of_every_boundary_hold_the_same_cache(reports: list[dict[str, Any]]) -> None:
    by_stage = {report["four stages"]["stage"]: report["four stages"]["caches"] for report in reports}
    for stage in range(3):
        assert by_stage[stage][-1] == by_stage[stage + 1][0]


def test_repeated_visits_send_fewer_bytes(reports: list[dict[str, Any]]) -> None:
    first = next(r for r in reports if r["four stages"]["stage"] == 0)["four stages"]["wire"]
    last = next(r for r in reports if r["four stages"]["stage"] == 3)["four stages"]["wire"]
    # Two of the four steps are first visits; 8 bits and a scale are 3.938 times smaller than float32.
    assert first[1]["forward"] / first[0]["forward"] == pytest.approx(4 / (2 + 2 / 3.938), rel=0.01)
    assert last[1]["backward"] / last[0]["backward"] == pytest.approx(3.938, rel=0.01)


def test_samples_return_to_the_replica_that_remembers_them() -> None:
    random = torch.Generator().manual_seed(0)
    moved = 0
    for _ in range(50):
        numbers = torch.randperm(256, generator=random)[:32]
        shares = share_batch(numbers, 2)
        assert sorted(shares.flatten().tolist()) == sorted(numbers.tolist())
        assert shares.shape == (2, 16)
        moved += int((shares[0] % 2 == 1).sum() + (shares[1] % 2 == 0).sum())
    assert moved < 0.15 * 50 * 32
    assert torch.equal(share_batch(numbers, 1)[0], numbers)


@pytest.mark.parametrize("name", RUNS)
def test_every_stage_can_be_replayed_alone(reports: list[dict[str, Any]], name: str) -> None:
    assert [report[name]["replay"] for report in reports] == [None] * 4


def test_a_plan_for_another_model_is_refused() -> None:
    with pytest.raises(PlacementError, match="deals out 5 layers, the model has 4"):
        character_gpt(10).stage((3, 2), 0)


def filled(way: str, seed: int = 0) -> Transcript:
    transcript = Transcript()
    for step in range(3):
        transcript.step = step
        for chunk in range(2):
            generator = torch.Generator().manual_seed(100 * seed + 10 * step + chunk)
            transcript.observe(FORWARD, chunk, way, torch.randint(0, 255, (50,), generator=generator).byte())
    return transcript


def test_a_statement_binds_its_sender_to_every_message() -> None:
    statement = make_statement(filled("sent"), 7, FORWARD, "ann", "ben", (0, 3), account_signer(KEY))
    check_statement(statement, filled("received"), 7, FORWARD, "ann", "ben", (0, 3), ADDRESS)
    with pytest.raises(GroupMessageError, match="replay its stage"):
        check_statement(statement, filled("received", seed=1), 7, FORWARD, "ann", "ben", (0, 3), ADDRESS)
    with pytest.raises(GroupMessageError, match="not signed"):
        check_statement(statement, filled("received"), 7, FORWARD, "ann", "ben", (0, 3), "0x" + "22" * 20)
    with pytest.raises(GroupMessageError, match="something else"):
        check_statement(statement, filled("received"), 7, FORWARD, "ann", "ben", (3, 6), ADDRESS)


def test_a_transcript_is_about_its_segment_only() -> None:
    transcript = filled("sent")
    root, count = transcript.root("sent", FORWARD)
    assert count == 6
    transcript.begin_segment()
    with pytest.raises(GroupMessageError, match="no forward message"):
        transcript.root("sent", FORWARD)
    assert filled("sent").root("sent", FORWARD)[0] == root


def test_incomplete_checkpoints_are_not_used(tmp_path: Path) -> None:
    for step, stages in ((2, (0, 1)), (4, (0,))):
        for stage in stages:
            path = part_path(tmp_path, step, 2, stage, 0)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    assert [step for step, _ in complete_checkpoints(tmp_path)] == [2]


def test_the_group_root_is_the_root_of_the_whole_state() -> None:
    workload = character_workload(**SMALL)
    model = workload.build()
    stages = []
    whole = model.whole()
    for index in range(2):
        module = model.stage((2, 2), index)
        stages.append({"parameter": [tree.root([bytes(32)])] * len(list(module.parameters()))})
    assert group_state_root(stages) == tree.root([tree.root([bytes(32)])] * len(list(whole.parameters())))
    assert [n for i in range(2) for n, _ in model.stage((2, 2), i).named_parameters()] == [
        n for n, _ in whole.named_parameters()
    ]
