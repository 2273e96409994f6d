# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined"
"""SHA-256 (FIPS 180-4) of several messages at once, as LLVM vector code.

Two ways to the same digests: the SHA instructions of x86 with two messages interleaved (they hide each other's
latency), and one message in each lane of the vector unit, which needs no special instruction.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from assay.engine.cpu import isa
from assay.engine.cpu.vector import I32, I64, VECTOR, emit_loop, load, splat, store

QUAD = ir.VectorType(I32, 4)
WORDS = ir.VectorType(I32, isa.UNIT.lanes)


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def _cube_root(value: int) -> int:
    low, high = 0, 1 << (value.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle - 1)
    return low


ROUND_CONSTANTS = [_cube_root(prime << 96) & 0xFFFFFFFF for prime in _primes(64)]
"""First 32 bits of the fractional parts of the cube roots of the first 64 primes."""

INITIAL = [isqrt(prime << 64) & 0xFFFFFFFF for prime in _primes(8)]
"""First 32 bits of the fractional parts of the square roots of the first 8 primes."""


def _constant(kind: Any, values: list[int]) -> Any:
    return ir.Constant(kind, values)


def _swap_bytes(builder: Any, value: Any) -> Any:
    kind = value.type
    name = f"llvm.bswap.v{kind.count}i32"
    return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name), [value])


def _shuffle(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(first, second, _constant(ir.VectorType(I32, len(lanes)), lanes))


# -- two messages with the SHA instructions --------------------------------------------------------------------------


def _compress_pairwise(builder: Any, states: list[tuple[Any, Any]], blocks: list[Any]) -> list[tuple[Any, Any]]:
    """One block of each message. A state is (f e b a, h g d c), lane 0 first, as the instructions want it."""

    def declared(name: str, arity: int) -> Any:
        kind = ir.FunctionType(QUAD, [QUAD] * arity)
        return cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")

    rounds, expand1, expand2 = declared("sha256rnds2", 3), declared("sha256msg1", 2), declared("sha256msg2", 2)
    schedules = [[_swap_bytes(builder, load(builder, block, 16 * quad, QUAD)) for quad in range(4)] for block in blocks]
    current = list(states)
    for quad in range(16):
        constants = _constant(QUAD, ROUND_CONSTANTS[4 * quad : 4 * quad + 4])
        for stream, schedule in enumerate(schedules):
            if quad >= 4:
                a, b, c, d = schedule[-4:]
                partial = builder.add(builder.call(expand1, [a, b]), _shuffle(builder, c, d, [1, 2, 3, 4]))
                schedule.append(builder.call(expand2, [partial, d]))
            upper, lower = current[stream]
            words = builder.add(schedule[quad], constants)
            lower = builder.call(rounds, [lower, upper, words])
            upper = builder.call(rounds, [upper, lower, _shuffle(builder, words, words, [2, 3, 0, 0])])
            current[stream] = (upper, lower)
    return [
        (builder.add(upper, before[0]), builder.add(lower, before[1]))
        for (upper, lower), before in zip(current, states, strict=True)
    ]


STREAMS = 2


@intrinsic
def hash_with_instructions(typingctx, messages, message_step, blocks, digests):
    """Digests of STREAMS messages of `blocks` >= 1 padded 64-byte blocks, `message_step` bytes apart, to `digests`."""

    def generate(context, builder, signature, arguments):
        messages, message_step, blocks, digests = arguments
        a, b, c, d, e, f, g, h = INITIAL
        starts = [builder.add(messages, builder.mul(message_step, I64(i))) for i in range(STREAMS)]
        initial = [_constant(QUAD, [f, e, b, a]), _constant(QUAD, [h, g, d, c])] * STREAMS

        def body(index, carried):
            offset = builder.mul(index, I64(64))
            states = [(carried[2 * i], carried[2 * i + 1]) for i in range(STREAMS)]
            after = _compress_pairwise(builder, states, [builder.add(start, offset) for start in starts])
            return [half for state in after for half in state]

        final = emit_loop(builder, blocks, initial, body)
        for i in range(STREAMS):
            upper, lower = final[2 * i], final[2 * i + 1]
            for half, lanes in enumerate(([3, 2, 7, 6], [1, 0, 5, 4])):
                words = _swap_bytes(builder, _shuffle(builder, upper, lower, lanes))
                store(builder, words, digests, 32 * i + 16 * half)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


# -- one message in each lane ----------------------------------------------------------------------------------------


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of a square of vectors: each step exchanges blocks of `distance` lanes across the diagonal."""
    size = len(rows)
    distance = 1
    while distance < size:
        keep = [lane if not lane & distance else lane + size - distance for lane in range(size)]
        move = [lane + distance if not lane & distance else lane + size for lane in range(size)]
        rows = [
            _shuffle(builder, rows[i], rows[i | distance], keep)
            if not i & distance
            else _shuffle(builder, rows[i & ~distance], rows[i], move)
            for i in range(size)
        ]
        distance *= 2
    return rows


def _rotate(builder: Any, value: Any, bits: int) -> Any:
    name = f"llvm.fshr.v{WORDS.count}i32"
    kind = ir.FunctionType(WORDS, [WORDS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [value, value, _constant(WORDS, [bits] * WORDS.count)])


def _mixed(builder: Any, value: Any, first: int, second: int, third: int, shift: bool) -> Any:
    """rotate(first) ^ rotate(second) ^ (shift or rotate)(third)."""
    last = builder.lshr(value, _constant(WORDS, [third] * WORDS.count)) if shift else _rotate(builder, value, third)
    return builder.xor(builder.xor(_rotate(builder, value, first), _rotate(builder, value, second)), last)


def _compress_lanes(builder: Any, state: list[Any], schedule: list[Any]) -> list[Any]:
    a, b, c, d, e, f, g, h = state
    words = list(schedule)
    for t in range(64):
        if t >= 16:
            old = builder.add(words[t - 16], _mixed(builder, words[t - 15], 7, 18, 3, True))
            words.append(builder.add(builder.add(old, words[t - 7]), _mixed(builder, words[t - 2], 17, 19, 10, True)))
        choose = builder.xor(g, builder.and_(e, builder.xor(f, g)))
        majority = builder.or_(builder.and_(a, b), builder.and_(c, builder.or_(a, b)))
        constant = _constant(WORDS, [ROUND_CONSTANTS[t]] * WORDS.count)
        first = builder.add(builder.add(h, constant), words[t])
        first = builder.add(builder.add(first, choose), _mixed(builder, e, 6, 11, 25, False))
        second = builder.add(majority, _mixed(builder, a, 2, 13, 22, False))
        a, b, c, d, e, f, g, h = builder.add(first, second), a, b, c, builder.add(d, first), e, f, g
    return [builder.add(before, after) for before, after in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


@intrinsic
def hash_in_lanes(typingctx, messages, message_step, blocks, digests):
    """Like `hash_with_instructions`, for as many messages as the vector unit has lanes."""

    def generate(context, builder, signature, arguments):
        messages, message_step, blocks, digests = arguments
        lanes = WORDS.count
        starts = [builder.add(messages, builder.mul(message_step, I64(i))) for i in range(lanes)]
        initial = [_constant(WORDS, [word] * lanes) for word in INITIAL]

        def body(index, carried):
            offset = builder.mul(index, I64(64))
            schedule: list[Any] = []
            for part in range(0, 16, lanes):
                rows = [load(builder, builder.add(start, offset), 4 * part, WORDS) for start in starts]
                schedule += [_swap_bytes(builder, column) for column in _transpose(builder, rows)]
            return _compress_lanes(builder, carried, schedule)

        final = emit_loop(builder, blocks, initial, body)
        for t, word in enumerate(final):
            swapped = _swap_bytes(builder, word)
            for lane in range(lanes):
                store(builder, builder.extract_element(swapped, I32(lane)), digests, 32 * lane + 4 * t)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def copy_canonical(typingctx, destination, source):
    """Copy one vector of binary32 values with every NaN replaced by 0x7fc00000."""

    def generate(context, builder, signature, arguments):
        values = load(builder, arguments[1], 0, VECTOR)
        bits = builder.bitcast(values, WORDS)
        canonical = splat(builder, I32(0x7FC00000), WORDS)
        clean = builder.select(builder.fcmp_unordered("uno", values, values), canonical, bits)
        # The destination is a message after its domain byte: at an odd address.
        builder.store(clean, builder.inttoptr(arguments[0], WORDS.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def copy_words(typingctx, destination, source):
    """Copy one vector of 32-bit words to an address of any alignment."""

    def generate(context, builder, signature, arguments):
        values = load(builder, arguments[1], 0, WORDS)
        builder.store(values, builder.inttoptr(arguments[0], WORDS.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def store_byte(typingctx, address, value):
    """Store the low 8 bits of `value`."""

    def generate(context, builder, signature, arguments):
        byte = builder.trunc(arguments[1], ir.IntType(8))
        builder.store(byte, builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def store_word(typingctx, address, value):
    """Store the low 32 bits of `value` at an address of any alignment."""

    def generate(context, builder, signature, arguments):
        word = builder.trunc(arguments[1], I32)
        builder.store(word, builder.inttoptr(arguments[0], I32.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate
