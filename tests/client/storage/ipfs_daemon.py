"""Starts the IPFS node of the tests: `ipfs_daemon.py API_PORT FOLDER [PEER ...]`, run in the node's own environment.

The node has no command to name the peers it connects to at its start, only a list of public ones."""

from __future__ import annotations

import sys

from multiaddr import Multiaddr
from py_ipfs_lite import cli


def main(api_port: str, folder: str, *peers: str) -> None:
    """Serve the HTTP interface on the loopback interface until ended, connected to `peers` only."""
    cli.DEFAULT_BOOTSTRAP_PEERS = list(peers)
    cli.get_available_interfaces = lambda port: [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]
    words = ["daemon", "--no-ipni", "--api", "--api-host", "127.0.0.1", "--api-port", api_port]
    sys.argv = ["py-ipfs-lite", *words, "--blockstore-type", "filesystem", "--blockstore-path", folder]
    cli.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
