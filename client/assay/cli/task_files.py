"""`assay task fetch|audit`: the files of tasks and proofs, checked against the chain before use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import json_option, note, settings_options, step_counter
from assay.program.optimizer import is_optimizer_state
from assay.roles.session import open_market, open_reader, use_threads
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.market.records import TaskRecord
    from assay.storage.store import Store
    from assay.tasks.bundle import Bundle
    from assay.tasks.proof import ProofManifest

MODEL_NAME = "model.safetensors"
STATE_NAME = "state.safetensors"


def work_folder(settings: Settings, record: TaskRecord, folder: Path | None) -> Path:
    """Where a task's files are kept."""
    return folder or Path(settings.text("state.folder")) / "tasks" / f"{record.id:064x}"


def task_bundle(settings: Settings, store: Store, record: TaskRecord, folder: Path, as_json: bool) -> Bundle:
    """The task's files, fetched, loaded, and compared with the chain."""
    from assay.tasks.bundle import BundleLimits
    from assay.tasks.posting import check_posting
    from assay.tasks.publish import fetch_bundle

    limits = BundleLimits.at_most(settings.whole("storage.limit_mib") << 20)
    note("fetching the task", as_json)
    bundle = fetch_bundle([store], record.posting.locations, folder / "bundle", limits, check_lowering=False)
    check_posting(bundle, record.posting)
    return bundle


def task_proof(store: Store, record: TaskRecord, folder: Path) -> ProofManifest:
    """The manifest of the registered proof."""
    from assay.tasks.errors import ProofFilesError
    from assay.tasks.proof import fetch_proof_manifest

    if not record.proof_locations:
        raise ProofFilesError(
            f"task {record.id:#x} is {record.state.name.lower()}: no proof was registered; see `assay task explain`"
        )
    return fetch_proof_manifest(
        [store], record.proof_locations, folder / "proof", record.checkpoint_root, record.segments
    )


@click.command()
@click.argument("number", metavar="TASK")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Put the model here.")
@click.option("--unproven", is_flag=True, help="Also fetch a model whose task is not settled.")
@settings_options
@json_option
def fetch(number: str, folder: Path | None, unproven: bool, settings: Settings, as_json: bool) -> None:
    """Fetch the trained model of TASK, verified against the root on chain.

    Writes model.safetensors (the model's own tensors, by their names), and state.safetensors (all of the state, from
    which a further task can start).
    """
    from safetensors.numpy import save_file

    from assay.market.types import TaskState
    from assay.storage.open import open_store
    from assay.tasks.errors import ProofFilesError
    from assay.tasks.proof import fetch_checkpoint
    from assay.training.checkpoint import write_tensors

    reader = open_reader(settings, open_market(settings))
    reader.poll()
    record = reader.view.find_task(number)
    if record.state is not TaskState.SETTLED and not unproven:
        raise ProofFilesError(
            f"task {record.id:#x} is {record.state.name.lower()}, its model is not proven: see `assay task explain`, "
            "or fetch it with --unproven"
        )
    store = open_store(settings)
    target = work_folder(settings, record, folder)
    bundle = task_bundle(settings, store, record, target, as_json)
    manifest = task_proof(store, record, target)
    note("fetching the final state", as_json)
    state = fetch_checkpoint([store], manifest, record.segments, bundle.task.program, target / "proof")
    if manifest.roots[record.segments] != record.final_root:
        raise ProofFilesError("the last checkpoint is not the final state on chain: demand it there")
    names = [descriptor.name for descriptor in bundle.task.program.state]
    model = {name: tensor for name, tensor in zip(names, state, strict=True) if not is_optimizer_state(name, names)}
    save_file(model, target / MODEL_NAME)
    write_tensors(target / STATE_NAME, state)
    result: dict[str, Any] = {
        "task": f"{record.id:#066x}",
        "state": record.state.name.lower(),
        "proven": record.state is TaskState.SETTLED,
        "model": str(target / MODEL_NAME),
        "full_state": str(target / STATE_NAME),
        "root": record.final_root.hex(),
        "tensors": len(model),
    }
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{result['model']}: {len(model)} tensors, root {result['root']}, as on chain")


@click.command()
@click.argument("number", metavar="TASK")
@click.option("--segment", type=click.IntRange(min=0), multiple=True, help="Replay this segment; may be repeated.")
@click.option("--all", "every", is_flag=True, help="Replay every segment.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Keep the files here.")
@settings_options
@json_option
def audit(
    number: str, segment: tuple[int, ...], every: bool, folder: Path | None, settings: Settings, as_json: bool
) -> int:
    """Replay segments of TASK's registered proof here and say whether they match. Exits with 1 at a mismatch.

    Nothing is sent; without --segment or --all the first segment that no verifier was drawn for is replayed.
    """
    from assay.storage.open import open_store
    from assay.tasks.audit import audit_segment, thresholds_of
    from assay.training.replay import Replayer

    use_threads(settings)
    reader = open_reader(settings, open_market(settings))
    reader.poll()
    record = reader.view.find_task(number)
    store = open_store(settings)
    target = work_folder(settings, record, folder)
    bundle = task_bundle(settings, store, record, target, as_json)
    manifest = task_proof(store, record, target)
    drawn = {each for found in reader.view.rounds_of(record.id) if found.share < 255 for each in found.segments}
    undrawn: int = next((each for each in range(record.segments) if each not in drawn), 0)
    chosen = list(range(record.segments)) if every else list(segment) or [undrawn]
    thresholds = thresholds_of(
        bundle, record.posting.profile_segments, record.threshold_root, target, step_counter("profiling", as_json),
        manifest.thresholds,
    )  # fmt: skip
    replayer = Replayer(bundle.task)
    results = []
    for each in chosen:
        progress = step_counter(f"segment {each}", as_json)
        found = audit_segment(bundle, [store], manifest, target / "proof", each, thresholds, replayer, progress)
        results.append(found)
        if not as_json:
            distance = "" if found.distance is None else f", distance {found.distance:.3g} (at most 1 passes)"
            click.echo(f"segment {each}: {'match' if found.matches else 'MISMATCH'}{distance}")
    if as_json:
        rows = [
            {
                "segment": each.segment,
                "matches": each.matches,
                "distance": each.distance,
                "replayed": each.replayed.hex(),
                "registered": each.registered.hex(),
            }
            for each in results
        ]
        click.echo(json.dumps({"task": f"{record.id:#066x}", "segments": rows}))
    return 0 if all(each.matches for each in results) else 1
