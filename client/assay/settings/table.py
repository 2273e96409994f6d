"""Every setting with its type, default and meaning, and where its value came from.

A setting `chain.url` is `url` in the table `[chain]` of the TOML file, `ASSAY_CHAIN_URL` in the environment, and
`--set chain.url=...` on the command line (common ones have flags of their own).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from assay.errors import AssayError


class SettingsError(AssayError):
    """A setting is unknown, or its value cannot be understood."""

    code = "settings"


Value = str | int | float | bool


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def _number(minimum: float, whole: bool) -> Callable[[Any], Value]:
    def read(value: Any) -> Value:
        if isinstance(value, bool):
            raise ValueError("a number")
        try:
            number = int(value) if whole else float(value)
            if not isfinite(number) or (isinstance(value, float) and number != value):
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("a whole number" if whole else "a finite number") from error
        if not number >= minimum:
            raise ValueError(f"a number of at least {minimum:g}")
        return number

    return read


def _choice(*names: str) -> Callable[[Any], Value]:
    def read(value: Any) -> Value:
        if value not in names:
            raise ValueError("one of " + ", ".join(names))
        return str(value)

    return read


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str  # table.key
    default: Value
    read: Callable[[Any], Value]  # raises ValueError naming what is wanted
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "ASSAY_" + self.name.upper().replace(".", "_")


def _home(*parts: str) -> str:
    return str(Path.home().joinpath(".assay", *parts))


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("chain.url", "http://127.0.0.1:8545", _text, "RPC endpoint of the chain"),
        Setting("chain.deployment", "", _text, "file with the contracts' addresses, as `assay deploy` writes it"),
        Setting("chain.confirmations", 1, _number(1, whole=True), "blocks on an event or transaction before it counts"),
        Setting("chain.fee_cap", 200, _number(0, whole=False), "most to pay for gas, in gwei a gas"),
        Setting("chain.tip", 1, _number(0, whole=False), "tip for whoever includes a transaction, in gwei a gas"),
        Setting(
            "chain.stuck_seconds", 60, _number(1, whole=False), "seconds before a transaction is sent with more fees"
        ),
        Setting("chain.poll_seconds", 1, _number(0.05, whole=False), "seconds between two looks at the chain"),
        Setting("storage.kind", "directory", _choice("directory", "ipfs", "s3"), "where files are put"),
        Setting("storage.folder", _home("store"), _text, "folder of the directory store"),
        Setting("storage.ipfs_address", "/ip4/127.0.0.1/tcp/5001/http", _text, "the IPFS daemon's API"),
        Setting("storage.s3_bucket", "", _text, "bucket of the object store"),
        Setting("storage.s3_endpoint", "", _text, "endpoint of the object store, if it is not Amazon's"),
        Setting("storage.limit_mib", 4096, _number(1, whole=True), "largest file fetched, in MiB"),
        Setting("compute.device", "auto", _choice("auto", "cpu", "cuda"), "device of native training"),
        Setting(
            "compute.memory_mib", 0, _number(0, whole=True), "memory a task may use, in MiB; 0: what the machine has"
        ),
        Setting("compute.threads", 0, _number(0, whole=True), "threads of canonical runs; 0: every processor"),
        Setting("account.keystore", "", _text, "the account's encrypted key file"),
        Setting("account.password_file", "", _text, "file with its password (or set ASSAY_PASSWORD)"),
        Setting("state.folder", _home("state"), _text, "what roles must remember"),
        Setting("log.format", "text", _choice("text", "json"), "logs as text or as JSON lines"),
        Setting("log.level", "info", _choice("debug", "info", "warning", "error"), "least important message shown"),
    )
}


def default_file() -> Path:
    """Where the settings file lies unless --config says otherwise."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "assay" / "config.toml"


@dataclass(frozen=True)
class Settings:
    """Values with their origins: `flag`, `environment`, the file's path, or `default`."""

    values: Mapping[str, Value]
    origins: Mapping[str, str]

    def text(self, name: str) -> str:
        return str(self.values[name])

    def whole(self, name: str) -> int:
        return int(self.values[name])

    def number(self, name: str) -> float:
        return float(self.values[name])


def load_settings(
    flags: Mapping[str, Any] | None = None,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """All settings. A missing file counts only if it was asked for by name.

    Raises `SettingsError` naming the setting, its value, where it stands, and what is wanted.
    """
    environment = os.environ if environment is None else environment
    path = file or default_file()
    tables = _read_file(path, required=file is not None)
    unknown = sorted(set(tables) - set(SETTINGS)) + sorted(set(flags or {}) - set(SETTINGS))
    if unknown:
        raise SettingsError(f"there is no setting {unknown[0]!r}: `assay config show` lists them all")
    values: dict[str, Value] = {}
    origins: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        given = (flags or {}).get(name)
        if given is not None:
            raw, origin = given, "flag"
        elif environment.get(setting.variable):
            raw, origin = environment[setting.variable], "environment"
        elif name in tables:
            raw, origin = tables[name], str(path)
        else:
            raw, origin = setting.default, "default"
        try:
            values[name] = setting.read(raw)
        except ValueError as error:
            raise SettingsError(f"{name} is {raw!r} (from {origin}): it must be {error}") from error
        origins[name] = origin
    return Settings(values, origins)


def _read_file(path: Path, required: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError as error:
        if required:
            raise SettingsError(f"there is no settings file {path}: correct --config") from error
        return {}
    except (OSError, ValueError) as error:  # no TOML, no text, or numbers of thousands of digits
        raise SettingsError(f"{path} cannot be read: {error}") from error
    flat: dict[str, Any] = {}
    for table, rows in content.items():
        if not isinstance(rows, dict):
            raise SettingsError(f"{path}: {table!r} stands outside a table: write it below [chain], [storage], ...")
        flat.update({f"{table}.{key}": value for key, value in rows.items()})
    return flat
