"""The arithmetic `binary32-1` on the machine's own floating-point unit, through numba.

Everything here gives the bits of the reference (`binary32`, `transcendental`), except that a NaN may carry any
sign and payload until `canonicalize` makes it the one NaN, as must happen wherever values are hashed.

Inside any `@njit` function (never with `fastmath`, which allows contraction and reassociation):

    from assay.arithmetic.native import exp, fma

    @njit(error_model="numpy")
    def kernel(x, y):                    # float32 arrays
        for i in range(x.size):
            y[i] = fma(exp(x[i]), x[i], y[i])

The scalar functions are intrinsics: their LLVM instructions land in the caller, without a call or a branch, so
that such a loop becomes vector code of the machine's full width. numba adds, subtracts and multiplies float32
without contraction; `div`, `sqrt`, `fma`, `maximum`, `minimum` and `float_to_int` are here because numba's own
raise, promote, or treat NaN differently.

The threads that run this must neither flush subnormals to zero nor round in another direction (both are off
unless a library turned them on: `torch.set_flush_denormal(True)` does, for its thread). numba does not see a
changed sequence when it reuses cached code: a kernel compiled with `cache=True` must be keyed by more than its
own source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from assay.arithmetic import binary32, transcendental

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)


_intrinsic: Callable[[Any], Any] = intrinsic  # its annotations are those of the code generator, not of the calls


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Call an LLVM intrinsic, declared where it is missing."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    declare: Callable[..., Any] = cgutils.get_or_insert_function
    return builder.call(declare(builder.module, signature, name), arguments)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, "llvm.fma.f32", _FLOAT, [a, b, c])


def _extremum(builder: Any, relation: str, a: Any, b: Any) -> Any:
    """`a relation b ? a : b`, and NaN if either is NaN: a NaN in b is b already, a NaN in a overrides."""
    chosen = builder.select(builder.fcmp_ordered(relation, a, b), a, b)
    return builder.select(builder.fcmp_unordered("uno", a, a), a, chosen)


@_intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding."""
    return _floats(3), lambda context, builder, signature, arguments: _fma(builder, *arguments)


@_intrinsic
def div(typing_context: Any, a: Any, b: Any) -> Any:
    """a / b; division by zero gives an infinity or NaN, never an exception."""
    return _floats(2), lambda context, builder, signature, arguments: builder.fdiv(*arguments)


@_intrinsic
def sqrt(typing_context: Any, a: Any) -> Any:
    """Square root; NaN below zero."""
    return _floats(1), lambda context, builder, signature, arguments: _call(builder, "llvm.sqrt.f32", _FLOAT, arguments)


@_intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """`a > b ? a : b`, or NaN if either is NaN."""
    return _floats(2), lambda context, builder, signature, arguments: _extremum(builder, ">", *arguments)


@_intrinsic
def minimum(typing_context: Any, a: Any, b: Any) -> Any:
    """`a < b ? a : b`, or NaN if either is NaN."""
    return _floats(2), lambda context, builder, signature, arguments: _extremum(builder, "<", *arguments)


@_intrinsic
def float_to_int(typing_context: Any, a: Any) -> Any:
    """int32 toward zero, saturating, NaN to 0."""
    signature = types.int32(types.float32)
    return signature, lambda context, builder, signature, arguments: _call(
        builder, "llvm.fptosi.sat.i32.f32", _INT, arguments
    )


@_intrinsic
def int_to_float(typing_context: Any, a: Any) -> Any:
    """float32 nearest to an int32, ties to even."""
    signature = types.float32(types.int32)
    return signature, lambda context, builder, signature, arguments: builder.sitofp(arguments[0], _FLOAT)


@_intrinsic
def bits_of(typing_context: Any, a: Any) -> Any:
    """The bits of a float32 as an int32."""
    return types.int32(types.float32), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], _INT
    )


@_intrinsic
def float_of(typing_context: Any, a: Any) -> Any:
    """The float32 that has the bits of an int32."""
    return types.float32(types.int32), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], _FLOAT
    )


def _floats(arity: int) -> Any:
    """Signature float32(float32, ...)."""
    return types.float32(*[types.float32] * arity)


class _SequenceEmitter:
    """Emits the LLVM instructions of a `transcendental.Sequence`.

    A value keeps the type its operation gives (float, i32 or i1) and is reinterpreted, not converted, where a
    step wants another.
    """

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def floats(self, *values: Any) -> list[Any]:
        return [value if value.type == _FLOAT else self.builder.bitcast(value, _FLOAT) for value in values]

    def ints(self, *values: Any) -> list[Any]:
        return [value if value.type == _INT else self.builder.bitcast(value, _INT) for value in values]

    def step(self, operation: str, arguments: list[Any]) -> Any:
        """One step; `arguments` are LLVM values."""
        builder = self.builder
        if operation in ("lt", "le", "eq"):
            return builder.fcmp_ordered({"lt": "<", "le": "<=", "eq": "=="}[operation], *self.floats(*arguments))
        if operation == "select":
            condition, a, b = arguments
            if condition.type == _INT:
                condition = builder.icmp_unsigned("!=", condition, ir.Constant(_INT, 0))
            return builder.select(condition, *self.floats(a, b))
        if operation in ("fma", "absolute", "copysign"):
            name = {"fma": "llvm.fma.f32", "absolute": "llvm.fabs.f32", "copysign": "llvm.copysign.f32"}[operation]
            return _call(builder, name, _FLOAT, self.floats(*arguments))
        float_instructions = {"add": builder.fadd, "sub": builder.fsub, "mul": builder.fmul, "div": builder.fdiv}
        if operation in float_instructions:
            return float_instructions[operation](*self.floats(*arguments))
        integer_instructions = {
            "iadd": builder.add,
            "isub": builder.sub,
            "iand": builder.and_,
            "ixor": builder.xor,
            "shl": builder.shl,
            "shr": builder.lshr,
            "sar": builder.ashr,
        }
        return integer_instructions[operation](*self.ints(*arguments))

    def sequence(self, sequence: transcendental.Sequence, x: Any) -> Any:
        """All steps for the float value x; returns a float value."""
        values = {"x": x}
        for step in sequence.steps:
            arguments = [
                values[argument] if isinstance(argument, str) else ir.Constant(_INT, argument)
                for argument in step.arguments
            ]
            values[step.name] = self.step(step.operation, arguments)
        return self.floats(values[sequence.result])[0]


def _transcendental(name: str) -> Any:
    sequence = transcendental.SEQUENCES[name]

    def function(typing_context: Any, x: Any) -> Any:
        return _floats(1), lambda context, builder, signature, arguments: _SequenceEmitter(builder).sequence(
            sequence, arguments[0]
        )

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"float32 {name} by the sequence in `assay.arithmetic.transcendental`."
    return _intrinsic(function)


exp = _transcendental("exp")
log = _transcendental("log")
tanh = _transcendental("tanh")
erf = _transcendental("erf")
sin = _transcendental("sin")
cos = _transcendental("cos")


def compile_unary(function: Any) -> Callable[[NDArray[np.float32], NDArray[np.float32]], None]:
    """Kernel (source, target): a scalar float32 function on contiguous vectors of one length, without the GIL."""

    @njit(nogil=True, error_model="numpy")
    def kernel(source: Any, target: Any) -> None:
        for i in range(source.size):
            target[i] = function(source[i])

    unary: Callable[[NDArray[np.float32], NDArray[np.float32]], None] = kernel
    return unary


def canonicalize(values: NDArray[np.float32]) -> None:
    """Replace, in place, every NaN by the one NaN (0x7fc00000)."""
    values.view(np.uint32)[np.isnan(values)] = binary32.NAN
