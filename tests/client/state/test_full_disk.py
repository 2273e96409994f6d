"""A disk that is full: every write says so, nothing half written counts, and all goes on once there is room.

A small tmpfs where this user may mount one, else a limit on the size of files.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from full_disk import no_room

from assay.errors import AssayError
from assay.program.operator import ElementType, TensorDescriptor
from assay.state import StateError, StateFolder
from assay.storage.directory import DirectoryStore
from assay.storage.errors import LocalDiskError, StorageError
from assay.storage.store import fetch
from assay.training.checkpoint import CheckpointFolder, write_synced
from assay.training.errors import CheckpointError

SIZE = 2 << 20
Full = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["disk", "limit"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A folder, and a context in which it takes nothing more."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "limit":
        yield folder, no_room
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk; the limit on files is tested")

    @contextlib.contextmanager
    def filled() -> Iterator[None]:
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass
        try:
            yield
        finally:
            filler.unlink()

    try:
        yield folder, filled
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def put_much(state: StateFolder) -> None:
    """More than what the journal may have room for."""
    for number in range(2000):
        state.put(f"big {number}", "x" * 4096)


def test_a_secret_is_kept_or_refused_never_lost(small: tuple[Path, Full]) -> None:
    folder, full = small
    with StateFolder(folder / "state") as state:
        state.put_once("secret", "first")
        with full():
            with pytest.raises(StateError, match="free disk space"):
                put_much(state)
            assert state.get("secret") == "first"
        kept = len(state.keys("big"))
        assert state.put_once("later", "second") == "second"
    with StateFolder(folder / "state") as state:
        assert (state.get("secret"), state.get("later"), len(state.keys("big"))) == ("first", "second", kept)


def test_a_state_folder_on_a_full_disk_is_an_error_of_its_own(small: tuple[Path, Full]) -> None:
    folder, full = small
    with full(), pytest.raises(StateError, match="disk"):
        StateFolder(folder / "state")
    StateFolder(folder / "state").close()


def test_a_checkpoint_is_whole_or_not_there(small: tuple[Path, Full]) -> None:
    folder, full = small
    state = [np.arange(100_000, dtype=np.float32)]
    run = CheckpointFolder(folder / "run", [TensorDescriptor("weights", ElementType.FLOAT, (100_000,))])
    root = run.write(0, state)
    with full():
        with pytest.raises(CheckpointError, match="free disk space"):
            run.write(1, state)
        with pytest.raises(CheckpointError, match="free disk space"):
            write_synced(folder / "run" / "journal", "x" * 5000)
        assert [entry.root for entry in run.entries()] == [root]
        assert np.array_equal(run.read(0)[0], state[0])
    assert run.write(1, state) == root
    assert len(run.entries()) == 2


def test_a_store_and_a_fetch_tell_the_disk_and_go_on(small: tuple[Path, Full], tmp_path: Path) -> None:
    folder, full = small
    content = tmp_path / "content"
    content.write_bytes(os.urandom(300_000))
    store, source = DirectoryStore(folder / "store"), DirectoryStore(tmp_path / "source")
    locator = source.put(content)
    with full():
        with pytest.raises(StorageError, match="space"):
            store.put(content)
        with pytest.raises(LocalDiskError, match="free disk space") as error:
            fetch(source, locator, folder / "fetched", 10**6, size=300_000)
        assert isinstance(error.value, AssayError)
        assert not (folder / "fetched").exists()
    assert not list((folder / "store").glob("incoming-*"))
    assert fetch(source, locator, folder / "fetched", 10**6, size=300_000).read_bytes() == content.read_bytes()
    assert store.put(content) == locator
