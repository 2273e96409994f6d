"""Files in S3-compatible object storage, under the SHA-256 of their content. Needs the extra `s3`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.errors import MissingDependencyError
from assay.storage.directory import file_digest
from assay.storage.errors import NotFoundError, StorageError
from assay.storage.store import BLOCK_BYTES, Progress, name_of


class S3Store:
    """A bucket. Credentials come from where boto3 looks for them: environment, shared file, or instance role."""

    scheme = "s3"

    def __init__(self, bucket: str, prefix: str = "assay/", endpoint: str | None = None, timeout: float = 60.0) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingDependencyError("S3 storage needs boto3: install it with `pip install 'assay[s3]'`") from error
        self.bucket = bucket
        self.prefix = prefix
        config = Config(connect_timeout=timeout, read_timeout=timeout, retries={"max_attempts": 1})
        try:
            self._client: Any = boto3.client("s3", endpoint_url=endpoint, config=config)
        except Exception as error:  # what is no endpoint, and boto3's own
            raise self._failed("cannot use the bucket", error) from error

    def put(self, path: Path, progress: Progress | None = None) -> str:
        """Upload a file unless the bucket has it; returns its locator."""
        name, size = file_digest(path), path.stat().st_size
        sent = 0

        def count(number: int) -> None:
            nonlocal sent
            sent += number
            if progress is not None:
                progress(sent, size)

        try:
            self._client.upload_file(str(path), self.bucket, self.prefix + name, Callback=count)
        except Exception as error:  # boto3 raises classes made at run time
            raise self._failed(f"cannot upload {path.name}", error) from error
        return f"{self.scheme}:{name}"

    def read(self, locator: str, offset: int) -> Iterator[bytes]:
        """The object's bytes from `offset` on."""
        key = self.prefix + name_of(locator, self.scheme)
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={offset}-")
            yield from answer["Body"].iter_chunks(BLOCK_BYTES)
        except Exception as error:  # boto3 raises classes made at run time
            code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
            if code in ("NoSuchKey", "404"):
                raise NotFoundError(f"{locator} is not in the bucket {self.bucket}") from error
            if code == "InvalidRange":
                return  # nothing lies beyond the end
            raise self._failed(f"cannot read {locator}", error) from error

    def check(self) -> str:
        """Whether the bucket answers."""
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except Exception as error:  # boto3 raises classes made at run time
            raise self._failed("cannot reach the bucket", error) from error
        return f"S3 bucket {self.bucket}"

    def _failed(self, what: str, error: Exception) -> StorageError:
        return StorageError(
            f"{what} ({self.bucket}: {error}): check storage.s3_bucket, storage.s3_endpoint and the credentials in the "
            "environment"
        )
