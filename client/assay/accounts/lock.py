"""One process for an account on a chain: two would sign different transactions with the same nonce.

The lock is a socket of Linux's abstract namespace: it belongs to no folder, so that key files that were copied count
too, and the kernel lets go of it however its process ends.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from types import TracebackType

from assay.errors import AssayError


class AccountInUseError(AssayError):
    """Another process of this user signs for the account."""

    code = "account-in-use"


class AccountLock:
    """Holds an account on a chain until it is closed. `chain` is any text that names the chain.

    Raises `AccountInUseError` while another process, or another lock of this one, holds it.
    """

    def __init__(self, address: str, chain: str) -> None:
        name = f"\0assay/{os.getuid()}/{chain}/{address.lower()}"[:107]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(name)
            self._socket.listen(1)
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise AccountInUseError(
                f"{address} is in use on this chain by {_holder(name)}: stop that, or use another account. Several "
                "roles of one account run in one process: `assay node run --role solver --role verifier`"
            ) from error

    def close(self) -> None:
        """Let go of the account."""
        self._socket.close()

    def __enter__(self) -> AccountLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _holder(name: str) -> str:
    """Who holds a lock, as the kernel knows it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.settimeout(1.0)
            probe.connect(name)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return "another process"
    return f"process {struct.unpack('3i', credentials)[0]}"
