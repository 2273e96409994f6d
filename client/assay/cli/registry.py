"""Every subcommand of `assay`: where it lives and the line `assay --help` shows for it.

Subcommands are imported only when they are called, so that `assay --version` does not wait for PyTorch. To add one,
write a click command or group in a module of its own and name it here. A row whose module is not there is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CommandEntry:
    """One row of the table: the module that holds the command, the attribute in it, and its one-line help."""

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, CommandEntry] = {
    "task": CommandEntry("assay.cli.task", "task", "Trace, submit, inspect and cancel training tasks."),
    "solver": CommandEntry("assay.cli.solver", "solver", "Take tasks, train them, register proofs of learning."),
    "verifier": CommandEntry("assay.cli.verifier", "verifier", "Replay drawn segments and claim the result."),
    "whistleblower": CommandEntry("assay.cli.whistleblower", "whistleblower", "Check verifiers' claims."),
    "node": CommandEntry("assay.cli.node", "node", "Run several roles with one account."),
    "court": CommandEntry("assay.cli.court", "court", "Follow disputes."),
    "status": CommandEntry("assay.cli.status", "status", "Show the market and an account at a glance."),
    "account": CommandEntry("assay.cli.account", "account", "Make and inspect key files and balances."),
    "config": CommandEntry("assay.cli.config", "config", "Show settings and where they come from."),
    "group": CommandEntry("assay.cli.group", "group", "Train one task with several machines."),
    "deploy": CommandEntry("assay.cli.deploy", "deploy", "Deploy the contracts to a chain."),
    "chain": CommandEntry("assay.cli.chain", "chain", "Run a local chain."),
    "economics": CommandEntry("assay.cli.economics", "economics", "Compute deposits, rates and expected gains."),
    "bench": CommandEntry("assay.cli.bench", "bench", "Measure kernels, gas, the market and groups."),
    "demo": CommandEntry("assay.cli.demo", "demo", "Run the demonstration on a local chain."),
    "doctor": CommandEntry("assay.cli.doctor", "doctor", "Check chain, storage, device, kernels, disk and clock."),
}
