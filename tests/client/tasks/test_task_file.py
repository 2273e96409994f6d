"""task.toml: what is read, and what is refused with the key and the next thing to try."""

from __future__ import annotations

import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from assay.errors import AssayError
from assay.program.local_schedule import LocalSteps
from assay.program.optimizer import SGD, AdamW, WarmupCosine
from assay.program.sections import Precision
from assay.tasks.errors import TaskFileError
from assay.tasks.samples import read_samples
from assay.tasks.sources import load_function, make_model
from assay.tasks.task_file import DataSource, FunctionSource, GroupTerms, ModelSource, read_task_file, wei_of
from assay.training.task import Mode

from .example import TASK, write_task

LIMIT = 1 << 20


def test_reads_every_section(tmp_path: Path) -> None:
    task = read_task_file(write_task(tmp_path))
    assert (task.title, task.steps, task.batch_size, task.interval, task.seed) == ("example", 12, 4, 3, 7)
    assert (task.mode, task.precision) == (Mode.EXACT, Precision.FP32)
    assert isinstance(task.optimizer, AdamW)
    assert (task.market.lowest_reward, task.market.highest_reward) == (5 * 10**17, 2 * 10**18)
    assert task.market.verifier_fee is None
    assert task.model.arguments == {"hidden": 5}


def test_reads_schedule_precision_and_loss_function(tmp_path: Path) -> None:
    text = TASK.replace('mode = "exact"', 'mode = "tolerant"\nprecision = "bf16"')
    text = text.replace('loss = "cross_entropy"', 'loss = "model.py:scaled_loss"')
    text = text.replace('name = "adamw"', 'name = "sgd"\nmomentum = 0.9\nclip_norm = 1.5')
    task = read_task_file(write_task(tmp_path, text + '[schedule]\nname = "warmup_cosine"\nwarmup = 2\n'))
    assert isinstance(task.optimizer, SGD)
    assert task.optimizer.rate == WarmupCosine(0.01, 2, 12, 0.0)
    assert (task.optimizer.momentum, task.optimizer.clip_norm) == (0.9, 1.5)
    assert task.precision is Precision.BF16
    assert isinstance(task.loss, FunctionSource)
    assert task.market.profile_segments == 4


def test_a_profile_covers_a_quarter_of_a_long_task_and_never_more_than_there_is(tmp_path: Path) -> None:
    tolerant = TASK.replace('mode = "exact"', 'mode = "tolerant"')
    for segments, profiled in ((2, 2), (4, 4), (16, 4), (24, 6), (50, 12), (1000, 12)):
        text = tolerant.replace("steps = 12", f"steps = {3 * segments}")
        task = read_task_file(write_task(tmp_path / str(segments), text))
        assert task.market.profile_segments == profiled, segments
    chosen = tolerant + "profile_segments = 3\n"
    assert read_task_file(write_task(tmp_path / "chosen", chosen)).market.profile_segments == 3


def test_reads_what_a_group_compresses(tmp_path: Path) -> None:
    assert read_task_file(write_task(tmp_path / "plain")).group is None
    text = TASK + '[group]\nboundaries = ["0", "1"]\n'
    assert read_task_file(write_task(tmp_path / "group", text)).group == GroupTerms(("0", "1"), "aqsgd-4-8")
    with pytest.raises(TaskFileError, match="name each submodule once"):
        read_task_file(write_task(tmp_path / "twice", text.replace('"1"', '"0"')))


def test_reads_replicas_and_the_bits_of_their_gradients(tmp_path: Path) -> None:
    tolerant = TASK.replace('mode = "exact"', 'mode = "tolerant"')
    text = tolerant + "[group]\nreplicas = 2\ngradient_bits = 4\n"
    assert read_task_file(write_task(tmp_path / "alone", text)).group == GroupTerms((), "none", 2, 4)
    both = text.replace("gradient_bits = 4", 'boundaries = ["0"]\ncompression = "direct-4-8"')
    assert read_task_file(write_task(tmp_path / "both", both)).group == GroupTerms(("0",), "direct-4-8", 2, 8)
    for old, new, words in (
        ("replicas = 2", "replicas = 3", "batch_size, 4, has no equal parts"),
        ("replicas = 2", "replicas = 65", "group.replicas is 65: it must be a whole number from 1 to 64"),
        ("gradient_bits = 4", "gradient_bits = 9", "group.gradient_bits is 9"),
        ("replicas = 2", 'boundaries = ["0"]', "group.gradient_bits needs group.replicas"),
        ("replicas = 2\ngradient_bits = 4", 'compression = "none"', "group.boundaries is missing"),
        ("gradient_bits = 4", 'compression = "direct-4-8"', "there are no group.boundaries"),
        ("gradient_bits = 4", 'boundaries = ["0"]', "write tile-4-8 or direct-4-8"),
        ('mode = "tolerant"', 'mode = "exact"', "it needs training.mode tolerant"),
    ):
        with pytest.raises(TaskFileError, match=words):
            read_task_file(write_task(tmp_path / "other", text.replace(old, new)))


def test_reads_local_steps_and_refuses_rounds_that_are_not_whole(tmp_path: Path) -> None:
    text = TASK + "[local_steps]\nmembers = 2\n"
    assert read_task_file(write_task(tmp_path / "two", text)).local_steps == LocalSteps(2, 3)
    for old, new, words in (
        ("members = 2", "members = 3", "a round has 9 steps"),
        ("members = 2", "members = 1", "local_steps.members is 1"),
        ('mode = "exact"', 'mode = "tolerant"', "needs training.mode exact"),
        ("[local_steps]", '[group]\nboundaries = ["0"]\n[local_steps]', "exclude each other"),
    ):
        with pytest.raises(TaskFileError, match=words):
            read_task_file(write_task(tmp_path / "other", text.replace(old, new)))


def test_amounts_are_exact() -> None:
    assert wei_of(Decimal("0.000000000000000001"), "x") == 1
    assert wei_of(Decimal("123.456789012345678901"), "x") == 123456789012345678901
    with pytest.raises(TaskFileError, match="18 decimal places"):
        wei_of(Decimal("0.0000000000000000001"), "x")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 12", "steps = 0", "training.steps is 0"),
        ("steps = 12", "steps = true", "training.steps"),
        ("steps = 12", "stepz = 12", "training.steps is missing"),
        ("batch_size = 4", "batch_size = 4\nbatchsize = 4", "training.batchsize is unknown"),
        ('title = "example"', 'tittle = "example"', "tittle is unknown"),
        ("checkpoint_interval = 3", "checkpoint_interval = 13", "from 1 to 12"),
        ("steps = 12", "steps = 4000000", "training.checkpoint_interval is 3: it must be a whole number from 4 to"),
        ('mode = "exact"', 'mode = "rough"', "one of exact, tolerant"),
        ('mode = "exact"', 'mode = "exact"\nprecision = "bf16"', "always computed in fp32"),
        ('"cross_entropy"', '"crossentropy"', "choose one of"),
        ('"model.py:make_model"', '"model.py"', "file.py:function"),
        ('"model.py:make_model"', '"other.py:make_model"', "no file"),
        ('"samples.npz"', '"samples.pkl"', "no file"),
        ('["inputs", "labels"]', '["inputs"]', "at least one input and the target"),
        ("learning_rate = 0.01", "learning_rate = nan", "finite number"),
        ("learning_rate = 0.01", "learning_rate = -1", "learning rate"),
        ("lowest_reward = 0.5", "lowest_reward = 3", "above market.highest_reward"),
        ("lowest_reward = 0.5", 'lowest_reward = "0.5"', "finite number"),
        ("lowest_reward = 0.5", "lowest_reward = -1", "market.lowest_reward"),
        ("segments_per_verifier = 2", "segments_per_verifier = 5", "need 5 segments, the task has 4"),
        ("verifiers = 1", "verifiers = 1\nprofiler_fee = 1", "no profiler"),
        ("verifiers = 1", 'verifiers = 1\nbase_task = "0x1"', "belong together"),
        ("[market]", "[market", "not TOML"),
        pytest.param("steps = 12", "steps = " + "9" * 5000, "not TOML", id="thousands of digits"),
        ("learning_rate = 0.01", "learning_rate = 1e400", "finite number"),
        pytest.param("rate = 0.01", "rate = 1" + "0" * 400, "finite number", id="beyond floats"),
        ("learning_rate = 0.01", "learning_rate = 0.01\nbetas = [0.9, 1e400]", "finite numbers"),
        ("highest_reward = 2", "highest_reward = 1e999999", "market.highest_reward is 1E+999999 coins"),
    ],
)
def test_refuses(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TASK
    with pytest.raises(TaskFileError) as caught:
        read_task_file(write_task(tmp_path, TASK.replace(old, new, 1)))
    assert words in str(caught.value)


def test_the_submitters_mistakes_are_told_with_their_line(tmp_path: Path) -> None:
    write_task(tmp_path)
    file = tmp_path / "model.py"
    with pytest.raises(TaskFileError, match=r"no function 'absent'"):
        load_function(FunctionSource(file, "absent"))
    with pytest.raises(TaskFileError, match=r"ValueError: no such layer \(model.py:\d+"):
        make_model(ModelSource(FunctionSource(file, "broken"), {}, True, None, None), 1)
    with pytest.raises(TaskFileError, match="returned int"):
        make_model(ModelSource(FunctionSource(file, "no_module"), {}, True, None, None), 1)
    with pytest.raises(TaskFileError, match="unexpected keyword"):
        make_model(ModelSource(FunctionSource(file, "make_model"), {"width": 1}, True, None, None), 1)


def test_weights_start_the_model(tmp_path: Path) -> None:
    write_task(tmp_path)
    source = ModelSource(FunctionSource(tmp_path / "model.py", "make_model"), {}, True, None, None)
    weights = {name: np.full(v.shape, 3, np.float32) for name, v in make_model(source, 1).state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    given = ModelSource(source.source, {}, True, tmp_path / "weights.safetensors", None)
    assert all((value == 3).all() for value in make_model(given, 1).state_dict().values())
    save_file({"other": np.zeros(3, np.float32)}, tmp_path / "weights.safetensors")
    with pytest.raises(TaskFileError, match="do not fit the model"):
        make_model(given, 1)


# --- samples ---------------------------------------------------------------------------------------------------------


def samples_of(folder: Path, limit: int = LIMIT, **tensors: np.ndarray) -> tuple[np.ndarray, ...]:
    np.savez(folder / "samples.npz", **tensors)
    return read_samples(DataSource(folder / "samples.npz", tuple(tensors)), limit)


def test_samples_come_from_npz_and_safetensors_alike(tmp_path: Path) -> None:
    tensors = {"x": np.arange(12, dtype=np.float32).reshape(4, 3), "y": np.array([0, 1, 2, 1])}
    first = samples_of(tmp_path, **tensors)
    save_file(tensors, tmp_path / "samples.safetensors")
    second = read_samples(DataSource(tmp_path / "samples.safetensors", ("x", "y")), LIMIT)
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype
        assert (one == other).all()
    assert [part.dtype for part in first] == [np.float32, np.int32]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"x": np.zeros((4, 2)), "y": np.zeros(4, int)}, "float64"),
        ({"x": np.array([1, np.nan], np.float32), "y": np.zeros(2, int)}, "NaN"),
        ({"x": np.zeros((4, 2), np.float32), "y": np.zeros(3, int)}, "equal in all"),
        ({"x": np.zeros((4, 2), np.float32), "y": np.array([0, 1, 2, 2**31])}, "fit 32 bits"),
        ({"x": np.zeros((0, 2), np.float32), "y": np.zeros(0, int)}, "has 0 elements"),
        ({"x": np.array([object()]), "y": np.zeros(1, int)}, "pickle"),
    ],
)
def test_unusable_samples_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(TaskFileError) as caught:
        samples_of(tmp_path, **tensors)
    assert words in str(caught.value)


def test_a_decompression_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "samples.npz", x=np.zeros((4, 1 << 21), np.float32), y=np.zeros(4, int))
    assert (tmp_path / "samples.npz").stat().st_size < 1 << 17
    with pytest.raises(TaskFileError, match="storage.limit_mib"):
        read_samples(DataSource(tmp_path / "samples.npz", ("x", "y")), LIMIT)


@pytest.mark.parametrize("declared", [4, 1 << 40])
def test_an_array_that_is_not_as_long_as_it_says_is_refused(tmp_path: Path, declared: int) -> None:
    with zipfile.ZipFile(tmp_path / "samples.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({declared},), }}".encode().ljust(117) + b"\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(400))
        archive.writestr("y.npy", b"not an array")
    with pytest.raises(TaskFileError):
        read_samples(DataSource(tmp_path / "samples.npz", ("x", "y")), LIMIT)
    with pytest.raises(TaskFileError, match="no .npy header"):
        read_samples(DataSource(tmp_path / "samples.npz", ("y", "x")), LIMIT)


def test_damaged_and_missing_samples_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path)
    whole = (tmp_path / "samples.npz").read_bytes()
    source = DataSource(tmp_path / "samples.npz", ("inputs", "labels"))
    with pytest.raises(TaskFileError, match="it has inputs, labels"):
        read_samples(DataSource(source.file, ("inputs", "target")), LIMIT)
    for damaged in (whole[: len(whole) // 2], b"", whole[:60] + bytes(60) + whole[120:]):
        source.file.write_bytes(damaged)
        with pytest.raises(AssayError):
            read_samples(source, LIMIT)
