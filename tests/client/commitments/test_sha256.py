"""Roots of tensors are what hashlib makes of the format, for every size, type and way of computing them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from assay.commitments import sha256

CHUNK = 256  # elements
SIZES = [
    1,
    2,
    255,
    256,
    257,
    511,
    513,
    3 * CHUNK,
    7 * CHUNK - 1,
    255 * CHUNK,
    256 * CHUNK,
    256 * CHUNK + 1,
    777 * CHUNK + 9,
]


def _levels_by_hashlib(array: npt.NDArray[np.generic]) -> list[list[bytes]]:
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    chunks = [data[i : i + 1024].ljust(1024, b"\0") for i in range(0, len(data), 1024)]
    level = [hashlib.sha256(b"\0" + chunk).digest() for chunk in chunks]
    level += [bytes(32)] * ((1 << (len(level) - 1).bit_length()) - len(level))
    levels = [level]
    while len(level) > 1:
        level = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        levels.append(level)
    return levels


def _floats(size: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(size).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_root_is_that_of_hashlib(size: int, threads: int) -> None:
    array = _floats(size)
    assert sha256.tensor_root(array, threads) == _levels_by_hashlib(array)[-1][0]


@pytest.mark.parametrize("size", [1, 300, 5 * CHUNK, 300 * CHUNK + 1])
def test_leaves_and_levels_are_those_of_hashlib(size: int) -> None:
    array = _floats(size)
    expected = _levels_by_hashlib(array)
    levels = sha256.merkle_levels(sha256.tensor_leaves(array, 2), 2)
    assert [[bytes(row) for row in level] for level in levels] == expected


def test_every_nan_counts_as_one_and_the_array_is_left_alone() -> None:
    array = _floats(3 * CHUNK + 5)
    bits = array.view(np.int32)
    for place, pattern in ((0, 0x7F800001), (17, -1), (300, -0x3FFFFF), (3 * CHUNK + 4, 0x7FFFFFFF), (20, 0x7F800000)):
        bits[place] = pattern
    before = array.tobytes()
    clean = array.copy()
    clean.view(np.int32)[np.isnan(clean)] = 0x7FC00000
    assert sha256.tensor_root(array) == _levels_by_hashlib(clean)[-1][0]
    assert array.tobytes() == before


def test_integers_are_hashed_as_they_are() -> None:
    array = np.arange(1000, dtype=np.int32) * 7654321
    array[:3] = (-1, 0x7F800001, 0x7FFFFFFF)
    assert sha256.tensor_root(array) == _levels_by_hashlib(array)[-1][0]


def test_a_memory_mapped_file_is_hashed_in_place(tmp_path: Path) -> None:
    array = _floats(100_001)
    path = tmp_path / "tensor"
    path.write_bytes(array.tobytes())
    mapped = np.memmap(path, np.float32, "r")
    assert sha256.tensor_root(mapped) == sha256.tensor_root(array.reshape(1, -1))


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((4, 4), np.float32)[:, ::2], np.zeros(0, np.float32), np.zeros(3, np.uint8)],
    ids=["float64", "strided", "empty", "bytes"],
)
def test_what_has_no_root_is_refused(array: npt.NDArray[np.generic]) -> None:
    with pytest.raises(sha256.TensorHashError):
        sha256.tensor_root(array)


def test_code_without_special_instructions_gives_the_same_roots() -> None:
    program = (
        "import numpy as np; from assay.commitments import sha256 as s; assert not s.USES_INSTRUCTIONS;"
        "print(*[s.tensor_root(np.random.default_rng(n).standard_normal(n).astype('f')).hex() for n in (1, 300, 5000)])"
    )
    environment = {**os.environ, "ASSAY_SHA": "lanes", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [sha256.tensor_root(_floats(n)).hex() for n in (1, 300, 5000)]
