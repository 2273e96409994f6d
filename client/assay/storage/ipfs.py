"""Files on IPFS, through the HTTP interface of a Kubo-compatible daemon (`/api/v0` add, cat, version)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipfshttpclient
from ipfshttpclient.exceptions import Error as IpfsError
from ipfshttpclient.exceptions import ErrorResponse

from assay.storage.errors import NotFoundError, StorageError
from assay.storage.store import Progress, name_of

DEFAULT_ADDRESS = "/ip4/127.0.0.1/tcp/5001/http"
CHUNKER = "size-262144"  # said explicitly, so that every daemon makes the same identifier of the same file


class IpfsStore:
    """An IPFS node. `timeout` (seconds) is the longest silence of the daemon that is waited out."""

    scheme = "ipfs"

    def __init__(self, address: str = DEFAULT_ADDRESS, timeout: float = 60.0) -> None:
        self.address = address
        self.timeout = timeout
        # connect() would refuse every current daemon by its version; the constructor does not ask for it.
        self._client: Any = ipfshttpclient.Client(address, timeout=timeout)

    def put(self, path: Path, progress: Progress | None = None) -> str:
        """Add and pin a file; returns its locator."""
        size = path.stat().st_size
        try:
            answer = self._client.add(str(path), chunker=CHUNKER, cid_version=1, raw_leaves=True, pin=True)
        except IpfsError as error:
            raise self._unreachable(error) from error
        if progress is not None:
            progress(size, size)
        return f"{self.scheme}:{answer['Hash']}"

    def read(self, locator: str, offset: int) -> Iterator[bytes]:
        """The file's bytes from `offset` on, as the daemon finds them."""
        name = name_of(locator, self.scheme)
        try:
            with self._client.cat(name, offset=offset, stream=True) as response:
                yield from response
        except ErrorResponse as error:
            if "not found" in str(error).lower():
                raise NotFoundError(f"{locator} is not known to the daemon at {self.address} ({error})") from error
            raise StorageError(f"the IPFS daemon at {self.address} refuses {locator}: {error}") from error
        except IpfsError as error:
            raise self._unreachable(error) from error

    def check(self) -> str:
        """The daemon's version."""
        try:
            version = self._client.version()["Version"]
        except IpfsError as error:
            raise self._unreachable(error) from error
        return f"IPFS daemon {version} at {self.address}"

    def _unreachable(self, error: Exception) -> StorageError:
        return StorageError(
            f"no answer from the IPFS daemon at {self.address} ({error}): start it with `ipfs daemon`, or set "
            "storage.ipfs_address"
        )
