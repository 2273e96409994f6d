"""Looks at everything a node needs and says what is wrong and what to do about it.

Each check is a function of the settings that returns a `Finding` and never raises for a state of the machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from assay.chain.errors import ChainError
from assay.errors import AssayError
from assay.settings import Settings
from assay.storage.store import Store

RPC_SECONDS = 5.0
GIBIBYTE = 1 << 30
LOW_DISK = 10 * GIBIBYTE
FULL_DISK = 1 * GIBIBYTE
# Windows of the protocol are minutes and more; a clock wrong by less harms nobody.
CLOCK_TOLERANCE = 15.0  # seconds
OLD_BLOCK = 600.0  # seconds
TIME_ERROR = 5  # adjtimex(2): the kernel's clock is not synchronised


class State(Enum):
    """How a check ended. A warning leaves the node usable; a problem does not."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was looked at, how it is, and what to do where it is not well."""

    name: str
    state: State
    message: str
    advice: str = ""


def check_kernels(_settings: Settings) -> Finding:
    """Does this machine compute the bits of `binary32-1`? Compiles the native kernels where they are not cached."""
    from assay.arithmetic.self_check import EXPECTED_DIGEST, native_digest

    found = native_digest()
    if found == EXPECTED_DIGEST:
        return Finding("kernels", State.OK, f"the bits of binary32-1 ({found[:16]})")
    return Finding(
        "kernels",
        State.PROBLEM,
        f"this machine computes other bits: digest {found[:16]} instead of {EXPECTED_DIGEST[:16]}",
        "make no claims with it; reinstall the pinned numba and llvmlite, unset NUMBA_* and flush-to-zero options, and "
        "report the processor's model with this output",
    )


def check_compute(settings: Settings) -> Finding:
    """The device of native training and the processor's vector unit."""
    import torch

    from assay.engine.cpu.isa import available_threads, supported_units

    wanted = settings.text("compute.device")
    units = supported_units()
    processor = f"{available_threads()} threads, vector units {', '.join(units)}"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        device = f"{properties.name} with {properties.total_memory / GIBIBYTE:.0f} GiB"
        return Finding("compute", State.OK, f"PyTorch {torch.__version__}, {device}; {processor}")
    if wanted == "cuda":
        return Finding(
            "compute",
            State.PROBLEM,
            f"compute.device is cuda and PyTorch {torch.__version__} sees no such device",
            "install the driver and a CUDA build of PyTorch, or set compute.device to auto",
        )
    return Finding("compute", State.OK, f"PyTorch {torch.__version__} on the processor: {processor}")


def check_chain(settings: Settings) -> Finding:
    """Does the RPC endpoint answer, and is it at the present?"""
    from assay.chain.rpc import Chain

    chain = Chain(settings.text("chain.url"), timeout=RPC_SECONDS)
    configured = settings.origins["chain.url"] != "default"
    try:
        number = chain.ask("chain id", lambda: chain.web3.eth.chain_id, attempts=1)
        height = chain.ask("block number", lambda: chain.web3.eth.block_number, attempts=1)
        syncing = chain.ask("synchronisation", lambda: chain.web3.eth.syncing, attempts=1)
    except ChainError:
        return Finding(
            "chain",
            State.PROBLEM if configured else State.WARNING,
            f"no chain answers at {chain.url} (chain.url, from: {settings.origins['chain.url']})",
            "set chain.url (flag --rpc, variable ASSAY_CHAIN_URL), or start a local chain: assay chain up --port 8545",
        )
    if syncing:
        return Finding(
            "chain",
            State.PROBLEM,
            f"the node at {chain.url} is still synchronising, at block {height}",
            "wait until it is done",
        )
    return Finding("chain", State.OK, f"chain {number} at {chain.url}, block {height}")


def check_deployment(settings: Settings) -> Finding:
    """Does the file that says where the contracts are fit this client, and the chain, where one answers?"""
    from assay.chain.rpc import Chain
    from assay.market.deploy import check_deployment as check_contracts
    from assay.market.deployment import read_deployment

    name = settings.text("chain.deployment")
    if not name:
        return Finding(
            "deployment", State.WARNING, "no contracts are named", "set chain.deployment to a deployment's file"
        )
    chain = Chain(settings.text("chain.url"), timeout=RPC_SECONDS)
    try:
        deployment = read_deployment(Path(name))
        try:
            chain.ask("chain id", lambda: chain.web3.eth.chain_id, attempts=1)
        except ChainError:
            return Finding("deployment", State.OK, f"{name}, for chain {deployment.chain_id}")
        check_contracts(chain, deployment)
    except AssayError as error:
        return Finding("deployment", State.PROBLEM, str(error), "correct chain.deployment or chain.url")
    return Finding("deployment", State.OK, f"{name}: its contracts are on chain {deployment.chain_id}")


def open_store(settings: Settings) -> Store:
    """The store that the settings name. Raises `AssayError` where it cannot be used at all."""
    kind = settings.text("storage.kind")
    if kind == "ipfs":
        from assay.storage.ipfs import IpfsStore

        return IpfsStore(settings.text("storage.ipfs_address"), timeout=RPC_SECONDS)
    if kind == "s3":
        from assay.storage.s3 import S3Store

        bucket, endpoint = settings.text("storage.s3_bucket"), settings.text("storage.s3_endpoint")
        return S3Store(bucket, endpoint=endpoint or None, timeout=RPC_SECONDS)
    from assay.storage.directory import DirectoryStore

    return DirectoryStore(Path(settings.text("storage.folder")))


def check_storage(settings: Settings) -> Finding:
    """Can the store for task files be used?"""
    try:
        return Finding("storage", State.OK, open_store(settings).check())
    except AssayError as error:
        return Finding("storage", State.PROBLEM, str(error), "see storage.kind and its settings: assay config show")


def check_disk(settings: Settings) -> Finding:
    """Is there room where the node writes?"""
    folders = [Path(settings.text("state.folder"))]
    if settings.text("storage.kind") == "directory":
        folders.append(Path(settings.text("storage.folder")))
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in folders}
    folder, least = min(free.items(), key=lambda item: item[1])
    message = f"{least / GIBIBYTE:.1f} GiB free in {folder}"
    if least < LOW_DISK:
        state = State.PROBLEM if least < FULL_DISK else State.WARNING
        advice = "free some space, or set state.folder and storage.folder to a larger disk"
        return Finding("disk", state, message, advice)
    if not os.access(_existing(folder), os.W_OK):
        return Finding("disk", State.PROBLEM, f"{folder} cannot be written", "check who owns it, or set state.folder")
    return Finding("disk", State.OK, message)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def check_clock(settings: Settings) -> Finding:
    """Does the clock agree with the chain's, and is it kept right?"""
    age = _age_of_latest_block(settings)
    if age is not None and age < -CLOCK_TOLERANCE:
        return Finding(
            "clock",
            State.WARNING,
            f"the latest block is {-age:.0f} s ahead of this clock",
            "synchronise the clock (timedatectl set-ntp true), unless this chain's time was moved by hand",
        )
    if age is not None and age > OLD_BLOCK:
        return Finding(
            "clock",
            State.WARNING,
            f"the latest block is {age:.0f} s old by this clock",
            "a chain without transactions makes no blocks; otherwise the node is behind or this clock is ahead",
        )
    if sys.platform == "linux" and _kernel_clock_state() == TIME_ERROR:
        return Finding(
            "clock",
            State.WARNING,
            "nothing keeps this machine's clock right",
            "switch time synchronisation on (timedatectl set-ntp true)",
        )
    return Finding("clock", State.OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _age_of_latest_block(settings: Settings) -> float | None:
    """Seconds between the latest block's time and now; None where no chain answers."""
    from assay.chain.rpc import Chain

    chain = Chain(settings.text("chain.url"), timeout=RPC_SECONDS)
    try:
        block = chain.ask("latest block", lambda: chain.web3.eth.get_block("latest"), attempts=1)
    except ChainError:
        return None
    return time.time() - float(block["timestamp"])


def _kernel_clock_state() -> int:
    """What adjtimex(2) returns when it changes nothing: the state of the kernel's clock, or -1."""
    # struct timex has about 208 bytes; its first field, `modes`, is 0 for asking only.
    buffer = ctypes.create_string_buffer(512)
    return int(ctypes.CDLL(None, use_errno=True).adjtimex(buffer))


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    check_kernels,
    check_compute,
    check_chain,
    check_deployment,
    check_storage,
    check_disk,
    check_clock,
)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, one after the other."""
    for check in CHECKS:
        yield check(settings)
