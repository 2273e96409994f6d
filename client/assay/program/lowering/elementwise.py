"""Elementwise calls: arithmetic, comparisons, activations and their derivatives."""

from __future__ import annotations

import math

from assay.program.lowering.builder import FLOAT, INT, Builder, Scalar
from assay.program.lowering.registry import lowers
from assay.program.lowering.view import View
from assay.program.operator import Body

Operand = View | Scalar


def is_float(*values: Operand) -> bool:
    """Whether arithmetic on these is in floats: any float tensor, or a float number."""
    return any(v.type == FLOAT if isinstance(v, View) else isinstance(v, float) for v in values)


def binary(b: Builder, floats: Body, integers: Body, x: Operand, y: Operand) -> View:
    """A body for floats or its counterpart for integers, by the operands' types."""
    return b.apply(floats if is_float(x, y) else integers, x, y)


def _scaled(b: Builder, y: Operand, alpha: Scalar) -> Operand:
    if alpha == 1:
        return y
    return y * alpha if not isinstance(y, View) else binary(b, Body.MUL, Body.IMUL, y, alpha)


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> View:
    return binary(b, Body.ADD, Body.IADD, x, _scaled(b, y, alpha))


@lowers("aten.sub.Tensor", "aten.sub.Scalar")
def sub(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> View:
    return binary(b, Body.SUB, Body.ISUB, x, _scaled(b, y, alpha))


@lowers("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> View:
    return sub(b, y, x, alpha)


@lowers("aten.mul.Tensor", "aten.mul.Scalar")
def mul(b: Builder, x: Operand, y: Operand) -> View:
    return binary(b, Body.MUL, Body.IMUL, x, y)


@lowers("aten.div.Tensor", "aten.div.Scalar")
def div(b: Builder, x: Operand, y: Operand) -> View:
    return b.apply(Body.DIV, x, y)


@lowers("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div_mode(b: Builder, x: Operand, y: Operand, rounding_mode: str | None = None) -> View:
    if rounding_mode is None:
        return div(b, x, y)
    if rounding_mode == "floor" and not is_float(x, y):
        return b.apply(Body.IDIV, x, y)
    raise ValueError(f"division with rounding mode {rounding_mode!r}; integers round with 'floor'")


@lowers("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(b: Builder, x: Operand, y: Operand) -> View:
    return div_mode(b, x, y, "floor")


@lowers("aten.remainder.Tensor", "aten.remainder.Scalar")
def remainder(b: Builder, x: Operand, y: Operand) -> View:
    if is_float(x, y):
        raise ValueError("remainder of floats; use integers")
    return b.apply(Body.IMOD, x, y)


@lowers("aten.neg.default")
def neg(b: Builder, x: View) -> View:
    return b.apply(Body.NEG, x) if x.type == FLOAT else b.apply(Body.ISUB, 0, x)


@lowers("aten.abs.default")
def absolute(b: Builder, x: View) -> View:
    if x.type == FLOAT:
        return b.apply(Body.ABS, x)
    return b.apply(Body.SELECT, b.apply(Body.ILT, x, 0), b.apply(Body.ISUB, 0, x), x)


@lowers("aten.sqrt.default")
def sqrt(b: Builder, x: View) -> View:
    return b.apply(Body.SQRT, x)


@lowers("aten.rsqrt.default")
def rsqrt(b: Builder, x: View) -> View:
    return b.apply(Body.DIV, 1.0, b.apply(Body.SQRT, x))


@lowers("aten.reciprocal.default")
def reciprocal(b: Builder, x: View) -> View:
    return b.apply(Body.DIV, 1.0, x)


@lowers("aten.square.default")
def square(b: Builder, x: View) -> View:
    return mul(b, x, x)


@lowers("aten.exp.default")
def exp(b: Builder, x: View) -> View:
    return b.apply(Body.EXP, x)


@lowers("aten.log.default")
def log(b: Builder, x: View) -> View:
    return b.apply(Body.LOG, x)


@lowers("aten.log1p.default")
def log1p(b: Builder, x: View) -> View:
    """log(1 + x) without the cancellation: log(u) * x / (u - 1) with u = 1 + x rounded (Kahan)."""
    u = b.apply(Body.ADD, x, 1.0)
    exact = b.apply(Body.DIV, b.apply(Body.MUL, b.apply(Body.LOG, u), x), b.apply(Body.SUB, u, 1.0))
    return b.apply(Body.SELECT, b.apply(Body.EQ, u, 1.0), x, exact)


@lowers("aten.tanh.default")
def tanh(b: Builder, x: View) -> View:
    return b.apply(Body.TANH, x)


@lowers("aten.erf.default")
def erf(b: Builder, x: View) -> View:
    return b.apply(Body.ERF, x)


@lowers("aten.sin.default")
def sin(b: Builder, x: View) -> View:
    return b.apply(Body.SIN, x)


@lowers("aten.cos.default")
def cos(b: Builder, x: View) -> View:
    return b.apply(Body.COS, x)


@lowers("aten.sigmoid.default")
def sigmoid(b: Builder, x: View) -> View:
    return b.apply(Body.DIV, 1.0, b.apply(Body.ADD, b.apply(Body.EXP, b.apply(Body.NEG, x)), 1.0))


@lowers("aten.pow.Tensor_Scalar")
def power(b: Builder, x: View, exponent: Scalar) -> View:
    """Whole exponents by repeated squaring, half ones with a square root."""
    if 2 * exponent != int(2 * exponent) or abs(exponent) > 64 or (x.type == INT and exponent < 0):
        raise ValueError(f"power {exponent}; whole and half exponents are lowered, write others with exp and log")
    if exponent == 0:
        return b.number(1, x.type, x.shape)
    n = abs(int(exponent))
    result: View | None = sqrt(b, x) if exponent != int(exponent) else None
    square_of = x
    while n:
        if n & 1:
            result = square_of if result is None else mul(b, result, square_of)
        n >>= 1
        if n:
            square_of = mul(b, square_of, square_of)
    if result is None:
        raise ValueError("no exponent")
    return reciprocal(b, result) if exponent < 0 else result


@lowers("aten.maximum.default")
def maximum(b: Builder, x: View, y: View) -> View:
    if is_float(x, y):
        return b.apply(Body.MAX, x, y)
    return b.apply(Body.SELECT, b.apply(Body.ILT, x, y), y, x)


@lowers("aten.minimum.default")
def minimum(b: Builder, x: View, y: View) -> View:
    if is_float(x, y):
        return b.apply(Body.MIN, x, y)
    return b.apply(Body.SELECT, b.apply(Body.ILT, x, y), x, y)


@lowers("aten.clamp.default", "aten.hardtanh.default")
def clamp(b: Builder, x: View, low: Scalar | None = None, high: Scalar | None = None) -> View:
    # The bound comes first: max(a, b) is a > b ? a : b, so an equal zero keeps the sign of x.
    if low is not None:
        x = maximum(b, b.number(low, x.type), x)
    if high is not None:
        x = minimum(b, b.number(high, x.type), x)
    return x


@lowers("aten.clamp.Tensor")
def clamp_tensors(b: Builder, x: View, low: View | None = None, high: View | None = None) -> View:
    if low is not None:
        x = maximum(b, low, x)
    return x if high is None else minimum(b, high, x)


@lowers("aten.clamp_min.Tensor")
def clamp_min_tensor(b: Builder, x: View, low: View) -> View:
    return maximum(b, low, x)


@lowers("aten.clamp_max.Tensor")
def clamp_max_tensor(b: Builder, x: View, high: View) -> View:
    return minimum(b, high, x)


@lowers("aten.clamp_min.default")
def clamp_min(b: Builder, x: View, low: Scalar) -> View:
    return clamp(b, x, low)


@lowers("aten.clamp_max.default")
def clamp_max(b: Builder, x: View, high: Scalar) -> View:
    return clamp(b, x, None, high)


@lowers("aten.sgn.default", "aten.sign.default")
def sign(b: Builder, x: View) -> View:
    positive = b.apply(Body.TO_FLOAT, b.apply(Body.LT, 0.0, x))
    negative = b.apply(Body.TO_FLOAT, b.apply(Body.LT, x, 0.0))
    return b.apply(Body.SUB, positive, negative)


# --- comparisons and logic -------------------------------------------------------------------------------------------


@lowers("aten.eq.Tensor", "aten.eq.Scalar")
def eq(b: Builder, x: Operand, y: Operand) -> View:
    return binary(b, Body.EQ, Body.SAME, _as_int(b, x, y), _as_int(b, y, x))


def _as_int(b: Builder, x: Operand, other: Operand) -> Operand:
    """A number as an int32 view where the comparison is one of integers (the body `same` takes either)."""
    return x if isinstance(x, View) or is_float(x, other) else b.number(x, INT)


def logical_not(b: Builder, x: View) -> View:
    """1 - x for a truth value."""
    return b.apply(Body.IXOR, x, 1)


@lowers("aten.ne.Tensor", "aten.ne.Scalar")
def ne(b: Builder, x: Operand, y: Operand) -> View:
    return logical_not(b, eq(b, x, y))


@lowers("aten.lt.Tensor", "aten.lt.Scalar")
def lt(b: Builder, x: Operand, y: Operand) -> View:
    return binary(b, Body.LT, Body.ILT, x, y)


@lowers("aten.le.Tensor", "aten.le.Scalar")
def le(b: Builder, x: Operand, y: Operand) -> View:
    return binary(b, Body.LE, Body.ILE, x, y)


@lowers("aten.gt.Tensor", "aten.gt.Scalar")
def gt(b: Builder, x: Operand, y: Operand) -> View:
    return lt(b, y, x)


@lowers("aten.ge.Tensor", "aten.ge.Scalar")
def ge(b: Builder, x: Operand, y: Operand) -> View:
    return le(b, y, x)


def truth(b: Builder, x: View) -> View:
    """1 where x is not zero (NaN counts as true)."""
    return logical_not(b, eq(b, x, 0.0 if x.type == FLOAT else 0))


@lowers("aten.logical_not.default")
def logical_not_call(b: Builder, x: View) -> View:
    return eq(b, x, 0.0 if x.type == FLOAT else 0)


@lowers("aten.bitwise_not.default")
def bitwise_not(b: Builder, x: View, boolean: bool = True) -> View:
    return b.apply(Body.IXOR, x, 1 if boolean else -1)


@lowers("aten.logical_and.default")
def logical_and(b: Builder, x: View, y: View) -> View:
    return b.apply(Body.IAND, truth(b, x), truth(b, y))


@lowers("aten.logical_or.default")
def logical_or(b: Builder, x: View, y: View) -> View:
    return b.apply(Body.IOR, truth(b, x), truth(b, y))


@lowers("aten.bitwise_and.Tensor", "aten.bitwise_and.Scalar")
def bitwise_and(b: Builder, x: Operand, y: Operand) -> View:
    return b.apply(Body.IAND, x, y)


@lowers("aten.bitwise_or.Tensor", "aten.bitwise_or.Scalar")
def bitwise_or(b: Builder, x: Operand, y: Operand) -> View:
    return b.apply(Body.IOR, x, y)


@lowers("aten.bitwise_xor.Tensor", "aten.bitwise_xor.Scalar")
def bitwise_xor(b: Builder, x: Operand, y: Operand) -> View:
    return b.apply(Body.IXOR, x, y)


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(b: Builder, chooser: View, x: Operand, y: Operand) -> View:
    return b.apply(Body.SELECT, chooser, x, y, kind=FLOAT if is_float(x, y) else INT)


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(b: Builder, x: View, mask: View, value: Operand) -> View:
    if not isinstance(value, View):
        value = b.number(value, x.type)
    return b.apply(Body.SELECT, mask, value, x, kind=x.type)


# --- activations -----------------------------------------------------------------------------------------------------


@lowers("aten.relu.default")
def relu(b: Builder, x: View) -> View:
    return b.apply(Body.MAX, x, 0.0)


@lowers("aten.threshold_backward.default")
def threshold_backward(b: Builder, gradient: View, x: View, threshold: Scalar) -> View:
    return b.apply(Body.SELECT, b.apply(Body.LE, x, float(threshold)), 0.0, gradient, kind=FLOAT)


@lowers("aten.leaky_relu.default")
def leaky_relu(b: Builder, x: View, slope: Scalar = 0.01) -> View:
    return b.apply(Body.SELECT, b.apply(Body.LT, 0.0, x), x, b.apply(Body.MUL, x, float(slope)), kind=FLOAT)


@lowers("aten.leaky_relu_backward.default")
def leaky_relu_backward(b: Builder, gradient: View, x: View, slope: Scalar, is_result: bool) -> View:
    scaled = b.apply(Body.MUL, gradient, float(slope))
    return b.apply(Body.SELECT, b.apply(Body.LT, 0.0, x), gradient, scaled, kind=FLOAT)


@lowers("aten.hardtanh_backward.default")
def hardtanh_backward(b: Builder, gradient: View, x: View, low: Scalar, high: Scalar) -> View:
    outside = b.apply(Body.IOR, b.apply(Body.LE, x, float(low)), b.apply(Body.LE, float(high), x))
    return b.apply(Body.SELECT, outside, 0.0, gradient, kind=FLOAT)


@lowers("aten.sigmoid_backward.default")
def sigmoid_backward(b: Builder, gradient: View, y: View) -> View:
    return b.apply(Body.MUL, gradient, b.apply(Body.MUL, b.apply(Body.SUB, 1.0, y), y))


@lowers("aten.tanh_backward.default")
def tanh_backward(b: Builder, gradient: View, y: View) -> View:
    return b.apply(Body.MUL, gradient, b.apply(Body.FMA, b.apply(Body.NEG, y), y, 1.0))


@lowers("aten.silu.default")
def silu(b: Builder, x: View) -> View:
    return b.apply(Body.DIV, x, b.apply(Body.ADD, b.apply(Body.EXP, b.apply(Body.NEG, x)), 1.0))


@lowers("aten.silu_backward.default")
def silu_backward(b: Builder, gradient: View, x: View) -> View:
    s = sigmoid(b, x)
    slope = b.apply(Body.FMA, x, b.apply(Body.SUB, 1.0, s), 1.0)
    return b.apply(Body.MUL, gradient, b.apply(Body.MUL, s, slope))


@lowers("aten.gelu.default")
def gelu(b: Builder, x: View, approximate: str = "none") -> View:
    """x * Phi(x), exact by erf or with the tanh approximation (Hendrycks and Gimpel, 2016)."""
    if approximate == "tanh":
        t_plus_one = b.apply(Body.ADD, b.apply(Body.TANH, _gelu_inner(b, x)), 1.0)
        return b.apply(Body.MUL, b.apply(Body.MUL, x, 0.5), t_plus_one)
    return b.apply(Body.MUL, x, _normal_distribution(b, x))


_ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def _gelu_inner(b: Builder, x: View) -> View:
    """sqrt(2 / pi) * (x + 0.044715 x^3) = x * (c + c * 0.044715 * x^2)."""
    squared = b.apply(Body.MUL, x, x)
    return b.apply(Body.MUL, x, b.apply(Body.FMA, squared, _ROOT_TWO_OVER_PI * _CUBIC, _ROOT_TWO_OVER_PI))


def _normal_distribution(b: Builder, x: View) -> View:
    """Phi(x) = 0.5 * (1 + erf(x / sqrt 2))."""
    return b.apply(Body.FMA, b.apply(Body.ERF, b.apply(Body.MUL, x, math.sqrt(0.5))), 0.5, 0.5)


@lowers("aten.gelu_backward.default")
def gelu_backward(b: Builder, gradient: View, x: View, approximate: str = "none") -> View:
    if approximate == "tanh":
        t = b.apply(Body.TANH, _gelu_inner(b, x))
        squared = b.apply(Body.MUL, x, x)
        inner_slope = b.apply(Body.FMA, squared, 3 * _ROOT_TWO_OVER_PI * _CUBIC, _ROOT_TWO_OVER_PI)
        half = b.apply(Body.MUL, x, 0.5)
        # 0.5 (1 + t) + 0.5 x (1 - t^2) u'
        sech = b.apply(Body.FMA, b.apply(Body.NEG, t), t, 1.0)
        left = b.apply(Body.FMA, t, 0.5, 0.5)
        slope = b.apply(Body.FMA, b.apply(Body.MUL, half, sech), inner_slope, left)
    else:
        squared = b.apply(Body.MUL, x, x)
        density = b.apply(Body.MUL, b.apply(Body.EXP, b.apply(Body.MUL, squared, -0.5)), 1 / math.sqrt(2 * math.pi))
        slope = b.apply(Body.FMA, x, density, _normal_distribution(b, x))
    return b.apply(Body.MUL, gradient, slope)


@lowers("aten.softplus.default")
def softplus(b: Builder, x: View, beta: Scalar = 1, threshold: Scalar = 20) -> View:
    """log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold."""
    scaled = b.apply(Body.MUL, x, float(beta))
    value = b.apply(Body.DIV, log1p(b, b.apply(Body.EXP, scaled)), float(beta))
    return b.apply(Body.SELECT, b.apply(Body.LT, float(threshold), scaled), x, value, kind=FLOAT)


@lowers("aten.softplus_backward.default")
def softplus_backward(b: Builder, gradient: View, x: View, beta: Scalar, threshold: Scalar) -> View:
    scaled = b.apply(Body.MUL, x, float(beta))
    slope = b.apply(Body.MUL, gradient, sigmoid(b, scaled))
    return b.apply(Body.SELECT, b.apply(Body.LT, float(threshold), scaled), gradient, slope, kind=FLOAT)


@lowers("aten.elu.default")
def elu(b: Builder, x: View, alpha: Scalar = 1, scale: Scalar = 1, input_scale: Scalar = 1) -> View:
    raised = b.apply(Body.SUB, b.apply(Body.EXP, b.apply(Body.MUL, x, float(input_scale))), 1.0)
    negative = b.apply(Body.MUL, raised, float(alpha) * float(scale))
    positive = b.apply(Body.MUL, x, float(scale))
    return b.apply(Body.SELECT, b.apply(Body.LE, x, 0.0), negative, positive, kind=FLOAT)


@lowers("aten.elu_backward.default")
def elu_backward(
    b: Builder, gradient: View, alpha: Scalar, scale: Scalar, input_scale: Scalar, is_result: bool, x: View
) -> View:
    positive = b.apply(Body.MUL, gradient, float(scale))
    if is_result:
        slope = b.apply(Body.MUL, b.apply(Body.ADD, x, float(alpha) * float(scale)), float(input_scale))
    else:
        grown = b.apply(Body.EXP, b.apply(Body.MUL, x, float(input_scale)))
        slope = b.apply(Body.MUL, grown, float(alpha) * float(scale) * float(input_scale))
    negative = b.apply(Body.MUL, gradient, slope)
    return b.apply(Body.SELECT, b.apply(Body.LE, x, 0.0), negative, positive, kind=FLOAT)


@lowers("aten.log_sigmoid_forward.default")
def log_sigmoid(b: Builder, x: View) -> tuple[View, View]:
    """min(0, x) - log(1 + exp(-|x|)); the second output, a buffer of PyTorch's, is exp(-|x|)."""
    grown = b.apply(Body.EXP, b.apply(Body.NEG, b.apply(Body.ABS, x)))
    return b.apply(Body.SUB, b.apply(Body.MIN, x, 0.0), log1p(b, grown)), grown


@lowers("aten.log_sigmoid_backward.default")
def log_sigmoid_backward(b: Builder, gradient: View, x: View, buffer: View) -> View:
    return b.apply(Body.MUL, gradient, sigmoid(b, b.apply(Body.NEG, x)))


@lowers("assay.bernoulli")
def bernoulli(b: Builder, stream: int, probability: float, shape: tuple[int, ...]) -> View:
    """1.0 where the step's uniform number is below the probability, else 0.0."""
    if not 0 <= stream < 1 << 31:
        raise ValueError(f"stream {stream}: from 0 to 2^31 - 1; the rest is for noise and the trace")
    uniform = b.emit(Body.UNIFORM, FLOAT, [], shape, p0=stream)
    return b.apply(Body.TO_FLOAT, b.apply(Body.LT, uniform, float(probability)))


@lowers("assay.gather")
def gather_rows(b: Builder, table: View, rows: View) -> View:
    return b.gather(table, 0, rows)


@lowers("assay.permute")
def permute_samples(b: Builder, samples: int, shape: tuple[int, ...]) -> View:
    (batch,) = shape
    return b.emit(Body.PERMUTE, INT, [], (batch,), p0=batch, p1=samples)
