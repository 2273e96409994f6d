"""`assay group meet` and `assay group member`: the processes of a group that trains one task."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import json_option

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore


@click.command()
@click.option("--listen", default="0.0.0.0:29400", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@json_option
def meet(listen: str, as_json: bool) -> None:
    """Run the place where a group's members meet, until interrupted. It sees plans and roots, no tensors."""
    host, port = _address(listen)
    store = open_meeting_place(host, port)
    if as_json:
        click.echo(json.dumps({"host": host, "port": store.port}))
    else:
        click.echo(f"members meet at {host}:{store.port}; stop with Ctrl-C when the group is done")
    while True:
        time.sleep(1)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", required=True, help="This member's name in the plan.")
@click.option("--plan", "plan_path", required=True, type=click.Path(dir_okay=False, path_type=Path), help="plan.toml")
@click.option("--cluster", required=True, type=click.Path(dir_okay=False, path_type=Path), help="cluster.toml")
@click.option("--meet", "meeting", required=True, metavar="HOST:PORT", help="Where `assay group meet` runs.")
@click.option("--folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Own work folder.")
@click.option("--interface", default="lo", show_default=True, help="Network interface to the other members.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option(
    "--keystore", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Key that signs messages."
)
@click.option("--password-file", help="Password of the keystore [ASSAY_PASSWORD, or a prompt].")
@click.option("--signer", "signers", multiple=True, metavar="NAME=ADDRESS", help="Who signs for a member; repeat.")
@click.option("--task", "task_id", default=0, help="Number of the task, in what is signed.")
@click.option("--grace", "grace_seconds", default=30.0, show_default=True, help="Seconds to wait for lost members.")
@click.option("--patience", "timeout_seconds", default=120.0, show_default=True, help="Seconds until one is lost.")
@click.option("--deadline", "deadline_seconds", default=86400.0, show_default=True, help="Give up after; seconds.")
@click.option("--slow-factor", default=0.0, show_default=True, help="Replace members so many times slower; 0: never.")
@click.option(
    "--audit-rate",
    default=0.1,
    show_default=True,
    help="Fraction of segments audited, if signed; 0 signs for no stage and keeps no log of messages.",
)
@click.option("--keepers", type=click.IntRange(1), default=2, show_default=True, help="Members that keep the proof.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where tolerant tasks are trained.",
)
@json_option
def member(
    bundle: Path,
    name: str,
    plan_path: Path,
    cluster: Path,
    meeting: str,
    folder: Path,
    interface: str,
    threads: int,
    keystore: Path | None,
    password_file: str | None,
    signers: tuple[str, ...],
    task_id: int,
    grace_seconds: float,
    timeout_seconds: float,
    deadline_seconds: float,
    slow_factor: float,
    audit_rate: float,
    keepers: int,
    device: str,
    as_json: bool,
) -> None:
    """Train the task of BUNDLE as one member of a group. An exact task ends with the proof that one machine would have;
    a tolerant one is trained with PyTorch's kernels. Of a task with [local_steps] every member trains whole segments,
    side by side with the others, if the plan has one stage.

    On links with a long delay, `sysctl -w net.ipv4.tcp_slow_start_after_idle=0` on every member keeps connections from
    beginning slowly again whenever a member has computed for a while."""
    from assay.accounts import open_keystore, read_password
    from assay.group.errors import ClusterError
    from assay.group.execution.run import Seat, run_group_training
    from assay.group.plan import read_plan
    from assay.market.group_agreement import account_of
    from assay.tasks.bundle import load_bundle
    from assay.training.task import Mode

    host, port = _address(meeting)
    addresses = {}
    for signer in signers:
        label, equals, address = signer.partition("=")
        if not equals:
            raise ClusterError(f"{signer!r} is not NAME=ADDRESS")
        addresses[label] = account_of(address)
    agreed = read_plan(plan_path)
    unsigned = [each for each in (*agreed.members, *agreed.spares) if each not in addresses]
    if keystore is not None and unsigned:
        raise ClusterError(
            f"--signer does not say who signs for {', '.join(unsigned)}: with --keystore, every member needs one"
        )
    private_key = ""
    if keystore is not None:
        account = open_keystore(keystore, read_password(f"password of {keystore}: ", password_file))
        private_key = "0x" + bytes(account.key).hex()
    seat = Seat(
        name, cluster, host, port, private_key, addresses, task_id, interface, threads, grace_seconds, timeout_seconds,
        deadline_seconds, slow_factor, keepers, audit_rate, device,
    )  # fmt: skip
    loaded = load_bundle(bundle)
    graph = loaded.graph if loaded.task.mode is Mode.TOLERANT else None
    done = run_group_training(loaded.task, agreed, seat, folder, graph, loaded.manifest.local_steps)
    not_shared = str(done.report.get("not_shared", ""))
    result = {
        "name": name,
        "leader": done.leader,
        "proof": str(done.proof.folder) if done.proof else None,
        "final_root": done.roots[-1].hex(),
        "checkpoints": len(done.roots),
        "members": done.members,
        "generations": done.generations,
        "failures": list(done.failures),
        "not_shared": not_shared,
    }
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(
        f"trained with {', '.join(done.members)} in {done.generations} generations; final root {done.roots[-1].hex()}"
    )
    if not_shared:
        click.echo(f"  replicas divided the layers and shared no batch: {not_shared}")
    for failure in done.failures:
        click.echo(f"  survived: {failure}")
    if done.proof is not None:
        click.echo(f"the proof lies in {done.proof.folder}" + ("; this member registers it" if done.leader else ""))


def open_meeting_place(host: str, port: int) -> TCPStore:
    """A store that listens there and nowhere else; on all addresses for 0.0.0.0. Raises ClusterError if it cannot."""
    from torch._C._distributed_c10d import TCPStore

    from assay.group.errors import ClusterError

    name = host.strip("[]")
    try:
        if name == "0.0.0.0" and socket.has_dualstack_ipv6():
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            listener = socket.create_server((name, port), family=socket.AF_INET6 if ":" in name else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise ClusterError(f"cannot listen on {host}:{port}: {error}; choose another address or port") from error
    port = int(listener.getsockname()[1])
    # Left to itself it would listen on every address, whatever host it is given.
    return TCPStore(name, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


def _address(text: str) -> tuple[str, int]:
    from assay.group.errors import ClusterError

    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"{text!r} is not host:port")
    return host, int(port)
