"""The arithmetic's transcendental functions as vector instructions, written from their listings step by step."""

from __future__ import annotations

from assay.arithmetic.transcendental import SEQUENCES
from assay.engine.cpu.emitter import Emitter, float_literal
from assay.program.operator import Body

FUNCTIONS: dict[Body, str] = {
    Body.EXP: "exp",
    Body.LOG: "log",
    Body.TANH: "tanh",
    Body.ERF: "erf",
    Body.SIN: "sin",
    Body.COS: "cos",
}

_FLOATS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARISONS = {"lt": "olt", "le": "ole", "eq": "oeq"}
_INTEGERS = {"iadd": "add", "isub": "sub", "iand": "and", "ixor": "xor"}
_SHIFTS = {"shl": "shl", "shr": "lshr", "sar": "ashr"}


class _Words:
    """The words of a sequence, each in the forms it has been asked for: float, bits, or truth value."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self.floats: dict[str, str] = {}
        self.integers: dict[str, str] = {}
        self.truths: dict[str, str] = {}

    def as_float(self, name: str | int) -> str:
        if isinstance(name, int):
            return self.e.splat_literal("float", float_literal(name))
        if name not in self.floats:
            self.floats[name] = self.e.from_bits(self.as_bits(name))
        return self.floats[name]

    def as_bits(self, name: str | int) -> str:
        if isinstance(name, int):
            return self.e.constant_i32(name)
        if name not in self.integers:
            if name in self.truths:
                self.integers[name] = self.e.truth(self.truths[name])
            else:
                self.integers[name] = self.e.bits(self.floats[name])
        return self.integers[name]

    def as_truth(self, name: str | int) -> str:
        if isinstance(name, str) and name in self.truths:
            return self.truths[name]
        return self.e.nonzero(self.as_bits(name))


def emit(body: Body, e: Emitter, x: str) -> str:
    """The function's value at `x`. A NaN result need not be canonical: it is made so where it is hashed."""
    sequence = SEQUENCES[FUNCTIONS[body]]
    words = _Words(e)
    words.floats["x"] = x
    for step in sequence.steps:
        name, operation, arguments = step.name, step.operation, step.arguments
        if operation in _FLOATS:
            words.floats[name] = e.let(
                f"{_FLOATS[operation]} {e.f32} {words.as_float(arguments[0])}, {words.as_float(arguments[1])}"
            )
        elif operation == "fma":
            words.floats[name] = e.fma(*(words.as_float(argument) for argument in arguments))
        elif operation == "absolute":
            words.floats[name] = e.abs(words.as_float(arguments[0]))
        elif operation == "copysign":
            size = words.e.let(f"and {e.i32} {words.as_bits(arguments[0])}, {e.constant_i32(0x7FFFFFFF)}")
            sign = words.e.let(f"and {e.i32} {words.as_bits(arguments[1])}, {e.constant_i32(0x80000000)}")
            words.integers[name] = e.let(f"or {e.i32} {size}, {sign}")
        elif operation in _COMPARISONS:
            words.truths[name] = e.compare(
                _COMPARISONS[operation], words.as_float(arguments[0]), words.as_float(arguments[1])
            )
        elif operation == "select":
            condition = words.as_truth(arguments[0])
            words.floats[name] = e.pick(condition, e.f32, words.as_float(arguments[1]), words.as_float(arguments[2]))
        elif operation in _INTEGERS:
            words.integers[name] = e.integer(
                _INTEGERS[operation], words.as_bits(arguments[0]), words.as_bits(arguments[1])
            )
        elif operation in _SHIFTS:
            words.integers[name] = e.integer(
                _SHIFTS[operation], words.as_bits(arguments[0]), words.as_bits(arguments[1])
            )
        else:
            raise NotImplementedError(f"no vector instruction for the step {operation}")
    return words.as_float(sequence.result)
