"""Runs the checks of this project and counts what passed; `scripts/test` sets up the environment and calls it.

    scripts/test                 everything
    scripts/test lint contracts  some parts
    scripts/test --fast          without the tests marked slow
    scripts/test --list          the parts

The last line is the total, `N passed, N failed`; the exit code is 0 only where nothing failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import brownie_home
import contracts_package
import wheel_contents
from processes import SignalError, run, signals_as_exceptions, start, stop_group
from stages import ROOT
from toolchain import DEV_VENV, IPFS_VENV, SOLC_VERSION, SOLCX, USER_VENV

PROGRAMS = DEV_VENV / "bin"
PYTHON = PROGRAMS / "python"
SUPPORT = ROOT / "scripts" / "support"
CONTRACT_TESTS = ROOT / "tests" / "contracts"
MARKET_TESTS = ROOT / "tests" / "market"
PROCESS_TESTS = (MARKET_TESTS / "test_demonstration.py", MARKET_TESTS / "test_command_lines.py")
ATTACKS = ROOT / "tests" / "attacks"
ON_EVERY_CORE = ("-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile")
"""Words for pytest: files of tests side by side."""
NO_TESTS_COLLECTED = 5  # pytest's exit code
# No part takes this long; something waits for what will not come.
PART_SECONDS = 40 * 60.0


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    fast: bool
    folder: Path  # for reports; removed at the end


@dataclass(frozen=True)
class Count:
    """Checks that passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed" + (f", {self.skipped} skipped" if self.skipped else "")


@dataclass(frozen=True)
class Step:
    """One check of a part: a title, and the work that returns its count."""

    title: str
    work: Callable[[Options], Count]


# ---- Kinds of checks ----------------------------------------------------------------------------------------------


def command(*words: str | Path, environment: Mapping[str, str] | None = None) -> Callable[[Options], Count]:
    """A program that passes by exiting with 0."""

    def work(_options: Options) -> Count:
        code = run(words, folder=ROOT, environment={**os.environ, **(environment or {})})
        return Count(passed=1) if code == 0 else Count(failed=1)

    return work


class Beside:
    """A program that passes by exiting with 0, and runs beside the steps before its own once it has begun.

    Its step waits for it and shows what it said. It ends with `stop` at the latest.
    """

    def __init__(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.words, self.environment = words, {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, options: Options) -> None:
        self._said = options.folder / f"said-{time.monotonic_ns()}.txt"
        with self._said.open("wb") as output:
            self._process = start(self.words, folder=ROOT, environment=self.environment, output=output)

    def __call__(self, options: Options) -> Count:
        if self._process is None:
            self.begin(options)
        assert self._process is not None
        while self._process.poll() is None:
            time.sleep(0.5)  # a signal's exception is raised here
        print(self._said.read_text(errors="replace"), end="", flush=True)
        return Count(passed=1) if self._process.returncode == 0 else Count(failed=1)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            stop_group(self._process)


def function(check: Callable[[], list[str]]) -> Callable[[Options], Count]:
    """A check in this process that returns what is wrong, a line each."""

    def work(_options: Options) -> Count:
        problems = check()
        for problem in problems:
            print(problem)
        return Count(failed=len(problems)) if problems else Count(passed=1)

    return work


def count_report(report: Path, code: int) -> Count:
    """Read pytest's JUnit report. A run that failed beside its tests (collection, a crash) counts as one failure."""
    try:
        suites = ElementTree.parse(report).getroot().iter("testsuite")
        numbers = [
            [int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")] for suite in suites
        ]
    except (OSError, ElementTree.ParseError):
        numbers = []
    tests, failures, errors, skipped = (
        (sum(column) for column in zip(*numbers, strict=True)) if numbers else (0, 0, 0, 0)
    )
    failed = failures + errors
    if code != 0 and failed == 0:
        if code == NO_TESTS_COLLECTED:
            print("no test was collected: check the names of the files and the markers")
        failed = 1
    return Count(max(0, tests - failures - errors - skipped), failed, skipped)


def pytest(
    options: Options, folders: Sequence[Path], words: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Count:
    """Run pytest over folders of tests."""
    report = options.folder / f"report-{time.monotonic_ns()}.xml"
    marker = ["-m", "not slow"] if options.fast and "-m" not in words else []
    try:
        code = run(
            [PYTHON, "-m", "pytest", *folders, "-q", f"--junitxml={report}", *marker, *words],
            folder=ROOT,
            environment={**os.environ, **(environment or {})},
            timeout=PART_SECONDS,
            # pytest tidies up (chains, markets) on Ctrl-C, not on SIGTERM.
            death_signal=signal.SIGINT,
        )
    except subprocess.TimeoutExpired:
        print(f"stopped: not done after {PART_SECONDS / 60:.0f} minutes")
        return Count(failed=1)
    return count_report(report, code)


def contract_tests(network: str, *words: str) -> Callable[[Options], Count]:
    """Brownie's tests on one of its networks, on a port of their own, with no settings from the home directory."""

    def work(options: Options) -> Count:
        kind = (SOLCX / "kind.txt").read_text().strip()
        print(f"Solidity compiler: solc {SOLC_VERSION}, {kind}")
        with brownie_home.make(options.folder) as home:
            return pytest(options, [CONTRACT_TESTS], ["--network", network, *words], {"HOME": str(home)})

    return work


def client_tests(options: Options) -> Count:
    """The tests of the package."""
    # Without this, tests of a real IPFS node are skipped where none was set up.
    return side_by_side(options, ROOT / "tests" / "client", {"ASSAY_TEST_IPFS": str(IPFS_VENV / "bin" / "python")})


def market_tests(options: Options) -> Count:
    """Whole markets in one process each."""
    return side_by_side(options, MARKET_TESTS, words=[f"--ignore={path}" for path in PROCESS_TESTS])


def process_tests(options: Options) -> Count:
    """Whole markets whose roles are processes: one at a time, since their windows pass in real time."""
    return pytest(options, PROCESS_TESTS, ["-p", "no:pytest-brownie"])


def attacks(options: Options) -> Count:
    """Attacks: each process has chains of its own, and all roles within it."""
    return side_by_side(options, ATTACKS)


def side_by_side(
    options: Options, folder: Path, environment: Mapping[str, str] | None = None, words: Sequence[str] = ()
) -> Count:
    """Run pytest without Brownie, a file at a time on every core."""
    words = ["-p", "no:pytest-brownie", *ON_EVERY_CORE, *words]
    return pytest(options, [folder], words, {"OMP_NUM_THREADS": "1", **(environment or {})})


def user_environment(_options: Options) -> Count:
    """What a newcomer gets: the environment of `scripts/demo`, without Brownie, with a working command line."""
    demo = run([ROOT / "scripts" / "demo"], folder=ROOT)
    version = run([USER_VENV / "bin" / "assay", "--version"], folder=ROOT)
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('brownie') is not None)"
    alone = run([USER_VENV / "bin" / "python", "-c", probe], folder=ROOT)
    results = {"scripts/demo": demo, "assay --version": version, "no Brownie among what users install": alone}
    for name, code in results.items():
        print(f"{name}: {'ok' if code == 0 else f'failed (exit code {code})'}")
    failed = sum(code != 0 for code in results.values())
    return Count(len(results) - failed, failed)


# ---- The parts ----------------------------------------------------------------------------------------------------


def solidity_files() -> list[Path]:
    """Every contract's source."""
    return sorted((ROOT / "contracts").rglob("*.sol"))


def has_tests(folder: Path) -> bool:
    """True where there is a test file in the folder."""
    return folder.is_dir() and any(folder.rglob("test_*.py"))


def parts() -> dict[str, list[Step]]:
    """The parts in the order in which they run: what fails fastest first."""
    table = {
        "lint": [
            Step("ruff check", command(PROGRAMS / "ruff", "check", ".")),
            Step("ruff format", command(PROGRAMS / "ruff", "format", "--check", ".")),
            Step("solhint", command(PROGRAMS / "solhint", "--disc", "--max-warnings", "0", *solidity_files())),
        ],
        "types": [Step("mypy", command(PYTHON, "-m", "mypy"))],
        "package": [
            Step("compiled contracts are those of contracts/", function(contracts_package.stale)),
            Step("the wheel holds what users need", function(wheel_contents.problems)),
        ],
        "slither": [
            # With the seed fixed: what some detectors find depends on the order of Python's sets.
            Step("slither", Beside(PYTHON, SUPPORT / "slither_findings.py", environment={"PYTHONHASHSEED": "0"})),
        ],
        "contracts": [
            # Brownie gives every process of pytest a node of its own.
            Step("contracts on anvil", contract_tests("development", *ON_EVERY_CORE)),
            Step("contracts on ganache (smoke tests)", contract_tests("ganache-cli", "-m", "smoke")),
        ],
        "client": [Step("client", client_tests)],
        "market": [
            Step("whole markets", market_tests),
            Step("whole markets of separate processes", process_tests),
        ],
        "attacks": [Step("attacks on whole markets", attacks)],
        "demo": [Step("scripts/demo in an environment of its own", user_environment)],
    }
    for name, folder in (("contracts", CONTRACT_TESTS), ("market", MARKET_TESTS), ("attacks", ATTACKS)):
        if not has_tests(folder):
            del table[name]
    return table


def run_parts(names: Sequence[str], table: Mapping[str, list[Step]], options: Options) -> Count:
    """Run the named parts; every step runs even where an earlier one failed. Prints a summary."""
    works = [step.work for name in names for step in table[name]]
    with contextlib.ExitStack() as ends:
        for work in works:
            if isinstance(work, Beside):
                ends.callback(work.stop)
                work.begin(options)
        return run_steps(names, table, options)


def run_steps(names: Sequence[str], table: Mapping[str, list[Step]], options: Options) -> Count:
    """Run the steps of the named parts one after the other."""
    lines = []
    total = Count()
    for name in names:
        for step in table[name]:
            print(f"\n== {name}: {step.title}", flush=True)
            begin = time.monotonic()
            count = step.work(options)
            total += count
            mark = "FAILED" if count.failed else "ok"
            lines.append(f"{mark:6}  {name:10} {step.title}: {count} ({time.monotonic() - begin:.0f} s)")
            print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))
    return total


def main(words: Sequence[str]) -> int:
    """Parse the command line, run the checks, print the total. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="parts to run; all of them where none is named")
    parser.add_argument("--fast", action="store_true", help="leave out the tests marked slow")
    parser.add_argument("--list", action="store_true", help="list the parts and stop")
    arguments = parser.parse_args(words)
    table = parts()
    if arguments.list:
        for name, steps in table.items():
            print(f"{name:10} {'; '.join(step.title for step in steps)}")
        return 0
    names = list(table) if arguments.parts in ([], ["all"]) else arguments.parts
    unknown = [name for name in names if name not in table]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are: {', '.join(table)}")
    folder = Path(tempfile.mkdtemp(prefix="assay-checks-"))
    try:
        with signals_as_exceptions():
            total = run_parts(names, table, Options(arguments.fast, folder))
    except SignalError as interruption:
        print(f"\nstopped by {interruption}", file=sys.stderr)
        return interruption.exit_code
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(total)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
