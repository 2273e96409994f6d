"""What following and verifying cost: a watcher of many open tasks, and a verification beside the training it checks.

Both run the market's own code: a whistleblower's node against a local chain, and a verifier's workbench on the files
that a solver's workbench has published.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.chain.local import LocalChainError
from assay.market.deployment import write_deployment
from assay.market.local import LocalMarket, local_market
from assay.market.types import Posting
from assay.storage.directory import DirectoryStore
from assay.tasks.build import build_bundle
from assay.tasks.bundle import Bundle
from assay.tasks.posting import make_posting
from assay.tasks.proof import fetch_checkpoint, fetch_proof_manifest, publish_proof
from assay.tasks.publish import fetch_bundle, publish_bundle
from assay.tasks.task_file import TaskFile, read_task_file
from assay.training.replay import Replayer
from assay.training.train import train

Say = Callable[[str], None]

MODEL = """import torch


def make_model():
    return torch.nn.Sequential(
        torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)
    )
"""
TASK = """title = "a perceptron on random images"
[model]
source = "model.py:make_model"
[data]
file = "samples.npz"
tensors = ["images", "labels"]
[training]
loss = "cross_entropy"
steps = {steps}
batch_size = 128
checkpoint_interval = {interval}
mode = "exact"
seed = 7
[optimizer]
name = "sgd"
learning_rate = 0.05
momentum = 0.9
[market]
lowest_reward = 1
highest_reward = 2
verifiers = 1
segments_per_verifier = {drawn}
"""
BATCH = 80
"""Tasks posted with one request: a block takes no more of them."""
POSTING_SECONDS = 600.0
EXCESS_LIMIT = 0.10
MEMORY_LIMIT_MIB = 200.0
CORE_LIMIT = 0.05


@dataclass(frozen=True)
class MarketBenchSettings:
    """How much is measured. `drawn` of the `segments` are replayed."""

    tasks: int = 1000
    seconds: float = 30.0
    segments: int = 20
    interval: int = 50
    drawn: int = 4


def make_task(folder: Path, settings: MarketBenchSettings) -> tuple[TaskFile, Bundle]:
    """A perceptron of 670 000 parameters on 4 096 random images."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    images = random.standard_normal((4096, 784)).astype(np.float32)
    np.savez(folder / "samples.npz", images=images, labels=random.integers(0, 10, 4096).astype(np.int32))
    (folder / "model.py").write_text(MODEL)
    text = TASK.format(steps=settings.segments * settings.interval, interval=settings.interval, drawn=settings.drawn)
    (folder / "task.toml").write_text(text)
    described = read_task_file(folder / "task.toml")
    return described, build_bundle(described, folder / "bundle")


# --- verification ----------------------------------------------------------------------------------------------------


def verification_cost(settings: MarketBenchSettings, say: Say) -> dict[str, Any]:
    """Seconds of a training with its proof, and of a verifier's work from the registered proof to its claim."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as place:
        folder = Path(place)
        _, bundle = make_task(folder / "task", settings)
        store = DirectoryStore(folder / "store")
        locations = publish_bundle(store, bundle)
        begin = time.perf_counter()
        proof = train(bundle.task, folder / "run")
        published = publish_proof(store, proof)
        training = time.perf_counter() - begin
        say(f"training with its proof: {training:.2f} s for {bundle.task.steps} steps")

        begin = time.perf_counter()
        fetched = fetch_bundle([store], locations, folder / "verifier")
        task = fetched.task
        manifest = fetch_proof_manifest([store], published, folder / "verifier", proof.root, task.segments)
        fetching = time.perf_counter() - begin
        replayer = Replayer(task)
        step = max(1, task.segments // settings.drawn)
        for segment in range(0, step * settings.drawn, step):
            start = fetch_checkpoint([store], manifest, segment, task.program, folder / "verifier")
            leaf = replayer.replay(segment, start, segment).leaf
            assert leaf.end_root == manifest.roots[segment + 1]
        verification = time.perf_counter() - begin
    fraction = settings.drawn / settings.segments
    excess = verification / training - fraction
    say(
        f"verification: {verification:.2f} s, {100 * verification / training:.1f} % of the training; "
        f"{100 * fraction:.0f} % were drawn"
    )
    return {
        "training_seconds": round(training, 3),
        "verification_seconds": round(verification, 3),
        "fetching_seconds": round(fetching, 3),
        "drawn_fraction": fraction,
        "verification_of_training": round(verification / training, 4),
        "excess": round(excess, 4),
        "excess_limit": EXCESS_LIMIT,
        "within_limit": excess <= EXCESS_LIMIT,
    }


# --- watching --------------------------------------------------------------------------------------------------------


def watching_cost(settings: MarketBenchSettings, say: Say) -> dict[str, Any]:
    """What a whistleblower's process takes that follows many open tasks, a look a second and a block a second."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as place, local_market(block_time=1.0) as local:
        folder = Path(place)
        small = replace(settings, segments=4, interval=2, drawn=2)
        described, bundle = make_task(folder / "task", small)
        locations = publish_bundle(DirectoryStore(folder / "store"), bundle)
        posting = make_posting(bundle, described.market, locations, local.market.parameters)
        say(f"posting {settings.tasks} tasks")
        post_many(local, posting, settings.tasks)
        write_deployment(local.deployment, folder / "deployment.json")
        words = [local.chain.url, str(folder / "deployment.json"), str(folder / "state"), str(settings.seconds)]
        say(f"following them for {settings.seconds:.0f} s")
        done = subprocess.run(
            [sys.executable, "-m", "assay.bench.watcher", *words],
            input=local.chain.private_keys[2],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    say(f"{found['peak_mib']:.0f} MiB at most, {100 * found['core_share']:.1f} % of a core")
    within = found["peak_mib"] < MEMORY_LIMIT_MIB and found["core_share"] < CORE_LIMIT
    return {**found, "memory_limit_mib": MEMORY_LIMIT_MIB, "core_limit": CORE_LIMIT, "within_limit": within}


def post_many(local: LocalMarket, posting: Posting, number: int) -> None:
    """Post a task again and again, each with a seed of its own, from an account that anvil signs for.

    Anvil carries the requests of a batch out side by side and may drop some: what is missing is sent again.
    """
    market, sender = local.market, local.chain.addresses[1]
    web3 = market.chain.web3
    account = web3.to_checksum_address(sender)
    provider = web3.provider
    provider.make_request("anvil_setBalance", [sender, hex(10**24)])  # type: ignore[arg-type]
    escrow = market.tasks.escrow_of(posting)
    end = time.monotonic() + POSTING_SECONDS
    while (done := web3.eth.get_transaction_count(account)) < number:
        requests = []
        for seed in range(done, min(done + BATCH, number)):
            call = market.tasks.submit(replace(posting, task_seed=seed), escrow)
            transaction = {
                "from": sender, "to": call.to, "data": "0x" + call.data.hex(), "value": hex(escrow),
                "gas": hex(1_000_000), "nonce": hex(seed),
            }  # fmt: skip
            requests.append(("eth_sendTransaction", [transaction]))
        answers = provider.make_batch_request(requests)  # type: ignore[attr-defined]
        if time.monotonic() > end:
            raise LocalChainError(f"anvil has taken {done} of {number} tasks: its last answers were {answers[:1]}")
        time.sleep(1.2)


def run_market_bench(
    settings: MarketBenchSettings, figures: tuple[str, ...], say: Say = lambda _: None
) -> dict[str, Any]:
    """The figures asked for, keyed as `assay bench market --json` prints them."""
    found: dict[str, Any] = {}
    if "verification" in figures:
        found["verification"] = verification_cost(settings, say)
    if "watching" in figures:
        found["watching"] = watching_cost(settings, say)
    return found
