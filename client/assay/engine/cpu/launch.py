# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""Compiling, caching and running kernels.

A kernel is a Python function `kernel(parameters, task, worker)` that numba compiles to a C function. `parameters` is
one numpy record (declared with the kernel), `task` says which part of the output to compute, `worker` < threads says
whose scratch memory to use. Tasks write disjoint outputs and never depend on each other, so neither the number of
workers nor the order of tasks can show in a result; workers draw tasks from a shared counter, which keeps them all
busy when the machine is shared.

Compiled kernels are kept on disk in `ASSAY_CACHE_DIR` (default: `assay/kernels` in the user's cache directory), in a
folder named by a hash of the source files the kernel depends on, since numba itself only watches the file of the
outermost function. numba's own key holds the processor and its features (see `isa`).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numba import cfunc, njit, prange, types
from numba.core import config
from numba.np.numpy_support import from_dtype

from assay.engine.cpu import vector

config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

SPIN_VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "2000"

_lock = threading.RLock()
_scratch = threading.local()


@cache
def source_hash(*modules: str) -> str:
    """Hash of the source files a kernel depends on: its own and the building blocks beside this file."""
    here = Path(__file__).resolve().parent
    hasher = hashlib.sha256()
    for path in sorted(
        {here / "isa.py", here / "vector.py", here / "tile.py", here / "packing.py", *(Path(each) for each in modules)}
    ):
        hasher.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return hasher.hexdigest()[:16]


@cache
def cache_directory() -> Path:
    """Folder of compiled kernels; created, and private to the user."""
    base = os.environ.get("ASSAY_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / ("kernels" if os.environ.get("ASSAY_CACHE_DIR") else "assay/kernels")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="assay-kernels-"))
    return folder


@contextmanager
def compiling(*modules: str, variant: str = "") -> Iterator[None]:
    """Within it, numba's `cache=True` means our cache, keyed by these source files. Serialises compilation."""
    with _lock:
        before = config.CACHE_DIR
        config.CACHE_DIR = str(cache_directory() / (source_hash(*modules) + variant))
        try:
            yield
        finally:
            config.CACHE_DIR = before


class HasAddress(Protocol):
    """Anything that is a compiled C function `void(record *, int64 task, int64 worker)` at `address`."""

    @property
    def address(self) -> int: ...


class Kernel:
    """A kernel, compiled or loaded from disk when it is first used."""

    def __init__(
        self, function: Callable[..., None], dtype: np.dtype[Any], depends: tuple[str, ...], variant: str
    ) -> None:
        self.function = function
        self.depends = depends
        self.variant = variant
        self.dtype = dtype
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Address of the compiled C function `void(record *, int64 task, int64 worker)`."""
        if self._compiled is None:
            with compiling(self.function.__code__.co_filename, *self.depends, variant=self.variant):
                if self._compiled is None:
                    record = types.CPointer(from_dtype(self.dtype))
                    signature = types.void(record, types.int64, types.int64)
                    self._compiled = cfunc(signature, cache=True, error_model="numpy")(self.function)
        return int(self._compiled.address)


def record_type(*names: str) -> np.dtype[Any]:
    """Type of a parameter record of int64 fields: sizes, byte strides, addresses."""
    return np.dtype([(name, np.int64) for name in names])


def kernel(dtype: np.dtype[Any], *depends: str, variant: str = "") -> Callable[[Callable[..., None]], Kernel]:
    """Declare a kernel whose parameters have the record type `dtype`.

    `depends` are further source files it uses; `variant` names a choice made when the module was imported, other than
    the vector unit, so that kernels compiled under another choice are not taken from disk.
    """
    return lambda function: Kernel(function, dtype, depends, variant)


def _run_serial(address, parameters, tasks):
    before = vector.enter_float_environment()
    for task in range(tasks):
        vector.call_kernel(address, parameters, task, 0)
    vector.leave_float_environment(before)


def _run_parallel(address, parameters, tasks, workers):
    counter = np.zeros(1, np.int64)
    for worker in prange(workers):
        before = vector.enter_float_environment()
        task = vector.next_task(counter)
        while task < tasks:
            vector.call_kernel(address, parameters, task, worker)
            task = vector.next_task(counter)
        vector.leave_float_environment(before)


@cache
def _serial() -> Any:
    with compiling(__file__):
        signature = types.void(types.int64, types.int64, types.int64)
        return njit(signature, cache=True, nogil=True)(_run_serial)


@cache
def _parallel() -> Any:
    with compiling(__file__):
        signature = types.void(types.int64, types.int64, types.int64, types.int64)
        return njit(signature, cache=True, nogil=True, parallel=True)(_run_parallel)


@cache
def _parallel_guard() -> Any:
    """Start the threads; a lock where numba's threading layer cannot be entered from two threads at once."""
    import numba
    from numba.np.ufunc import parallel

    # OpenMP's threads spin for milliseconds before they sleep. On a machine with other work, where a thread may wait
    # for one that has no processor, every launch would pay for that. The library reads this once, when it is loaded.
    given = os.environ.get(SPIN_VARIABLE)
    os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)
    try:
        parallel._launch_threads()
    finally:
        if given is None:
            del os.environ[SPIN_VARIABLE]
    return threading.Lock() if numba.threading_layer() == "workqueue" else None


class _Process:
    """Whether this process was forked from one whose threads ran: OpenMP cannot start them again, so one must do."""

    serial = False


def _after_fork() -> None:
    _Process.serial = _Process.serial or _parallel_guard.cache_info().currsize > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _start(address: int, record: int, tasks: int, workers: int) -> None:
    if workers == 1 or _Process.serial:
        _serial()(address, record, tasks)
        return
    guard, launch = _parallel_guard(), _parallel()
    if guard is None:
        launch(address, record, tasks, workers)
        return
    with guard:
        launch(address, record, tasks, workers)


def run(what: HasAddress, parameters: np.ndarray[Any, Any], tasks: int, threads: int) -> None:
    """Run `tasks` tasks of a kernel on up to `threads` threads. Every array the record points to must stay alive."""
    if tasks > 0:
        _start(what.address, parameters.ctypes.data, tasks, min(threads, tasks))


def record(dtype: np.dtype[Any], **values: int) -> np.ndarray[Any, Any]:
    """A parameter record, every field given; the fields of `Plan.add`'s scratch memory may be left out."""
    return np.array([tuple(values.pop(name, 0) for name in dtype.names or ())], dtype)


class Plan:
    """Launches to run one after the other, any number of times, on the same addresses.

    What can be worked out from shapes and addresses is worked out when the plan is made, so that running it costs
    little beyond the kernels. A plan may be run by one thread at a time.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int, int]] = []
        self._scratch: list[tuple[np.ndarray[Any, Any], int, str, int]] = []
        self._alive: list[Any] = []

    def keep(self, *arrays: Any) -> None:
        """Keep arrays alive as long as the plan; what a record points to must not disappear."""
        self._alive.extend(arrays)

    def add(
        self, what: HasAddress, parameters: np.ndarray[Any, Any], tasks: int, threads: int, **scratch: tuple[str, int]
    ) -> None:
        """Add `tasks` tasks of a kernel; `scratch` maps fields of its record to name and size of scratch memory."""
        if tasks <= 0:
            return
        self.keep(parameters)
        names, words = parameters.dtype.names or (), parameters.view(np.int64)
        self._scratch.extend((words, names.index(field), *wanted) for field, wanted in scratch.items())
        self._steps.append((what.address, parameters.ctypes.data, tasks, min(threads, tasks)))

    def extend(self, other: Plan) -> None:
        """Add the launches of another plan."""
        self._steps.extend(other._steps)
        self._scratch.extend(other._scratch)
        self.keep(other)

    def run(self) -> None:
        """Run the launches in order."""
        # All sizes first: a buffer that grows moves, and the steps share buffers by name.
        for _, _, name, size in self._scratch:
            scratch(name, size)
        for words, place, name, size in self._scratch:
            words[place] = scratch(name, size)
        for step in self._steps:
            _start(*step)


def scratch(name: str, size: int) -> int:
    """Address of at least `size` bytes of memory, aligned to 64, that this thread reuses from call to call."""
    buffers = _scratch.__dict__
    held = buffers.get(name)
    if held is None or held[0].size < size + 64:
        array = np.empty(size + size // 4 + 64, np.uint8)
        held = buffers[name] = (array, (array.ctypes.data + 63) & ~63)
    return int(held[1])
