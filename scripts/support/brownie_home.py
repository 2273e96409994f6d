"""A home directory for Brownie's checks: its standard networks on a free port, and nobody's own settings."""

from __future__ import annotations

import contextlib
import importlib.resources
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml


def free_port() -> int:
    """A TCP port on the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def make(folder: Path) -> Iterator[Path]:
    """A fresh home directory below `folder`, gone after the block.

    Brownie attaches to whatever answers on a network's port, so runs side by side need ports of their own.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        home = Path(name)
        settings = yaml.safe_load((importlib.resources.files("brownie") / "data/network-config.yaml").read_text())
        port = free_port()
        for network in settings["development"]:
            network["cmd_settings"]["port"] = port
        (home / ".brownie").mkdir()
        (home / ".brownie" / "network-config.yaml").write_text(yaml.safe_dump(settings))
        yield home
