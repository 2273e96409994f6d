# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""LLVM building blocks that numba has no Python spelling for. All addresses are int64, all strides bytes.

Vector loads assume nothing beyond 4-byte alignment. `llvm.fma` is one rounding on every target; nothing here sets a
fast-math flag, so LLVM neither contracts nor reorders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from assay.engine.cpu import isa

FLOAT = ir.FloatType()
I32 = ir.IntType(32)
I64 = ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, isa.UNIT.lanes)

_X86 = bool(isa.host_features().get("sse2", False))
_DEFAULT_MXCSR = 0x1F80  # round to nearest even, subnormals kept, exceptions masked


def pointer(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    """`address + offset` as a pointer to `kind`; the offset may be a Python number or an LLVM value."""
    if not isinstance(offset, int):
        address = builder.add(address, offset)
    elif offset:
        address = builder.add(address, I64(offset))
    return builder.inttoptr(address, kind.as_pointer())


def load(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    """Load a value of type `kind`, 4-byte aligned."""
    value = builder.load(pointer(builder, address, offset, kind))
    value.align = 4
    return value


def store(builder: Any, value: Any, address: Any, offset: Any) -> None:
    """Store a value, 4-byte aligned."""
    builder.store(value, pointer(builder, address, offset, value.type)).align = 4


def splat(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of `kind` with `value` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count))


def fma_function(builder: Any, kind: Any) -> Any:
    """The LLVM function `llvm.fma` for `kind`."""
    name = f"llvm.fma.v{kind.count}f32" if isinstance(kind, ir.VectorType) else "llvm.fma.f32"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)


@intrinsic
def fma(typingctx, x, y, accumulator):
    """x * y + accumulator with one rounding."""

    def generate(context, builder, signature, arguments):
        return builder.call(fma_function(builder, FLOAT), arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


def _memory_intrinsics(numba_type: Any, llvm_type: Any) -> tuple[Any, Any]:
    @intrinsic
    def read(typingctx, address):
        return numba_type(types.int64), lambda context, builder, signature, arguments: load(
            builder, arguments[0], 0, llvm_type
        )

    @intrinsic
    def write(typingctx, address, value):
        def generate(context, builder, signature, arguments):
            store(builder, arguments[1], arguments[0], 0)
            return context.get_dummy_value()

        return types.void(types.int64, numba_type), generate

    return read, write


read_f32, write_f32 = _memory_intrinsics(types.float32, FLOAT)
read_i32, write_i32 = _memory_intrinsics(types.int32, I32)
read_i64, write_i64 = _memory_intrinsics(types.int64, I64)


@intrinsic
def word_pointer(typingctx, address):
    """An address as a pointer to int32, for `numba.carray`."""
    kind = types.CPointer(types.int32)
    return kind(types.int64), lambda context, builder, signature, arguments: builder.inttoptr(
        arguments[0], I32.as_pointer()
    )


@intrinsic
def call_kernel(typingctx, address, parameters, task, worker):
    """Call the C function at `address`."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 3)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def next_task(typingctx, counter):
    """Fetch counter[0] and add one, atomically."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, I64(1), "monotonic")

    return types.int64(counter), generate


@intrinsic
def enter_float_environment(typingctx):
    """Set this thread to round to nearest even and keep subnormals, whatever a host program has set; returns the
    state before. (PyTorch's `set_flush_denormal`, for one, changes it, and new threads inherit it.)"""

    def generate(context, builder, signature, arguments):
        if not _X86:
            return I32(0)
        before, wanted = cgutils.alloca_once(builder, I32), cgutils.alloca_once(builder, I32)
        kind = ir.FunctionType(ir.VoidType(), [before.type])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.stmxcsr"), [before])
        builder.store(I32(_DEFAULT_MXCSR), wanted)
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.ldmxcsr"), [wanted])
        return builder.load(before)

    return types.int32(), generate


@intrinsic
def leave_float_environment(typingctx, before):
    """Restore what `enter_float_environment` returned."""

    def generate(context, builder, signature, arguments):
        if _X86:
            slot = cgutils.alloca_once(builder, I32)
            builder.store(arguments[0], slot)
            kind = ir.FunctionType(ir.VoidType(), [slot.type])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.ldmxcsr"), [slot])
        return context.get_dummy_value()

    return types.void(types.int32), generate


def _copy_intrinsic(kind: Any) -> Any:
    @intrinsic
    def copy(typingctx, destination, source):
        def generate(context, builder, signature, arguments):
            store(builder, load(builder, arguments[1], 0, kind), arguments[0], 0)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return copy


copy_vector = _copy_intrinsic(VECTOR)
"""copy_vector(destination, source): copy one vector."""

copy_quad = _copy_intrinsic(ir.VectorType(FLOAT, 4))
"""copy_quad(destination, source): copy four values."""


@intrinsic
def zero_vector(typingctx, destination):
    """Store a vector of +0."""

    def generate(context, builder, signature, arguments):
        store(builder, ir.Constant(VECTOR, [0.0] * VECTOR.count), arguments[0], 0)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def transpose_4x4(typingctx, destination, destination_step, source, source_step):
    """destination[j][i] = source[i][j] for i, j < 4; rows are `..._step` bytes apart, columns contiguous."""

    def generate(context, builder, signature, arguments):
        destination, destination_step, source, source_step = arguments
        kind = ir.VectorType(FLOAT, 4)
        rows = [load(builder, source, builder.mul(source_step, I64(i)), kind) for i in range(4)]

        def shuffle(a, b, lanes):
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 4), lanes))

        low01, high01 = shuffle(rows[0], rows[1], [0, 4, 1, 5]), shuffle(rows[0], rows[1], [2, 6, 3, 7])
        low23, high23 = shuffle(rows[2], rows[3], [0, 4, 1, 5]), shuffle(rows[2], rows[3], [2, 6, 3, 7])
        columns = [
            shuffle(low01, low23, [0, 1, 4, 5]),
            shuffle(low01, low23, [2, 3, 6, 7]),
            shuffle(high01, high23, [0, 1, 4, 5]),
            shuffle(high01, high23, [2, 3, 6, 7]),
        ]
        for j, column in enumerate(columns):
            store(builder, column, destination, builder.mul(destination_step, I64(j)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def emit_loop(builder: Any, count: Any, initial: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit `for index in range(count)` with loop-carried values; count must be at least 1. Returns the final values."""
    entry = builder.block
    loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(I64)
    index.add_incoming(I64(0), entry)
    carried = [builder.phi(value.type) for value in initial]
    for phi, value in zip(carried, initial, strict=True):
        phi.add_incoming(value, entry)
    results = body(index, carried)
    last = builder.block
    following = builder.add(index, I64(1))
    index.add_incoming(following, last)
    for phi, value in zip(carried, results, strict=True):
        phi.add_incoming(value, last)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    return results


def load_accumulators(builder: Any, first: Any, addresses: list[Any]) -> list[Any]:
    """Vectors at `addresses`, or +0 where `first` is not 0 (then the memory is not read)."""
    entry = builder.block
    reload, ready = builder.append_basic_block("reload"), builder.append_basic_block("ready")
    builder.cbranch(builder.icmp_signed("!=", first, I64(0)), ready, reload)
    builder.position_at_end(reload)
    held = [load(builder, address, 0, VECTOR) for address in addresses]
    builder.branch(ready)
    builder.position_at_end(ready)
    zero = ir.Constant(VECTOR, [0.0] * VECTOR.count)
    accumulators = []
    for value in held:
        phi = builder.phi(VECTOR)
        phi.add_incoming(zero, entry)
        phi.add_incoming(value, reload)
        accumulators.append(phi)
    return accumulators
