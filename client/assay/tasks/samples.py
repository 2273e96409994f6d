"""Reading the submitter's samples: .npz without pickle and within a limit, or .safetensors."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from assay.program.operator import Array
from assay.tasks.errors import TaskFileError
from assay.tasks.task_file import DataSource

MAX_HEADER = 10_000  # bytes of an .npy header
MAX_SAMPLES = 2**31 - 1
_INTEGERS = {"I8", "I16", "I32", "I64", "U8", "U16", "U32", "BOOL"}


def read_samples(source: DataSource, limit: int) -> tuple[Array, ...]:
    """The named tensors as float32 or int32 arrays, samples in the first dimension of each.

    `limit` is the most bytes of one tensor taken into memory; sizes are compared before anything is unpacked. Integers
    of every kind become int32. Raises `TaskFileError` naming the tensor.
    """
    read = _read_npz if source.file.suffix == ".npz" else _read_safetensors
    tensors = tuple(_converted(array, name) for name, array in zip(source.tensors, read(source, limit), strict=True))
    counts = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    if len(counts) != 1 or not 1 <= min(counts) <= MAX_SAMPLES:
        shapes = {name: list(tensor.shape) for name, tensor in zip(source.tensors, tensors, strict=True)}
        raise TaskFileError(f"data tensors have shapes {shapes}: the first dimension is the samples', equal in all")
    return tensors


def _converted(array: npt.NDArray[Any], name: str) -> Array:
    if array.size == 0 or array.size >= 2**31:
        raise TaskFileError(f"data tensor {name!r} has {array.size} elements: it must have from 1 to 2^31 - 1")
    if array.dtype == np.float32:
        finite = np.ascontiguousarray(array)
        if not np.isfinite(finite).all():
            raise TaskFileError(f"data tensor {name!r} holds NaN or infinite values: clean the data first")
        return finite
    if array.dtype == np.bool_ or np.issubdtype(array.dtype, np.integer):
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise TaskFileError(f"data tensor {name!r} holds integers from {low} to {high}: they must fit 32 bits")
        return np.ascontiguousarray(array.astype(np.int32))
    raise TaskFileError(
        f"data tensor {name!r} is {array.dtype}: convert it with .astype(np.float32), or to integers of 32 bits"
    )


def _missing(name: str, source: DataSource, names: Sequence[str]) -> TaskFileError:
    return TaskFileError(f"{source.file} has no tensor {name!r}: it has {', '.join(sorted(names)[:20]) or 'none'}")


def _read_safetensors(source: DataSource, limit: int) -> list[npt.NDArray[Any]]:
    arrays = []
    try:
        with safe_open(source.file, framework="numpy") as file:
            names = list(file.keys())
            for name in source.tensors:
                if name not in names:
                    raise _missing(name, source, names)
                view = file.get_slice(name)
                kind, shape = view.get_dtype(), view.get_shape()
                if kind not in _INTEGERS | {"F32"}:
                    raise TaskFileError(f"data tensor {name!r} is {kind}: convert it to float32 or integers")
                if prod(shape) * 4 > limit:
                    raise _too_large(name, prod(shape) * 4, limit)
                arrays.append(file.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise TaskFileError(f"{source.file} is no complete safetensors file: {error}") from error
    return arrays


def _too_large(name: str, size: int, limit: int) -> TaskFileError:
    return TaskFileError(
        f"data tensor {name!r} has {size} bytes, {limit} are accepted: raise storage.limit_mib if that is meant"
    )


def _read_npz(source: DataSource, limit: int) -> list[npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(source.file) as archive:
            members = {entry.filename: entry for entry in archive.infolist()}
            arrays = []
            for name in source.tensors:
                entry = members.get(f"{name}.npy")
                if entry is None:
                    raise _missing(name, source, [each.removesuffix(".npy") for each in members])
                arrays.append(_read_member(archive, entry, name, limit))
            return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise TaskFileError(f"{source.file} is no complete .npz file: {error}") from error


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, limit: int) -> npt.NDArray[Any]:
    """One array of an archive. The size the archive says is compared with the array's header before unpacking."""
    if entry.file_size > limit + MAX_HEADER:
        raise _too_large(name, entry.file_size, limit)
    with archive.open(entry) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"format version {version}")
            shape, in_columns, kind = read_header(stream, max_header_size=MAX_HEADER)
        except (ValueError, SyntaxError, TypeError, RecursionError) as error:
            raise TaskFileError(f"data tensor {name!r} has no .npy header that can be read: {error}") from error
        if kind.hasobject:
            raise TaskFileError(f"data tensor {name!r} holds Python objects (pickle): save plain numbers")
        size = prod(shape) * kind.itemsize
        if size > limit:
            raise _too_large(name, size, limit)
        content = stream.read(size + 1)
    if len(content) != size:
        raise TaskFileError(f"data tensor {name!r} does not have the {size} bytes its header says: save it again")
    return np.frombuffer(content, kind).reshape(shape, order="F" if in_columns else "C")
