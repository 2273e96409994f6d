"""Files on IPFS, through the HTTP interface of a Kubo-compatible daemon (`/api/v0` add, cat, version)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipfshttpclient
import requests
import urllib3
from ipfshttpclient.exceptions import Error as IpfsError
from ipfshttpclient.exceptions import ErrorResponse

from assay.storage.errors import NotFoundError, StorageError
from assay.storage.store import Progress, name_of

DEFAULT_ADDRESS = "/ip4/127.0.0.1/tcp/5001/http"
TRANSPORT_ERRORS = (IpfsError, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What a daemon's failure looks like: the library's own errors, and those below it in the middle of an answer."""
PIECE_BYTES = 1 << 18
CHUNKER = "size-262144"  # said explicitly, so that every daemon makes the same identifier of the same file


class IpfsStore:
    """An IPFS node. `timeout` (seconds) is the longest silence of the daemon that is waited out."""

    scheme = "ipfs"

    def __init__(self, address: str = DEFAULT_ADDRESS, timeout: float = 60.0) -> None:
        self.address = address
        self.timeout = timeout
        # connect() would refuse every current daemon by its version; the constructor does not ask for it.
        try:
            self._client: Any = ipfshttpclient.Client(address, timeout=timeout)
        except (IpfsError, ValueError) as error:
            raise StorageError(
                f"storage.ipfs_address is {address!r}: write it as {DEFAULT_ADDRESS} ({error})"
            ) from error
        self._serves_ranges: bool | None = None

    def put(self, path: Path, progress: Progress | None = None) -> str:
        """Add and pin a file; returns its locator."""
        size = path.stat().st_size
        try:
            answer = self._client.add(str(path), chunker=CHUNKER, cid_version=1, raw_leaves=True, pin=True)
        except TRANSPORT_ERRORS as error:
            raise self._unreachable(error) from error
        try:
            name = answer["Hash"]
        except (KeyError, TypeError, IndexError):
            name = None
        if not isinstance(name, str) or not name.isalnum() or not name.isascii():
            raise StorageError(
                f"the IPFS daemon at {self.address} answers {str(answer)[:120]!r} to a file: is it an IPFS daemon?"
            )
        if progress is not None:
            progress(size, size)
        return f"{self.scheme}:{name}"

    def read(self, locator: str, offset: int) -> Iterator[bytes]:
        """The file's bytes from `offset` on, as the daemon finds them."""
        name = name_of(locator, self.scheme)
        try:
            skip = offset if offset and not self._has_ranges(name, offset) else 0
            for piece in self._cat(name, offset):
                kept = piece[skip:]
                skip -= len(piece) - len(kept)
                if kept:
                    yield kept
        except ErrorResponse as error:
            if "not found" in str(error).lower():
                raise NotFoundError(f"{locator} is not known to the daemon at {self.address} ({error})") from error
            raise StorageError(f"the IPFS daemon at {self.address} refuses {locator}: {error}") from error
        except TRANSPORT_ERRORS as error:
            raise self._unreachable(error) from error

    def _has_ranges(self, name: str, offset: int) -> bool:
        """Whether the daemon serves part of a file when asked for it. Kubo does; some send the whole file instead,
        which would be taken for the rest of it."""
        if self._serves_ranges is None:
            served = 0
            for piece in self._cat(name, offset, length=1):
                served += len(piece)
                if served > 1:
                    break
            self._serves_ranges = served <= 1
        return self._serves_ranges

    def _cat(self, name: str, offset: int, length: int | None = None) -> Iterator[bytes]:
        """`/api/v0/cat`, each piece as it arrives. The library's own `cat` reads an answer of known length into memory
        whole, and loses what has come when it breaks off."""
        asked = [("arg", name), ("offset", str(offset))]
        if length is not None:
            asked.append(("length", str(length)))
        closables, _ = self._client._client._request(
            "POST", "cat", asked, auth=None, data=None, headers={}, timeout=self.timeout, chunk_size=1
        )
        try:
            while piece := closables[0].raw.read1(PIECE_BYTES):
                yield piece
        finally:
            for closable in closables:
                closable.close()

    def check(self) -> str:
        """The daemon's version."""
        try:
            version = self._client.version()["Version"]
        except (*TRANSPORT_ERRORS, KeyError, TypeError) as error:
            raise self._unreachable(error) from error
        return f"IPFS daemon {version} at {self.address}"

    def _unreachable(self, error: Exception) -> StorageError:
        return StorageError(
            f"no answer from the IPFS daemon at {self.address} ({error}): start it with `ipfs daemon`, or set "
            "storage.ipfs_address"
        )
