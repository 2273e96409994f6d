"""Stores keep files, and fetching survives what strangers' nodes do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.storage.directory import DirectoryStore
from assay.storage.errors import NotFoundError, StorageError, TooLargeError
from assay.storage.store import Store, fetch


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(os.urandom(3_000_001))
    return path


class Broken:
    """Serves a file in pieces and breaks off as told: each entry of `plan` is how many bytes one read gives."""

    scheme = "dir"

    def __init__(self, content: bytes, plan: list[int], error: bool = False) -> None:
        self.content, self.plan, self.error = content, plan, error
        self.offsets: list[int] = []

    def put(self, path: Path, progress: object = None) -> str:
        raise NotImplementedError

    def check(self) -> str:
        return "broken on purpose"

    def read(self, locator: str, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        give = self.plan.pop(0) if self.plan else 0
        for start in range(offset, min(offset + give, len(self.content)), 1000):
            yield self.content[start : min(start + 1000, offset + give)]
        if self.error:
            raise StorageError("the connection broke off")


def quiet(seconds: float) -> None:
    assert seconds <= 8


def test_a_directory_gives_back_what_was_put_and_names_it_by_content(content: Path, tmp_path: Path) -> None:
    store: Store = DirectoryStore(tmp_path / "store")
    seen: list[int] = []
    locator = store.put(content, lambda done, size: seen.append(done))
    assert seen[-1] == 3_000_001
    assert store.put(content) == locator
    target = fetch(store, locator, tmp_path / "out" / "file", limit=4_000_000)
    assert target.read_bytes() == content.read_bytes()
    assert "directory" in store.check()


@pytest.mark.parametrize(
    "locator", ["dir:../../etc/passwd", "dir:" + "0" * 63, "ipfs:abc", "dir:" + "z/" * 40, "", "x" * 600]
)
def test_a_locator_that_is_no_name_is_refused(locator: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        list(DirectoryStore(tmp_path).read(locator, 0))


def test_a_missing_file_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        fetch(DirectoryStore(tmp_path), "dir:" + "0" * 64, tmp_path / "x", limit=10, pause=quiet)


@pytest.mark.parametrize("error", [False, True])
def test_a_connection_that_breaks_off_is_resumed(error: bool, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    store = Broken(content, [30_000, 1, 69_999] if not error else [30_000, 50_000, 20_000], error)
    target = fetch(store, "dir:x", tmp_path / "file", limit=10**6, size=100_000, pause=quiet)
    assert target.read_bytes() == content
    assert store.offsets[1] == 30_000


def test_a_stalled_store_fails_and_the_next_call_continues(tmp_path: Path) -> None:
    content = os.urandom(50_000)
    with pytest.raises(StorageError, match="attempts without progress"):
        fetch(Broken(content, [20_000]), "dir:x", tmp_path / "file", limit=10**6, size=50_000, pause=quiet)
    assert not (tmp_path / "file").exists()
    store = Broken(content, [30_000])
    fetch(store, "dir:x", tmp_path / "file", limit=10**6, size=50_000, pause=quiet)
    assert store.offsets == [20_000]
    assert (tmp_path / "file").read_bytes() == content


def test_a_store_that_sends_too_much_is_cut_off(tmp_path: Path) -> None:
    store = Broken(os.urandom(50_000), [50_000])
    with pytest.raises(TooLargeError):
        fetch(store, "dir:x", tmp_path / "file", limit=10_000, pause=quiet)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TooLargeError):
        fetch(store, "dir:x", tmp_path / "file", limit=10_000, size=20_000, pause=quiet)


def test_object_storage_keeps_and_resumes(content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    from assay.storage.s3 import S3Store

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        boto3.client("s3").create_bucket(Bucket="proofs")
        store = S3Store("proofs")
        locator = store.put(content)
        (tmp_path / "file.part").write_bytes(content.read_bytes()[:1_000_000])
        fetch(store, locator, tmp_path / "file", limit=4_000_000, size=3_000_001)
        assert (tmp_path / "file").read_bytes() == content.read_bytes()
        with pytest.raises(NotFoundError):
            list(store.read("s3:" + "0" * 64, 0))
        with pytest.raises(StorageError, match=r"storage\.s3_bucket"):
            S3Store("elsewhere").check()
