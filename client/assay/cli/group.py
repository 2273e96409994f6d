"""`assay group`: plan a group's placement, measure its links, try it on a simulated network."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from assay.cli.group_market import COMMANDS
from assay.cli.group_run import meet, member
from assay.cli.options import json_option, print_written


@click.group()
def group() -> None:
    """Train one task with several machines, and solve tasks of the market as one solver."""


for command in (*COMMANDS, meet, member):
    group.add_command(command)


@group.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@json_option
def new(folder: Path, as_json: bool) -> None:
    """Write a cluster.toml and a group.toml to start from into FOLDER, with every key explained."""
    from assay.templates import GROUP, write_templates

    print_written(write_templates(GROUP, folder), as_json)


@group.command()
@click.argument("cluster", type=click.Path(path_type=Path))
@click.option(
    "--task",
    "task_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The task.toml to plan for: its [group] or [local_steps] says how many replicas there are, and what is "
    "compressed.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the plan here (TOML) for the members.")
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw the plan as an SVG file.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the search; same seed, same plan.")
@click.option("--starts", type=int, default=3, show_default=True, help="Random starts beside the two built layouts.")
@click.option("--iterations", type=int, default=300_000, show_default=True, help="Annealing moves from each start.")
@click.option("--bound/--no-bound", default=False, help="Also prove how good a placement could be (up to a minute).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def plan(
    cluster: Path,
    task_path: Path | None,
    output: Path | None,
    picture: Path | None,
    seed: int,
    starts: int,
    iterations: int,
    bound: bool,
    as_json: bool,
) -> None:
    """Place the members of CLUSTER (a cluster.toml): who holds which layers and who sends to whom.

    With --task the plan has the replicas that the task declares, or as many as CLUSTER asks for if each of them has
    equally many of the task's parts of a batch; and what the task compresses counts instead of CLUSTER's compression.
    Of a task with [local_steps] the plan has one stage and a replica for each member of a round. Its predicted step is
    one that all members take at once, each of its own; the exchange at the end of a round is spread over the steps.
    """
    # Compiled kernels and tables are loaded only when the command runs, so that --help stays quick.
    from dataclasses import asdict

    from assay.group.bound import proven_bound
    from assay.group.cluster_file import read_cluster_file
    from assay.group.cost import cost_tables
    from assay.group.picture import draw_svg, draw_text
    from assay.group.plan import choose_plan, write_plan
    from assay.group.rounds import RoundTime
    from assay.group.search import SearchSettings
    from assay.tasks.declared import declared_by
    from assay.tasks.task_file import read_task_file

    description = read_cluster_file(cluster)
    said = description.compression
    if task_path is not None:
        description = description.for_task(declared_by(read_task_file(task_path)))
    started = time.perf_counter()
    made, costs = choose_plan(
        description.cluster,
        [(description.costs(*shape), description.compression) for shape in description.shapes],
        SearchSettings(seed, starts, iterations),
    )
    searched = time.perf_counter() - started
    tables = cost_tables(description.cluster, costs)
    local = None if description.declared is None else description.declared.local_steps
    rounds = None if local is None else RoundTime.of(local, made.time)
    lower = proven_bound(description.cluster, costs, made.time.communication) if bound else None
    if output is not None:
        write_plan(made, output)
    region = {device.name: name for device, name in zip(description.cluster.devices, description.regions, strict=True)}
    if picture is not None:
        picture.write_text(draw_svg(made, description.cluster, tables, region), encoding="utf-8")
    if as_json:
        click.echo(
            json.dumps(
                {
                    "stages": made.stages,
                    "replicas": made.replicas,
                    "layers": made.layers,
                    "pipelines": made.pipelines,
                    "spares": made.spares,
                    "compression": made.compression,
                    "declared": None if description.declared is None else asdict(description.declared),
                    "step_seconds": made.time.total,
                    "communication_seconds": made.time.communication,
                    "data_parallel_seconds": made.time.data_parallel,
                    "pipeline_seconds": made.time.pipeline,
                    "compute_seconds": made.time.compute,
                    "stall_seconds": made.time.stalls,
                    "round": None if rounds is None else asdict(rounds),
                    "random_seconds": made.random_seconds,
                    "naive_seconds": made.naive_seconds,
                    "lower_bound_seconds": None if lower is None else lower.seconds,
                    "lower_bound_method": None if lower is None else lower.method,
                    "exact": made.exact,
                    "search_seconds": searched,
                }
            )
        )
        return
    if task_path is not None and description.declared is not None:
        click.echo(f"taken from {task_path}: {description.declared.in_words(made.replicas)}")
        if said != made.compression:
            click.echo(f"  so compression is {made.compression}, whatever {cluster} says of it ({said})")
        click.echo()
    click.echo(draw_text(made, description.cluster, tables, region))
    how = "every placement tried" if made.exact else f"seed {seed}"
    click.echo(f"\n{made.stages} stages x {made.replicas} replicas, found in {searched:.1f} s ({how})")
    click.echo(
        f"predicted step      {made.time.total:10.4f} s  (exchange {made.time.data_parallel:.4f}, pipeline "
        f"{made.time.pipeline:.4f}, compute {made.time.compute:.4f}, stalls {made.time.stalls:.4f})"
    )
    if rounds is not None:
        click.echo(rounds.in_words())
    for label, seconds in (("members as listed", made.naive_seconds), ("random placement", made.random_seconds)):
        times = f"  ({seconds / made.time.total:.2f} times as long)" if made.time.total else ""  # one member, no speed
        click.echo(f"{label:<19} {seconds:10.4f} s{times}")
    if lower is not None:
        proven = " (proven: every better combination excluded)" if lower.method == "enumeration" else ""
        click.echo(f"lower bound         {lower.seconds:10.4f} s  of communication{proven}")
    if made.spares:
        click.echo(f"spares: {', '.join(made.spares)}")


@group.command()
@click.argument("scenario", default="slow_link")
@click.option("--mode", default="auto", show_default=True, help="auto, namespaces, held or loopback.")
@click.option(
    "--compression", "compressions", multiple=True, help="Setting to try; repeat to compare [none, aqsgd-4-8]."
)
@click.option("--layers", default=4, show_default=True, help="Layers of the character GPT, dealt out evenly.")
@click.option(
    "--stages", default=2, show_default=True, help="Pipeline stages; member r * stages + s is device of that number."
)
@click.option("--replicas", default=1, show_default=True, help="Pipelines side by side.")
@click.option("--microbatches", default=8, show_default=True)
@click.option("--batch", default=256, show_default=True, help="Samples of 64 characters in a step, over all replicas.")
@click.option("--steps", default=4, show_default=True, help="Timed steps.")
@click.option("--text", default="", help="A text file to train on instead of a made one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def simulate(
    scenario: str,
    mode: str,
    compressions: tuple[str, ...],
    layers: int,
    stages: int,
    replicas: int,
    microbatches: int,
    batch: int,
    steps: int,
    text: str,
    as_json: bool,
) -> None:
    """Train a character GPT over the links of SCENARIO, all members on this machine."""
    from dataclasses import asdict

    from assay.group.compression.choice import parse_compression
    from assay.group.scenarios import load_scenario
    from assay.group.simulate.member import Trial
    from assay.group.simulate.run import simulated_network

    names = compressions or ("none", "aqsgd-4-8")
    for name in names:
        parse_compression(name)
    split = tuple(layers * (s + 1) // stages - layers * s // stages for s in range(stages))
    cluster = load_scenario(scenario).cluster
    reports = {}
    with simulated_network(
        cluster.subset(range(min(cluster.network.size, stages * replicas))).network, mode
    ) as network:
        for name in names:
            trial = Trial(
                split, replicas, microbatches, batch, samples=max(256, batch), compression=name, steps=steps, text=text
            )
            reports[name] = network.run(trial)
    if as_json:
        click.echo(json.dumps({name: asdict(report) for name, report in reports.items()}))
        return
    first = reports[names[0]].median_seconds
    for name, report in reports.items():
        click.echo(
            f"{name:<14} {report.median_seconds:8.3f} s a step  {first / report.median_seconds:5.2f} x   forward "
            f"{report.forward_bytes / 1e6:.2f} MB, backward {report.backward_bytes / 1e6:.2f} MB   loss "
            f"{report.losses[-1]:.4f}   ({report.mode})"
        )


@group.command()
@click.argument("peers", nargs=-1)
@click.option("--name", default="", help="This member's name in cluster.toml [the host's name].")
@click.option("--serve", default="", metavar="HOST:PORT", help="Answer others' measurements here until interrupted.")
@click.option("--megabytes", default=8, show_default=True, help="Size of the transfer that measures bandwidth.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of TOML.")
def measure(peers: tuple[str, ...], name: str, serve: str, megabytes: int, as_json: bool) -> None:
    """Measure the links to PEERS (name=host:port) and this machine's speed; prints entries for cluster.toml."""
    import socket
    from dataclasses import asdict

    from assay.group.errors import ClusterError
    from assay.group.measure import measure_flops, measure_link, measurement_server, render_links

    def address(text: str) -> tuple[str, int]:
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit():
            raise ClusterError(f"{text!r} is not host:port")
        return host, int(port)

    if serve:
        with measurement_server(*address(serve)) as port:
            click.echo(f"answering measurements on port {port}; stop with Ctrl-C")
            while True:
                time.sleep(1)
    if not peers:
        raise ClusterError("name the peers to measure as name=host:port, or listen with --serve host:port")
    name = name or socket.gethostname()
    links = {}
    for peer in peers:
        label, _, where = peer.partition("=")
        if not where:
            raise ClusterError(f"{peer!r} is not name=host:port")
        links[label] = measure_link(*address(where), transfer_bytes=megabytes << 20)
    flops = measure_flops()
    if as_json:
        click.echo(json.dumps({"name": name, "flops": flops, "links": {k: asdict(v) for k, v in links.items()}}))
    else:
        click.echo(render_links(name, flops, links), nl=False)
