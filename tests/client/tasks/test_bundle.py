"""Bundles: made from a task file, published, fetched, and refused when anything in them is not what it should be."""

from __future__ import annotations

import json
import pickle
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from assay.commitments.execution import checkpoint_root
from assay.errors import AssayError
from assay.program.local_schedule import LocalSteps
from assay.program.operator import Role
from assay.program.optimizer import is_optimizer_state
from assay.storage.directory import DirectoryStore
from assay.storage.errors import StorageError, TooLargeError
from assay.tasks.build import build_bundle
from assay.tasks.bundle import Bundle, BundleLimits, load_bundle
from assay.tasks.errors import BundleError, ProofFilesError, TaskFileError
from assay.tasks.manifest import FILE_NAMES, MANIFEST_NAME, load_manifest
from assay.tasks.proof import MAX_THRESHOLDS, PROOF_NAME, fetch_checkpoint, fetch_proof_manifest, publish_proof
from assay.tasks.publish import fetch_bundle, publish_bundle
from assay.tasks.references import FileReference, decode_locations, fetch_file, put_file
from assay.tasks.task_file import read_task_file
from assay.training.checkpoint import write_tensors
from assay.training.train import train

from .example import TASK, write_task


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("task")
    return build_bundle(read_task_file(write_task(folder)), folder / "bundle")


@pytest.fixture
def copied(built: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(built.folder, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def amend(folder: Path, path: list[str], value: object) -> None:
    """Change one field of a manifest."""
    document = json.loads((folder / MANIFEST_NAME).read_text())
    table = document
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    (folder / MANIFEST_NAME).write_text(json.dumps(document))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Put other bytes in place of a file, and have the manifest say so."""
    (folder / FILE_NAMES[name]).write_bytes(content)
    amend(folder, ["files", name, "bytes"], len(content))
    amend(folder, ["files", name, "sha256"], sha256(content).hexdigest())


def test_the_same_task_file_gives_the_same_bundle(built: Bundle, tmp_path: Path) -> None:
    again = build_bundle(read_task_file(write_task(tmp_path / "task")), tmp_path / "again")
    for name in (*FILE_NAMES.values(), MANIFEST_NAME):
        assert (again.folder / name).read_bytes() == (built.folder / name).read_bytes(), name


def test_a_bundle_loads_as_it_was_built(built: Bundle) -> None:
    loaded = load_bundle(built.folder)
    assert loaded.manifest == built.manifest
    assert loaded.task.fingerprint == built.task.fingerprint
    assert (loaded.task.segments, loaded.manifest.batch, loaded.manifest.samples) == (4, 4, 20)


def test_a_tolerant_task_carries_all_sections(tmp_path: Path) -> None:
    text = TASK.replace('mode = "exact"', 'mode = "tolerant"\nprecision = "tf32"')
    bundle = build_bundle(read_task_file(write_task(tmp_path, text)), tmp_path / "bundle")
    assert all(load_bundle(tmp_path / "bundle").task.program.has(role) for role in Role)
    assert bundle.manifest.precision.name == "TF32"


def test_declared_compression_is_part_of_the_program_and_its_memory_of_the_state(built: Bundle, tmp_path: Path) -> None:
    group = '[group]\nboundaries = ["1"]\ncompression = "aqsgd-4-8"\n'
    said: list[str] = []
    file = read_task_file(write_task(tmp_path / "source", TASK + group))
    bundle = build_bundle(file, tmp_path / "bundle", report=said.append)
    memory = [(d.name, d.shape) for d in bundle.task.program.state if d.name.endswith("boundary_memory")]
    assert memory == [("1.boundary_memory", (20, 5))]
    assert any("compressed by aqsgd-4-8" in sentence for sentence in said)
    assert load_bundle(bundle.folder).manifest.program_root != built.manifest.program_root


def test_declared_replicas_are_part_of_the_program_and_their_errors_of_the_state(tmp_path: Path) -> None:
    text = TASK.replace('mode = "exact"', 'mode = "tolerant"').replace("hidden = 5", "hidden = 200")
    group = "[group]\nreplicas = 2\ngradient_bits = 4\n"
    said: list[str] = []
    bundle = build_bundle(
        read_task_file(write_task(tmp_path / "source", text + group)), tmp_path / "bundle", report=said.append
    )
    loaded = load_bundle(bundle.folder)
    errors = [
        (entry.name, entry.shape) for entry in loaded.task.program.state if entry.name.startswith("gradient_error")
    ]
    assert errors == [("gradient_error.0.0.weight", (200, 6)), ("gradient_error.1.0.weight", (200, 6))]
    assert loaded.graph.shared_from is not None
    assert loaded.graph.shared_from.gradient_bits == 4
    assert "gradients between 2 replicas travel in 4 bits" in said


def test_replicas_without_anything_to_compress_are_refused(tmp_path: Path) -> None:
    text = TASK.replace('mode = "exact"', 'mode = "tolerant"') + "[group]\nreplicas = 2\n"
    with pytest.raises(TaskFileError, match=r"\[group\]: no gradient is large enough"):
        build_bundle(read_task_file(write_task(tmp_path / "source", text)), tmp_path / "bundle")


def test_local_steps_are_in_the_program_and_named_by_the_manifest(tmp_path: Path) -> None:
    file = read_task_file(write_task(tmp_path / "source", TASK + "[local_steps]\nmembers = 2\nbits = 4\n"))
    loaded = load_bundle(build_bundle(file, tmp_path / "bundle").folder)
    assert loaded.manifest.local_steps == LocalSteps(2, 3, 4)
    shapes = {descriptor.name: descriptor.shape for descriptor in loaded.task.program.state}
    assert shapes["members.0.weight"] == (2, *shapes["0.weight"])


def test_a_models_own_tensors_are_told_from_its_optimizers_whatever_they_are_called(tmp_path: Path) -> None:
    file = write_task(tmp_path, TASK.replace('name = "adamw"', 'name = "sgd"\nmomentum = 0.9'))
    (tmp_path / "model.py").write_text(
        "from collections import OrderedDict\nfrom torch import nn\n\n\ndef make_model(hidden):\n"
        "    return nn.Sequential(OrderedDict(momentum=nn.Linear(6, hidden), beta1_power_head=nn.Linear(hidden, 3)))\n"
    )
    names = [each.name for each in build_bundle(read_task_file(file), tmp_path / "bundle").task.program.state]
    assert len(names) == 8
    assert {name for name in names if not is_optimizer_state(name, names)} == {
        "momentum.weight", "momentum.bias", "beta1_power_head.weight", "beta1_power_head.bias",
    }  # fmt: skip


def test_an_errors_feedback_and_powers_are_the_optimizers() -> None:
    names = ("w", "first_moment.w", "second_moment.w", "beta1_power", "beta2_power", "gradient_error.1.w")
    assert [name for name in names if not is_optimizer_state(name, names)] == ["w"]


def test_a_published_bundle_comes_back(built: Bundle, copied: Path, store: DirectoryStore, tmp_path: Path) -> None:
    bundle = load_bundle(copied)
    locations = publish_bundle(store, bundle)
    assert locations == publish_bundle(store, bundle)
    fetched = fetch_bundle([store], locations, tmp_path / "fetched")
    assert fetched.task.fingerprint == built.task.fingerprint
    assert fetched.folder == tmp_path / "fetched"


def test_a_store_that_serves_other_bytes_is_found_out(copied: Path, store: DirectoryStore, tmp_path: Path) -> None:
    locations = publish_bundle(store, load_bundle(copied))
    data = load_manifest((copied / MANIFEST_NAME).read_bytes()).reference("data")
    name = data.at[0].partition(":")[2]
    place = store.folder / name[:2] / name[2:]
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    with pytest.raises(StorageError, match="other bytes"):
        fetch_bundle([store], locations, tmp_path / "fetched")
    assert not (tmp_path / "fetched" / FILE_NAMES["data"]).exists()


def test_nothing_beyond_the_limits_is_fetched(copied: Path, store: DirectoryStore, tmp_path: Path) -> None:
    locations = publish_bundle(store, load_bundle(copied))
    with pytest.raises(TooLargeError):
        fetch_bundle([store], locations, tmp_path / "fetched", BundleLimits(tensors=100))
    assert not (tmp_path / "fetched" / FILE_NAMES["initial"]).exists()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["arithmetic"], "binary64-1"),
        (["lowering"], 7),
        (["title"], "a\x1b[31mred"),
        (["schedule", "steps"], 0),
        (["schedule", "steps"], 2**40),
        (["schedule", "interval"], 13),
        (["schedule", "seed"], -1),
        (["schedule", "mode"], "lenient"),
        (["schedule", "precision"], "fp8"),
        (["roots", "program"], "00" * 31),
        (["roots", "program"], "00" * 32),
        (["roots", "graph"], "00" * 32),
        (["roots", "data"], "00" * 32),
        (["roots", "initial"], "00" * 32),
        (["files", "data", "bytes"], 2**62),
        (["files", "data", "sha256"], "00" * 32),
        (["files", "data", "at"], ["dir:" + "a" * 600]),
        (["files", "data", "name"], "../../../etc/passwd"),
        (["files", "../escape"], {"bytes": 1, "sha256": "00" * 32, "at": []}),
        (["files", "data"], "data.safetensors"),
        (["files"], []),
        (["extra"], 1),
    ],
)
def test_a_changed_manifest_is_refused(copied: Path, path: list[str], value: object) -> None:
    amend(copied, path, value)
    with pytest.raises(BundleError):
        load_bundle(copied)


def test_a_manifest_that_is_no_json_is_refused(copied: Path) -> None:
    whole = (copied / MANIFEST_NAME).read_bytes()
    for content in (b"", b"[" * 100_000, whole[:-10], b"\xff" + whole, b'{"format": NaN}', bytes(1 << 17)):
        (copied / MANIFEST_NAME).write_bytes(content)
        with pytest.raises(BundleError):
            load_bundle(copied)
    (copied / MANIFEST_NAME).write_bytes(b'{"format": 2,' + whole.lstrip()[1:])
    with pytest.raises(BundleError, match="stands twice"):
        load_bundle(copied)


@pytest.mark.parametrize("name", list(FILE_NAMES))
def test_truncated_foreign_and_linked_files_are_refused(copied: Path, name: str, tmp_path: Path) -> None:
    path = copied / FILE_NAMES[name]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match="does not have its"):
        load_bundle(copied)
    for content in (whole[: len(whole) // 2], pickle.dumps([1, 2, 3]), b"\xff" * 64, whole + b"\0"):
        replace(copied, name, content)
        with pytest.raises(AssayError):
            load_bundle(copied)
    replace(copied, name, whole)
    load_bundle(copied)
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="missing"):
        load_bundle(copied)


def test_tensors_of_other_shapes_types_or_with_nan_are_refused(built: Bundle, copied: Path, tmp_path: Path) -> None:
    state = [part.copy() for part in built.task.state]
    variants = {
        "one more": [*state, np.zeros(1, np.float32)],
        "one less": state[:-1],
        "transposed": [state[0].T.copy(), *state[1:]],
        "integers": [state[0].astype(np.int32), *state[1:]],
        "doubles": [state[0].astype(np.float64), *state[1:]],
        "other values": [state[0] + 1, *state[1:]],
    }
    for variant, tensors in variants.items():
        write_tensors(tmp_path / "tensors", tensors)
        replace(copied, "initial", (tmp_path / "tensors").read_bytes())
        with pytest.raises(BundleError):
            load_bundle(copied)
        assert variant
    state[0][0, 0] = np.nan
    from assay.commitments.execution import state_root

    write_tensors(tmp_path / "tensors", state)
    replace(copied, "initial", (tmp_path / "tensors").read_bytes())
    amend(copied, ["roots", "initial"], state_root(state).hex())
    with pytest.raises(BundleError, match="NaN"):
        load_bundle(copied)


def test_a_graph_that_says_something_else_than_the_program_is_refused(copied: Path, tmp_path: Path) -> None:
    text = TASK.replace("learning_rate = 0.01", "learning_rate = 0.02")
    other = build_bundle(read_task_file(write_task(tmp_path / "task", text)), tmp_path / "other")
    replace(copied, "graph", (other.folder / FILE_NAMES["graph"]).read_bytes())
    amend(copied, ["roots", "graph"], other.manifest.graph_hash.hex())
    with pytest.raises(BundleError, match="different things"):
        load_bundle(copied)
    load_bundle(copied, check_lowering=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ipfs://task",
        "{}",
        '{"at":[],"bytes":1,"sha256":"' + "0" * 64 + '"}',
        '{"at":["dir:a"],"bytes":0,"sha256":"' + "0" * 64 + '"}',
        '{"at":["dir:a"],"bytes":1,"sha256":"xyz"}',
        '{"at":["dir:a"],"bytes":1,"sha256":"' + "0" * 64 + '","more":1}',
        " " * 5000,
    ],
)
def test_locations_that_are_no_reference_are_refused(text: str) -> None:
    with pytest.raises(BundleError):
        decode_locations(text)


def test_paths_in_locators_never_leave_the_store(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    reference = put_file(store, tmp_path / "secret")
    for locator in ("dir:../secret", "dir:/etc/passwd", "dir:..%2fsecret", "file:///etc/passwd"):
        wrong = type(reference)((locator,), reference.size, reference.digest)
        with pytest.raises(StorageError):
            fetch_file([store], wrong, tmp_path / "fetched", 1000)
        assert not (tmp_path / "fetched").exists()


def test_what_an_earlier_fetch_left_behind_does_not_spoil_a_file_that_is_served_rightly(
    store: DirectoryStore, tmp_path: Path
) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(range(200)))
    reference = put_file(store, content)
    target = tmp_path / "target"
    (tmp_path / "target.part").write_bytes(bytes(50))  # from another place, or torn by a crash
    assert fetch_file([store], reference, target, 1000).read_bytes() == content.read_bytes()


# --- proofs ----------------------------------------------------------------------------------------------------------


def test_a_published_proof_comes_back_and_is_checked(built: Bundle, store: DirectoryStore, tmp_path: Path) -> None:
    proof = train(built.task, tmp_path / "run")
    locations = publish_proof(store, proof)
    manifest = fetch_proof_manifest([store], locations, tmp_path / "fetched", proof.root, built.task.segments)
    assert manifest.roots == proof.roots
    last = fetch_checkpoint([store], manifest, built.task.segments, built.task.program, tmp_path / "fetched")
    assert len(last) == len(built.task.state)
    with pytest.raises(ProofFilesError, match="the solver registered"):
        fetch_proof_manifest([store], locations, tmp_path / "fetched", bytes(32), built.task.segments)
    with pytest.raises(ProofFilesError, match="the solver registered"):
        fetch_proof_manifest([store], locations, tmp_path / "fetched", proof.root, built.task.segments + 1)
    swapped = type(manifest)(manifest.roots, (*manifest.files[:3], manifest.files[1], manifest.files[4]))
    with pytest.raises(ProofFilesError, match="checkpoint 3 has root"):
        fetch_checkpoint([store], swapped, 3, built.task.program, tmp_path / "fetched")


def test_a_proofs_manifest_is_not_fetched_where_it_is_larger_than_its_segments_need(
    store: DirectoryStore, tmp_path: Path
) -> None:
    bloated = tmp_path / "proof.json"
    bloated.write_text('{"format": 1, "checkpoints": [' + "[],[]," * 400_000 + "[]]}")
    locations = put_file(store, bloated).encode()
    with pytest.raises(TooLargeError, match="proof.json has"):
        fetch_proof_manifest([store], locations, tmp_path / "fetched", bytes(32), 2)
    assert not (tmp_path / "fetched" / PROOF_NAME).exists()


def test_the_largest_manifest_that_a_proof_can_have_is_fetched(store: DirectoryStore, tmp_path: Path) -> None:
    file = FileReference(tuple(f"dir:{index}{'a' * 507}" for index in range(8)), 2**63 - 1, bytes(32))
    roots = [bytes([index]) * 32 for index in range(4)]
    document = {
        "format": 1,
        "thresholds": "00" * (MAX_THRESHOLDS // 2),
        "checkpoints": [{"root": root.hex(), "file": file.as_json()} for root in roots],
    }
    path = tmp_path / "proof.json"
    path.write_text(json.dumps(document))
    root = checkpoint_root(roots)
    manifest = fetch_proof_manifest([store], put_file(store, path).encode(), tmp_path / "fetched", root, 3)
    assert manifest.files == (file,) * 4
