"""LLVM IR to machine code, kept on disk between processes.

The generated loop kernels (`assay.engine.cpu.loops`) are text in LLVM IR. They are compiled for the vector unit that
`assay.engine.cpu.isa` chose and launched by `assay.engine.cpu.launch`, like the hand-written kernels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba.core import config as numba_config

from assay.engine.cpu import isa, launch

ENTRY = "kernel"
"""Name of the function every module defines: void(ptr record, i64 task, i64 worker)."""

config: Any = numba_config
_lock = threading.Lock()


@cache
def _target_machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # isa narrows numba's processor when ASSAY_SIMD asks for it; the same choice holds here.
    cpu = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES
    if features is None:
        features = ",".join(("+" if on else "-") + name for name, on in sorted(isa.host_features().items()))
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=cpu, features=features, opt=2, reloc="pic", codemodel="default")


@cache
def _jit() -> Any:
    # JITLink, because it puts a module in one piece: LLVM's older linker may lay code and constants more than 2 GB
    # apart where the address space is scattered (as CUDA leaves it), and then ends the process.
    return llvm.create_lljit_compiler(_target_machine(), use_jit_link=True, suppress_errors=False)


@cache
def _target_key() -> bytes:
    machine = _target_machine()
    words = (
        str(llvm.llvm_version_info),
        machine.triple,
        str(config.CPU_NAME or llvm.get_host_cpu_name()),
        isa.UNIT.name,
    )
    features = config.CPU_FEATURES or str(sorted(isa.host_features().items()))
    return "|".join((*words, features)).encode()


def _optimise(module: Any) -> None:
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    # The loops are vector code already; what is left scalar are remainders, not worth compile time.
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    tuning.loop_unrolling = False
    builder = llvm.create_pass_builder(_target_machine(), tuning)
    builder.getModulePassManager().run(module, builder)


def _object_code(text: str) -> bytes:
    key = hashlib.sha256(_target_key() + b"\0" + text.encode()).hexdigest()
    folder = launch.cache_directory() / "loops"
    path = folder / f"{key}.o"
    try:
        stored = path.read_bytes()
        digest, code = stored[:32], stored[32:]
        if hashlib.sha256(code).digest() == digest:
            return code
    except OSError:
        pass
    module = llvm.parse_assembly(text)
    module.verify()
    _optimise(module)
    code = bytes(_target_machine().emit_object(module))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(temporary).replace(path)
    except OSError:
        pass  # a full or read-only disk costs compile time, not results
    return code


class CompiledLoops:
    """Machine code of one IR module; what `launch.run` needs of a kernel."""

    def __init__(self, text: str) -> None:
        code = _object_code(text)
        name = "loops-" + hashlib.sha256(text.encode()).hexdigest()[:24]
        library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(ENTRY)
        self._tracker = library.link(_jit(), name)
        self.address = int(self._tracker[ENTRY])


_compiled: dict[str, CompiledLoops] = {}


def compile_loops(text: str) -> CompiledLoops:
    """Compile (or find) the module `text`, which must define `ENTRY`."""
    # One at a time: two threads that want the same kernel must not both link it under its one name.
    with _lock:
        found = _compiled.get(text)
        if found is None:
            found = _compiled[text] = CompiledLoops(text)
        return found
