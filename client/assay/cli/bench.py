"""`assay bench`: figures of this machine, as ratios measured in one process run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from assay.cli.options import json_option


@click.group()
def bench() -> None:
    """Measure kernels, hashing, gas, the market's costs and group training."""


def _print(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        if isinstance(value, dict):
            _print({f"{name}.{key}": figure for key, figure in value.items()}, as_json=False)
        else:
            click.echo(f"{name} = {value}")


def _device_option(help_text: str) -> Callable[[Any], Any]:
    return click.option(
        "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help=help_text
    )


def _say(text: str) -> None:
    click.echo(text, err=True)


@bench.command()
@click.option("--repetitions", type=click.IntRange(3, 1000), default=15, show_default=True, help="Pairs a figure.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Threads of both sides; 0: every processor.")
@click.option(
    "--figure", "figures", multiple=True, type=click.Choice(["step", "matmul", "native", "proof", "replay", "hash"]),
    help="Measure only this; may be repeated.",
)  # fmt: skip
@_device_option("Of native training; on cuda, only the figure native is measured.")
@json_option
def engine(repetitions: int, threads: int, figures: tuple[str, ...], device: str, as_json: bool) -> None:
    """Canonical and native training beside PyTorch, hashing, and the cost of the proof (higher is better, but for
    proof_overhead)."""
    from assay.bench.engine import FIGURES, EngineBenchSettings, run_engine_bench

    settings = EngineBenchSettings(repetitions, threads, figures or FIGURES, device)
    _print(run_engine_bench(settings, _say), as_json)


@bench.command()
@click.option("--text", type=click.Path(exists=True, dir_okay=False), help="Text to train on instead of made text.")
@click.option(
    "--pairs", type=click.IntRange(1, 100), default=3, show_default=True,
    help="Runs of each kind on slow links and of each pipeline; twice as many on fast links.",
)  # fmt: skip
@click.option(
    "--figure", "figures", multiple=True,
    type=click.Choice(["placement", "compression", "throughput", "execution", "local-steps"]),
    help="Measure only this; may be repeated.",
)  # fmt: skip
@_device_option("Of native execution; on cuda, nothing else is measured.")
@json_option
def group(text: str | None, pairs: int, figures: tuple[str, ...], device: str, as_json: bool) -> None:
    """Placement on the published networks, losses and bytes under compression, throughput on slow links, and market
    tasks trained by two members beside one: in stages, beside PyTorch's own pipeline, signed and not, and side by side
    with local steps."""
    from assay.bench.group import FIGURES, GroupBenchSettings, run_group_bench

    settings = GroupBenchSettings(
        text=Path(text) if text else None, pairs=pairs, device=device, figures=figures or FIGURES
    )
    _print(run_group_bench(settings, _say), as_json)


@bench.command()
@json_option
def gas(as_json: bool) -> None:
    """Gas of a whole dispute over a 10-million-parameter program, of its moves, and of one fused multiply-add; sizes of
    the contracts."""
    from assay.bench.gas import run_gas_bench

    _print(run_gas_bench(_say), as_json)


@bench.command()
@click.option(
    "--figure", "figures", multiple=True, type=click.Choice(["verification", "watching"]),
    help="Measure only this; may be repeated.",
)  # fmt: skip
@click.option("--tasks", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Open tasks followed.")
@click.option("--seconds", type=click.FloatRange(1), default=30, show_default=True, help="How long they are followed.")
@json_option
def market(figures: tuple[str, ...], tasks: int, seconds: float, as_json: bool) -> None:
    """Cost of a verification beside the training it checks, and of following many open tasks."""
    from assay.bench.market import MarketBenchSettings, run_market_bench

    settings = MarketBenchSettings(tasks, seconds)
    _print(run_market_bench(settings, figures or ("verification", "watching"), _say), as_json)


@bench.command()
@click.option(
    "--model", "models", multiple=True, type=click.Choice(["mlp", "cnn", "gpt", "wide-cnn", "tanh"]),
    help="May be repeated; the first three unless told otherwise.",
)  # fmt: skip
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["fp32", "tf32", "bf16"]),
    help="Declared; may be repeated.",
)  # fmt: skip
@click.option("--segments", type=click.IntRange(4, 1000), default=8, show_default=True, help="Segments a forged proof.")
@click.option("--interval", type=click.IntRange(2), default=5, show_default=True, help="Steps a segment.")
@click.option("--honest", type=click.IntRange(1), default=40, show_default=True, help="Honest segments a model.")
@click.option(
    "--run", "honest_run", type=click.IntRange(1), default=20, show_default=True, help="Segments an honest run."
)
@click.option("--profiled", type=click.IntRange(1), default=12, show_default=True, help="Segments a profile covers.")
@click.option(
    "--first-run", type=click.IntRange(0), default=0, help="Number of the first honest run: a study in parts."
)
@click.option("--full", is_flag=True, help="10 000 honest segments of the MLP, 1 000 of the CNN and the GPT: an hour.")
@click.option("--no-attacks", is_flag=True, help="Honest runs only.")
@_device_option("What honest runs are trained on; everything else is on the processor.")
@click.option(
    "--saved", multiple=True, type=click.Path(exists=True, dir_okay=False), help="Show earlier --json output."
)
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="PNG of both distributions.")
@click.option("--markdown", "markdown_path", type=click.Path(dir_okay=False, path_type=Path), help="Tables as a page.")
@json_option
def separation(
    models: tuple[str, ...],
    precisions: tuple[str, ...],
    segments: int,
    interval: int,
    honest: int,
    honest_run: int,
    profiled: int,
    first_run: int,
    full: bool,
    no_attacks: bool,
    device: str,
    saved: tuple[str, ...],
    plot_path: Path | None,
    markdown_path: Path | None,
    as_json: bool,
) -> None:
    """Distances of honest runs and of forged proofs, in thresholds, and how often a draw finds the forged ones."""
    from assay.bench.separation import SeparationSettings, render, run_separation_bench
    from assay.program.sections import Precision

    if saved:
        parts = [json.loads(Path(name).read_text()) for name in saved]
    else:
        defaults = SeparationSettings()
        settings = SeparationSettings(
            models or defaults.models,
            tuple(Precision(name) for name in precisions) or defaults.precisions,
            segments=segments,
            interval=interval,
            honest=honest,
            honest_run=honest_run,
            profiled=profiled,
            first_run=first_run,
            full=full,
            attacks=not no_attacks,
            device=device,
        )
        parts = [run_separation_bench(settings, _say)]
    studies = render(parts, plot_path, markdown_path)
    if as_json:
        _print({"studies": studies}, as_json)


@bench.command()
@click.option("--tasks", type=click.IntRange(1, 100_000), default=300, show_default=True)
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same misfortunes.")
@click.option("--at-once", type=click.IntRange(1, 200), default=8, show_default=True, help="Tasks that run together.")
@click.option("--small", is_flag=True, help="One or two of a kind instead of several.")
@click.option("--kills", default=0.004, show_default=True, help="Chance of a kill, a role and block.")
@click.option("--reorganisations", default=0.02, show_default=True, help="Chance of a reorganisation, a block.")
@click.option("--store-faults", default=0.03, show_default=True, help="Chance of a fault, a call of a store.")
@click.option("--endpoint-faults", default=0.002, show_default=True, help="Chance of a fault, a call of the chain.")
@click.option("--folder", type=click.Path(file_okay=False), help="Keep state folders and files here.")
@json_option
def load(
    tasks: int,
    seed: int,
    at_once: int,
    small: bool,
    kills: float,
    reorganisations: float,
    store_faults: float,
    endpoint_faults: float,
    folder: str | None,
    as_json: bool,
) -> None:
    """Play many tasks with honest, dishonest and absent roles on a local chain while roles are killed, blocks dropped,
    and stores and the endpoint fail; then examine the accounts. Ends with exit code 1 where they do not balance."""
    import tempfile
    from pathlib import Path

    from assay.bench.load.market import LoadSettings, run_load

    settings = LoadSettings(
        tasks,
        seed,
        at_once,
        not small,
        kills,
        reorganisations,
        store_faults=store_faults,
        endpoint_faults=endpoint_faults,
    )
    with tempfile.TemporaryDirectory(prefix="assay-load-") as temporary:
        figures = run_load(settings, Path(folder) if folder else Path(temporary), _say)
    _print(figures, as_json)
    if any(figures[name] for name in ("faults_of_the_accounts", "done_twice", "left_over_wei", "unfinished")):
        raise SystemExit(1)
