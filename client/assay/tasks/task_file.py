"""`task.toml`: what a submitter writes (`templates/task.toml` has every key). Read strictly; nothing is executed."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from assay.program.errors import UnsupportedError
from assay.program.graph import MAX_REPLICAS
from assay.program.local_schedule import LocalSteps
from assay.program.optimizer import SGD, AdamW, Constant, Optimizer, Schedule, WarmupCosine
from assay.program.sections import Precision
from assay.program.trace import LOSSES
from assay.tasks.errors import TaskFileError
from assay.tasks.fields import REQUIRED, Fields
from assay.tasks.manifest import PRECISIONS
from assay.training.task import MAX_STEPS, MOST_SEGMENTS, Mode, usually_profiled

COIN = 10**18  # wei
MAX_REWARD = 2**88 - 1  # wei, as the market has it
MAX_SECONDS = 2**32 - 1
MAX_VERIFIERS = 8
MAX_SEGMENTS = 16
MAX_TASK_FILE = 1 << 20


@dataclass(frozen=True)
class FunctionSource:
    """A function in one of the submitter's own files."""

    file: Path
    function: str


@dataclass(frozen=True)
class ModelSource:
    """How the model is made, on the submitter's machine only."""

    source: FunctionSource
    arguments: dict[str, Any]
    training: bool
    weights: Path | None
    base_state: Path | None


@dataclass(frozen=True)
class DataSource:
    """Where the samples are. The last tensor is what the loss compares with."""

    file: Path
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class GroupTerms:
    """What the program compresses, so that a group of solvers can send it over slow links: what crosses `boundaries` by
    the scheme `compression`, and with `replicas`, which have a part of each batch, their gradients in `gradient_bits`.
    Without boundaries the scheme is "none"; without replicas there is one."""

    boundaries: tuple[str, ...]
    compression: str
    replicas: int = 1
    gradient_bits: int = 0


@dataclass(frozen=True)
class MarketTerms:
    """What a task pays, in wei, and how long it waits, in seconds. None: what the contracts make the least."""

    lowest_reward: int
    highest_reward: int
    verifiers: int
    segments_per_verifier: int
    profile_segments: int  # 0 in exact mode
    verifier_fee: int | None
    profiler_fee: int | None
    auction_seconds: int
    training_seconds: int | None
    base_task: int  # 0: none


@dataclass(frozen=True)
class TaskFile:
    """A task.toml, read."""

    path: Path
    title: str
    model: ModelSource
    data: DataSource
    loss: str | FunctionSource
    optimizer: Optimizer
    steps: int
    batch_size: int
    interval: int
    mode: Mode
    precision: Precision
    seed: int
    market: MarketTerms
    group: GroupTerms | None = None
    local_steps: LocalSteps | None = None


def read_task_file(path: Path) -> TaskFile:
    """Read and check a task.toml. Raises `TaskFileError` naming the key, its value, and what is wanted."""
    try:
        if path.stat().st_size > MAX_TASK_FILE:
            raise TaskFileError(f"{path} has {path.stat().st_size} bytes: a task file has at most {MAX_TASK_FILE}")
        # Decimals keep amounts of money exact.
        content = tomllib.loads(path.read_text(), parse_float=Decimal)
    except (OSError, UnicodeDecodeError) as error:
        raise TaskFileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, RecursionError) as error:  # the parser lets those of overlong numbers and deep tables through
        raise TaskFileError(f"{path} is not TOML: {error}") from error
    fields = Fields(content, "", TaskFileError)
    folder = path.parent
    title = fields.text("title", path.parent.resolve().name or "task", most=200)
    model = _model(fields.table("model"), folder)
    data = _data(fields.table("data"), folder)
    training = fields.table("training")
    loss = training.text("loss")
    steps = training.whole("steps", 1, MAX_STEPS)
    batch_size = training.whole("batch_size", 1, 2**31 - 1)
    interval = training.whole("checkpoint_interval", -(-steps // MOST_SEGMENTS), steps)
    mode = Mode(training.choice("mode", [each.value for each in Mode], Mode.EXACT.value))
    precision = PRECISIONS[training.choice("precision", list(PRECISIONS), "fp32")]
    seed = training.whole("seed", 0, 2**64 - 1, 0)
    training.finish()
    if mode is Mode.EXACT and precision is not Precision.FP32:
        raise TaskFileError(f"training.precision is {precision.name.lower()}: an exact task is always computed in fp32")
    try:
        optimizer = _optimizer(fields.table("optimizer"), fields.table("schedule", required=False), steps)
    except UnsupportedError as error:
        raise TaskFileError(f"[optimizer] or [schedule]: {error}") from error
    market = _market(fields.table("market"), mode, -(-steps // interval))
    group = _group(fields.table("group", required=False), mode, batch_size)
    local_steps = _local_steps(fields.table("local_steps", required=False), mode, steps, interval)
    fields.finish()
    if group is not None and local_steps is not None:
        raise TaskFileError("[group] and [local_steps] exclude each other: a replica's layers stay on one member")
    if (market.base_task != 0) != (model.base_state is not None):
        raise TaskFileError("market.base_task and model.base_state belong together: give both or none")
    return TaskFile(
        path, title, model, data, _loss(loss, folder), optimizer, steps, batch_size, interval, mode, precision, seed,
        market, group, local_steps,
    )  # fmt: skip


def _function(text: str, folder: Path, where: str) -> FunctionSource:
    file, colon, function = text.rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        raise TaskFileError(f"{where} is {text!r}: write it as file.py:function")
    path = folder / file
    if not path.is_file():
        raise TaskFileError(f"{where} names {path}, which is no file: paths count from the task file's folder")
    return FunctionSource(path, function)


def _file(fields: Fields, key: str, folder: Path, required: bool) -> Path | None:
    name = fields.text(key) if required else fields.text(key, None)
    if name is None:
        return None
    path = folder / str(name)
    if not path.is_file():
        raise TaskFileError(
            f"{fields.place(key)} names {path}, which is no file: paths count from the task file's folder"
        )
    return path


def _model(fields: Fields, folder: Path) -> ModelSource:
    source = _function(fields.text("source"), folder, fields.place("source"))
    arguments = fields.table("arguments", required=False).rest()
    plain = {key: float(value) if isinstance(value, Decimal) else value for key, value in arguments.items()}
    training = fields.flag("training", True)
    weights = _file(fields, "weights", folder, required=False)
    base_state = _file(fields, "base_state", folder, required=False)
    fields.finish()
    if weights is not None and base_state is not None:
        raise TaskFileError("model.weights and model.base_state exclude each other: the state holds the weights")
    return ModelSource(source, plain, training, weights, base_state)


def _data(fields: Fields, folder: Path) -> DataSource:
    file = _file(fields, "file", folder, required=True)
    assert file is not None
    if file.suffix not in (".npz", ".safetensors"):
        raise TaskFileError(f"data.file is {file.name}: save the samples as .npz or .safetensors")
    tensors = fields.texts("tensors", 64)
    fields.finish()
    if len(tensors) < 2 or len(set(tensors)) != len(tensors):
        raise TaskFileError(f"data.tensors is {list(tensors)}: name at least one input and the target, each once")
    return DataSource(file, tensors)


def _loss(text: str, folder: Path) -> str | FunctionSource:
    if text in LOSSES:
        return text
    if ":" not in text:
        raise TaskFileError(
            f"training.loss is {text!r}: choose one of {', '.join(sorted(LOSSES))}, or name a function as "
            "file.py:function"
        )
    return _function(text, folder, "training.loss")


def _group(fields: Fields, mode: Mode, batch_size: int) -> GroupTerms | None:
    if fields.empty:
        return None
    replicas = fields.whole("replicas", 1, MAX_REPLICAS, 1)
    gradient_bits = fields.whole("gradient_bits", 2, 8, 8 if replicas > 1 else 0)
    boundaries = fields.texts("boundaries", 64, () if replicas > 1 else REQUIRED)
    compression = fields.text("compression", "aqsgd-4-8" if boundaries else "none")
    fields.finish()
    if len(set(boundaries)) != len(boundaries):
        raise TaskFileError(f"group.boundaries is {list(boundaries)}: name each submodule once")
    if not boundaries and compression != "none":
        raise TaskFileError(f"group.compression is {compression!r}, but there are no group.boundaries to cross")
    if replicas == 1:
        if gradient_bits:
            raise TaskFileError("group.gradient_bits needs group.replicas: one replica exchanges no gradients")
        return GroupTerms(boundaries, compression)
    if mode is Mode.EXACT:
        raise TaskFileError(
            f"group.replicas is {replicas}: it needs training.mode tolerant, since in exact mode replicas do not share "
            "a batch; use [local_steps] there"
        )
    if compression.startswith("aqsgd"):
        raise TaskFileError(
            f"group.compression is {compression}, whose memory is of all samples at once, which replicas do not share: "
            f"write {compression.replace('aqsgd', 'tile')} or {compression.replace('aqsgd', 'direct')}"
        )
    if batch_size % replicas:
        raise TaskFileError(
            f"group.replicas is {replicas}, which training.batch_size, {batch_size}, has no equal parts for: choose a "
            "divisor"
        )
    return GroupTerms(boundaries, compression, replicas, gradient_bits)


def _local_steps(fields: Fields, mode: Mode, steps: int, interval: int) -> LocalSteps | None:
    if fields.empty:
        return None
    try:
        settings = LocalSteps(
            fields.whole("members", 2, 64),
            interval,
            fields.whole("bits", 2, 8, 8),
            fields.number("outer_learning_rate", LocalSteps.outer_learning_rate),
            fields.number("outer_momentum", LocalSteps.outer_momentum),
        )
    except UnsupportedError as error:
        raise TaskFileError(f"[local_steps]: {error}") from error
    fields.finish()
    if mode is not Mode.EXACT:
        raise TaskFileError("[local_steps] needs training.mode exact: members' runs are put together bit by bit")
    if steps % settings.round_steps:
        raise TaskFileError(
            f"training.steps is {steps}: with {settings.members} members of {interval} steps (checkpoint_interval) a "
            f"round has {settings.round_steps} steps; choose a multiple of that"
        )
    return settings


def _optimizer(fields: Fields, schedule_fields: Fields, steps: int) -> Optimizer:
    name = fields.choice("name", ["adamw", "sgd"])
    peak = fields.number("learning_rate")
    clip = fields.number("clip_norm", None)
    rate: Schedule = Constant(peak)
    if schedule_fields.choice("name", ["constant", "warmup_cosine"], "constant") == "warmup_cosine":
        rate = WarmupCosine(
            peak,
            schedule_fields.whole("warmup", 0, MAX_STEPS, 0),
            schedule_fields.whole("total", 1, MAX_STEPS, steps),
            schedule_fields.number("final", 0.0),
        )
    schedule_fields.finish()
    optimizer: Optimizer
    if name == "sgd":
        optimizer = SGD(
            rate,
            fields.number("momentum", 0.0),
            fields.number("weight_decay", 0.0),
            fields.flag("nesterov", False),
            clip,
        )
    else:
        first, second = fields.numbers("betas", 2, (0.9, 0.999))
        optimizer = AdamW(
            rate,
            (first, second),
            fields.number("epsilon", 1e-8),
            fields.number("weight_decay", 0.01),
            "all" if fields.choice("decay", ["all", "matrices"], "all") == "all" else "matrices",
            clip,
        )
    fields.finish()
    return optimizer


def wei_of(coins: Decimal, where: str) -> int:
    """An amount in whole coins as wei; `TaskFileError` if it is negative, too large, or finer than a wei."""
    # Compared before it is multiplied: decimals may have any exponent.
    if not 0 <= coins <= MAX_REWARD or (amount := coins * COIN) != amount.to_integral_value() or amount > MAX_REWARD:
        raise TaskFileError(
            f"{where} is {coins} coins: it must be from 0 to {MAX_REWARD // COIN} with at most 18 decimal places"
        )
    return int(amount)


def _amount(fields: Fields, key: str, required: bool) -> int | None:
    value = fields.decimal(key) if required else fields.decimal(key, None)
    return None if value is None else wei_of(value, fields.place(key))


def _market(fields: Fields, mode: Mode, segments: int) -> MarketTerms:
    lowest, highest = _amount(fields, "lowest_reward", True), _amount(fields, "highest_reward", True)
    assert lowest is not None
    assert highest is not None
    if lowest > highest:
        raise TaskFileError("market.lowest_reward is above market.highest_reward: the auction's price rises")
    verifiers = fields.whole("verifiers", 1, MAX_VERIFIERS)
    shares = fields.whole("segments_per_verifier", 1, MAX_SEGMENTS)
    if verifiers * shares > segments:
        raise TaskFileError(
            f"{verifiers} verifiers with {shares} segments each need {verifiers * shares} segments, the task has "
            f"{segments}: lower market.verifiers, market.segments_per_verifier or training.checkpoint_interval"
        )
    verifier_fee, profiler_fee = _amount(fields, "verifier_fee", False), _amount(fields, "profiler_fee", False)
    tolerant = mode is Mode.TOLERANT
    if not tolerant and profiler_fee is not None:
        raise TaskFileError("market.profiler_fee is set: exact tasks have no profiler; leave it out")
    most = min(segments, MAX_SEGMENTS)
    profiled = fields.whole("profile_segments", 1, most, usually_profiled(segments)) if tolerant else 0
    auction = fields.whole("auction_seconds", 0, MAX_SECONDS, 3600)
    training = fields.whole("training_seconds", 1, MAX_SECONDS, None)
    base = fields.text("base_task", None, most=66)
    base_task = 0
    if base is not None:
        try:
            base_task = int(base, 16)
        except ValueError:
            fields.refuse("base_task", base, "a task's number in hexadecimal, as `assay task list` shows it")
        if not 0 < base_task < 2**256:
            fields.refuse("base_task", base, "a task's number, as `assay task list` shows it")
    fields.finish()
    return MarketTerms(
        lowest, highest, verifiers, shares, profiled, verifier_fee, profiler_fee, auction, training, base_task
    )
