"""A small writer of LLVM IR text, and the scalar bodies of FORMAT.md 2.2 as vector instructions.

Values are names of SSA registers or literals. `Emitter.width` is the number of lanes of what is being written: the
vector unit's for main loops, 1 for remainders; every helper follows it. No fast-math flag appears anywhere, so LLVM
neither contracts nor reorders.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NAN = "0x7FF8000000000000"  # LLVM writes float literals as doubles; this one truncates to 0x7fc00000
NEGATIVE_INFINITY = "0xFFF0000000000000"


def float_literal(bits: int) -> str:
    """LLVM literal of the binary32 value with these bits."""
    value: float = struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0]
    if value != value:
        return NAN
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def signed(bits: int) -> int:
    """The int32 with these 32 bits."""
    return bits - (1 << 32) if bits & 0x80000000 else bits


class Emitter:
    """Lines of one function body, fresh names, and the declarations it needs."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.width = lanes
        self.lines: list[str] = []
        self.slots: list[str] = []
        self.declarations: set[str] = set()
        self._next = 0

    # -- plumbing ------------------------------------------------------------------------------------------------

    def fresh(self, prefix: str = "v") -> str:
        self._next += 1
        return f"%{prefix}{self._next}"

    def label(self) -> str:
        self._next += 1
        return f"L{self._next}"

    def line(self, text: str) -> None:
        self.lines.append(text)

    def let(self, text: str) -> str:
        name = self.fresh()
        self.lines.append(f"{name} = {text}")
        return name

    def place(self, label: str) -> None:
        self.lines.append(f"br label %{label}")
        self.lines.append(f"{label}:")

    def slot(self, kind: str) -> str:
        """A stack slot in the entry block (promoted to a register by LLVM)."""
        name = self.fresh("s")
        self.slots.append(f"{name} = alloca {kind}")
        return name

    def call(self, kind: str, name: str, arguments: list[tuple[str, str]]) -> str:
        self.declarations.add(f"declare {kind} @{name}({', '.join(each for each, _ in arguments)})")
        return self.let(f"call {kind} @{name}({', '.join(f'{each} {value}' for each, value in arguments)})")

    @contextmanager
    def lanes_of(self, width: int) -> Iterator[None]:
        before, self.width = self.width, width
        try:
            yield
        finally:
            self.width = before

    def loop(self, start: str, end: str, step: int, body: Callable[[str], None]) -> None:
        """for (i64 i = start; i < end; i += step) body(i)"""
        counter = self.slot("i64")
        head, inside, done = self.label(), self.label(), self.label()
        self.line(f"store i64 {start}, ptr {counter}")
        self.place(head)
        index = self.let(f"load i64, ptr {counter}")
        more = self.let(f"icmp slt i64 {index}, {end}")
        self.line(f"br i1 {more}, label %{inside}, label %{done}")
        self.line(f"{inside}:")
        body(index)
        following = self.add64(index, str(step))
        self.line(f"store i64 {following}, ptr {counter}")
        self.line(f"br label %{head}")
        self.line(f"{done}:")

    def when(self, condition: str, body: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """if (condition) body() else otherwise()"""
        yes, no, done = self.label(), self.label(), self.label()
        self.line(f"br i1 {condition}, label %{yes}, label %{no}")
        self.line(f"{yes}:")
        body()
        self.line(f"br label %{done}")
        self.line(f"{no}:")
        if otherwise is not None:
            otherwise()
        self.line(f"br label %{done}")
        self.line(f"{done}:")

    # -- types ---------------------------------------------------------------------------------------------------

    def vector(self, element: str) -> str:
        return element if self.width == 1 else f"<{self.width} x {element}>"

    @property
    def f32(self) -> str:
        return self.vector("float")

    @property
    def i32(self) -> str:
        return self.vector("i32")

    @property
    def i1(self) -> str:
        return self.vector("i1")

    def _suffix(self, element: str) -> str:
        return element if self.width == 1 else f"v{self.width}{element}"

    def splat(self, element: str, value: str) -> str:
        """`value` (a scalar name or literal of type `element`) in every lane."""
        if self.width == 1:
            return value
        kind = self.vector(element)
        first = self.let(f"insertelement {kind} poison, {element} {value}, i64 0")
        return self.let(f"shufflevector {kind} {first}, {kind} poison, <{self.width} x i32> zeroinitializer")

    def constant_f32(self, bits: int) -> str:
        return self.splat_literal("float", float_literal(bits))

    def constant_i32(self, value: int) -> str:
        return self.splat_literal("i32", str(signed(value & 0xFFFFFFFF)))

    def splat_literal(self, element: str, literal: str) -> str:
        if self.width == 1:
            return literal
        return "<" + ", ".join([f"{element} {literal}"] * self.width) + ">"

    # -- 64-bit address arithmetic on scalars --------------------------------------------------------------------

    def add64(self, a: str, b: str) -> str:
        if a == "0":
            return b
        if b == "0":
            return a
        if _number(a) and _number(b):
            return str(int(a) + int(b))
        return self.let(f"add i64 {a}, {b}")

    def mul64(self, a: str, b: int) -> str:
        if b == 0 or a == "0":
            return "0"
        if b == 1:
            return a
        if _number(a):
            return str(int(a) * b)
        return self.let(f"mul i64 {a}, {b}")

    # -- float32 -------------------------------------------------------------------------------------------------

    def add(self, a: str, b: str) -> str:
        return self.let(f"fadd {self.f32} {a}, {b}")

    def sub(self, a: str, b: str) -> str:
        return self.let(f"fsub {self.f32} {a}, {b}")

    def mul(self, a: str, b: str) -> str:
        return self.let(f"fmul {self.f32} {a}, {b}")

    def div(self, a: str, b: str) -> str:
        return self.let(f"fdiv {self.f32} {a}, {b}")

    def neg(self, a: str) -> str:
        return self.let(f"fneg {self.f32} {a}")

    def sqrt(self, a: str) -> str:
        return self.call(self.f32, f"llvm.sqrt.{self._suffix('f32')}", [(self.f32, a)])

    def abs(self, a: str) -> str:
        return self.call(self.f32, f"llvm.fabs.{self._suffix('f32')}", [(self.f32, a)])

    def fma(self, a: str, b: str, c: str) -> str:
        return self.call(self.f32, f"llvm.fma.{self._suffix('f32')}", [(self.f32, a), (self.f32, b), (self.f32, c)])

    def compare(self, predicate: str, a: str, b: str) -> str:
        """An i1 (vector)."""
        return self.let(f"fcmp {predicate} {self.f32} {a}, {b}")

    def pick(self, condition: str, kind: str, a: str, b: str) -> str:
        """condition ? a : b, lane by lane; `condition` is an i1 (vector)."""
        return self.let(f"select {self.i1} {condition}, {kind} {a}, {kind} {b}")

    def maximum(self, a: str, b: str, predicate: str = "ogt") -> str:
        chosen = self.pick(self.compare(predicate, a, b), self.f32, a, b)
        return self.pick(self.compare("uno", a, b), self.f32, self.splat_literal("float", NAN), chosen)

    def minimum(self, a: str, b: str) -> str:
        return self.maximum(a, b, "olt")

    def truth(self, condition: str) -> str:
        """An i1 (vector) as int32 1 or 0."""
        return self.let(f"zext {self.i1} {condition} to {self.i32}")

    def nonzero(self, a: str) -> str:
        return self.let(f"icmp ne {self.i32} {a}, {self.constant_i32(0)}")

    def bits(self, a: str) -> str:
        return self.let(f"bitcast {self.f32} {a} to {self.i32}")

    def from_bits(self, a: str) -> str:
        return self.let(f"bitcast {self.i32} {a} to {self.f32}")

    def canonical_bits(self, a: str) -> str:
        quiet = self.pick(self.compare("uno", a, a), self.f32, self.splat_literal("float", NAN), a)
        return self.bits(quiet)

    def to_int(self, a: str) -> str:
        name = f"llvm.fptosi.sat.{self._suffix('i32')}.{self._suffix('f32')}"
        return self.call(self.i32, name, [(self.f32, a)])

    def to_float(self, a: str) -> str:
        return self.let(f"sitofp {self.i32} {a} to {self.f32}")

    # -- int32 ---------------------------------------------------------------------------------------------------

    def integer(self, operation: str, a: str, b: str) -> str:
        return self.let(f"{operation} {self.i32} {a}, {b}")

    def icompare(self, predicate: str, a: str, b: str) -> str:
        return self.let(f"icmp {predicate} {self.i32} {a}, {b}")

    def floor_divide(self, a: str, b: str, remainder: bool) -> str:
        """floor(a / b), or a - b * floor(a / b); by 0 gives 0; -2^31 / -1 wraps."""
        zero, one = self.constant_i32(0), self.constant_i32(1)
        by_zero = self.icompare("eq", b, zero)
        minus_one = self.icompare("eq", b, self.constant_i32(-1))
        # sdiv is undefined for both; they are answered apart.
        safe = self.pick(self.let(f"or {self.i1} {by_zero}, {minus_one}"), self.i32, one, b)
        quotient = self.integer("sdiv", a, safe)
        rest = self.integer("sub", a, self.integer("mul", quotient, safe))
        opposite = self.icompare("slt", self.integer("xor", rest, safe), zero)
        adjust = self.let(f"and {self.i1} {self.icompare('ne', rest, zero)}, {opposite}")
        quotient = self.pick(adjust, self.i32, self.integer("sub", quotient, one), quotient)
        quotient = self.pick(minus_one, self.i32, self.integer("sub", zero, a), quotient)
        quotient = self.pick(by_zero, self.i32, zero, quotient)
        if not remainder:
            return quotient
        left = self.integer("sub", a, self.integer("mul", quotient, b))
        return self.pick(by_zero, self.i32, zero, left)


def _number(text: str) -> bool:
    return text.lstrip("-").isdigit()
