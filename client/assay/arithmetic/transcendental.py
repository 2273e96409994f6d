"""exp, log, tanh, erf, sin and cos of the arithmetic `binary32-1`: fixed sequences of scalar operations.

The listings below *are* the definition. Each is straight-line code in single assignment, one step a line:

    name = operation(argument, ...)        an argument is an earlier name or a 32-bit word in hexadecimal

`x` is the argument, a *canonical* word (any NaN is first replaced by 0x7fc00000); the last line names the
result, which is made canonical once more. Nothing else happens: no branch, no table, no step left out. The
steps are

| step | meaning |
|---|---|
| add, sub, mul, div, fma | the operations of `binary32`, rounded once, NaN canonical |
| absolute(a) | sign bit cleared; a NaN stays the one NaN |
| copysign(a, b) | (a and 0x7fffffff) or (b and 0x80000000), on the bits |
| lt, le, eq | comparison of floats, giving the word 1 or 0; false with NaN |
| select(p, a, b) | a where p is not 0, else b; the bits unchanged |
| iadd, isub | the bits as integers, modulo 2**32 |
| iand, ixor | bitwise |
| shl(a, k), shr(a, k), sar(a, k) | shift of the bits by a constant: left, right logical, right arithmetic |

Two idioms replace conversions between floats and integers:

- *Rounding to an integer.* t = y * c + M with M = 1.5 * 2**23 + b rounds y * c to the nearest integer n (ties
  to even), as long as |n| < 2**22: the bits of t are then the bits of M plus n, and t - M is exactly n as a float.
- *Powers of two.* With b = 127 the low nine bits of t are n + 127 (for -127 < n < 128), so `shl(t, 23)` is the
  float 2**n. For exp, whose results span more than one float exponent, b = 254: h = shr(t, 1) holds 127 +
  floor(n / 2) and t - h holds 127 + ceil(n / 2) in the low nine bits; multiplying by both powers of two in turn
  rounds only once, in the second product, so that results below 2**-126 are subnormal numbers rounded like any
  other.

How they work (errors over all 2**32 arguments are in `ULP.md`):

- exp: n = round(x / ln 2), r = x - n ln 2 in two fused steps, p = r + r**2 P(r) = e**r - 1, result 2**n + 2**n p.
  Clamping to [-104, 89] gives +0 and infinity at the ends; NaN passes the comparisons and arrives as NaN.
- log: x = 2**e m with m in [2/3, 4/3), f = m - 1, result e ln 2 + (f + f**2 (-1/2 + f P(f))). Subnormal
  arguments are first multiplied by 2**23. log(+-0) is -infinity, negative arguments give NaN.
- tanh: with p and s = 2**n as in exp for -2|x|: tanh|x| = -(s p + (s - 1)) / (s p + (s + 1)), both sums rounded
  once. |x| > 10 gives 1.
- erf: erf|x| = 1 - e**-g with g(|x|) = -log(1 - erf|x|) = |x| + |x| Q(|x|), a polynomial on [0, 4]; then as
  tanh's numerator.
- sin, cos: q = round(x * 2 / pi), r = x - q pi / 2 in three fused steps; one odd or even polynomial, selected
  by its coefficients. **Range: |x| <= 2**20 = 1048576.** Beyond it, and for infinities, the result is NaN: a
  visible refusal rather than a number without digits.

tanh, erf and sin are odd and cos is even, to the bit. Signed zeros and subnormal arguments of tanh and sin are
returned unchanged. Coefficients are weighted minimax fits, rounded to binary32 from the lowest order up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from assay.arithmetic import binary32

EXP_LISTING = """
over = lt(0x42b20000, x)                 # 89 < x: the result overflows
y0   = select(over, 0x42b20000, x)
under = lt(y0, 0xc2d00000)               # x < -104: the result rounds to zero
y    = select(under, 0xc2d00000, y0)
t    = fma(y, 0x3fb8aa3b, 0x4b4000fe)    # 1 / ln 2; 1.5 * 2**23 + 254
n    = sub(t, 0x4b4000fe)
r0   = fma(n, 0xbf317218, y)             # -ln 2, upper part
r    = fma(n, 0x3102e308, r0)            # -ln 2, lower part
p4   = fma(r, 0x3ab12833, 0x3c091b41)
p3   = fma(p4, r, 0x3d2ab1e6)
p2   = fma(p3, r, 0x3e2aaa4c)
p1   = fma(p2, r, 0x3efffff7)
rr   = mul(r, r)
p    = fma(p1, rr, r)                    # e**r - 1
h    = shr(t, 1)
g    = isub(t, h)
s1   = shl(h, 23)                        # 2**floor(n / 2)
s2   = shl(g, 23)                        # 2**ceil(n / 2)
z0   = fma(p, s1, s1)
z    = mul(z0, s2)
return z
"""

LOG_LISTING = """
tiny = lt(x, 0x00800000)                 # below 2**-126
xs   = mul(x, 0x4b000000)                # 2**23
y    = select(tiny, xs, x)
bias = select(tiny, 0x4b400017, 0x4b400000)   # 1.5 * 2**23 + (23 or 0)
i    = isub(y, 0x3f2aaaab)               # the bits of 2/3
k    = sar(i, 23)
ke   = iadd(k, 0x4b400000)
e    = sub(ke, bias)                     # the exponent as a float
ks   = shl(k, 23)
m    = isub(y, ks)                       # in [2/3, 4/3)
f    = sub(m, 0x3f800000)
p7   = fma(f, 0xbe03de0b, 0x3e0f376e)
p6   = fma(p7, f, 0xbdf99aec)
p5   = fma(p6, f, 0x3e0f6a82)
p4   = fma(p5, f, 0xbe2ace2a)
p3   = fma(p4, f, 0x3e4ce82a)
p2   = fma(p3, f, 0xbe7fff7d)
p1   = fma(p2, f, 0x3eaaaa83)
p0   = fma(p1, f, 0xbf000000)
ff   = mul(f, f)
l    = fma(p0, ff, f)                    # log m
z0   = fma(e, 0x3f317218, l)             # + e ln 2
finite = lt(x, 0x7f800000)
z1   = select(finite, z0, x)
zero = eq(x, 0x00000000)
z2   = select(zero, 0xff800000, 0x7fc00000)
positive = lt(0x00000000, x)
z    = select(positive, z1, z2)
return z
"""

TANH_LISTING = """
a    = absolute(x)
y0   = mul(a, 0xc0000000)                # -2 |x|
far  = lt(y0, 0xc1a00000)                # below -20: the result is 1
y    = select(far, 0xc1a00000, y0)
t    = fma(y, 0x3fb8aa3b, 0x4b40007f)    # 1 / ln 2; 1.5 * 2**23 + 127
n    = sub(t, 0x4b40007f)
r    = fma(n, 0xbf317218, y)             # -ln 2
s    = shl(t, 23)                        # 2**n
p4   = fma(r, 0x3ab6b91f, 0x3c09140d)
p3   = fma(p4, r, 0x3d2aaa64)
p2   = fma(p3, r, 0x3e2aaa58)
p1   = fma(p2, r, 0x3f000000)
rr   = mul(r, r)
p    = fma(p1, rr, r)                    # e**r - 1
sm   = sub(s, 0x3f800000)
sp   = add(s, 0x3f800000)
u    = fma(p, s, sm)                     # e**(-2|x|) - 1
v    = fma(p, s, sp)                     # e**(-2|x|) + 1
w    = div(u, v)
z    = copysign(w, x)
return z
"""

ERF_LISTING = """
a0   = absolute(x)
far  = lt(0x40800000, a0)                # above 4: the result is 1
a    = select(far, 0x40800000, a0)
q7   = fma(a, 0xb71d81a0, 0x38f945a5)
q6   = fma(q7, a, 0xba2714db)
q5   = fma(q6, a, 0x3adba26c)
q4   = fma(q5, a, 0xb931bd14)
q3   = fma(q4, a, 0xbc9cdbe5)
q2   = fma(q3, a, 0x3dd27c62)
q1   = fma(q2, a, 0x3f22f980)
q0   = fma(q1, a, 0x3e0375d4)
g    = fma(q0, a, a)                     # -log(1 - erf|x|)
t    = fma(g, 0xbfb8aa3b, 0x4b40007f)    # -1 / ln 2; 1.5 * 2**23 + 127
n    = sub(t, 0x4b40007f)
ng   = ixor(g, 0x80000000)               # -g
r    = fma(n, 0xbf317218, ng)            # -ln 2
s    = shl(t, 23)                        # 2**n
p4   = fma(r, 0x3ab6b91f, 0x3c09140d)
p3   = fma(p4, r, 0x3d2aaa64)
p2   = fma(p3, r, 0x3e2aaa58)
p1   = fma(p2, r, 0x3f000000)
rr   = mul(r, r)
p    = fma(p1, rr, r)                    # e**r - 1
sm   = sub(s, 0x3f800000)
u    = fma(p, s, sm)                     # e**-g - 1
z    = copysign(u, x)
return z
"""

_CIRCULAR = """
n    = sub(t, 0x4b400000)
r1   = fma(n, 0xbfc90fdb, a)             # -pi / 2 in three parts
r2   = fma(n, 0x333bbd2e, r1)
r    = fma(n, 0x26f72ced, r2)
odd  = iand(q, 0x00000001)
c3   = select(odd, 0x37ccc30f, 0x363c825e)    # coefficients of cos or sin
c2   = select(odd, 0xbab6056e, 0xb9502767)
c1   = select(odd, 0x3d2aaaa4, 0x3c0888b6)
c0   = select(odd, 0xbf000000, 0xbe2aaaab)
base = select(odd, 0x3f800000, r)
rr   = mul(r, r)
p2   = fma(c3, rr, c2)
p1   = fma(p2, rr, c1)
p0   = fma(p1, rr, c0)
br   = mul(base, rr)
z0   = fma(br, p0, base)
half = shr(q, 1)
turn = shl(half, 31)                     # the sign of quadrants 2 and 3
z1   = ixor(z0, turn)
"""

SIN_LISTING = (
    """
a    = absolute(x)
t    = fma(a, 0x3f22f983, 0x4b400000)    # 2 / pi; 1.5 * 2**23
q    = iadd(t, 0x00000000)               # the quadrant, in the low two bits
"""
    + _CIRCULAR
    + """
sign = iand(x, 0x80000000)
z2   = ixor(z1, sign)
near = le(a, 0x49800000)                 # |x| <= 2**20
z    = select(near, z2, 0x7fc00000)
return z
"""
)

COS_LISTING = (
    """
a    = absolute(x)
t    = fma(a, 0x3f22f983, 0x4b400000)    # 2 / pi; 1.5 * 2**23
q    = iadd(t, 0x00000001)               # cos x = sin(x + pi / 2)
"""
    + _CIRCULAR
    + """
near = le(a, 0x49800000)                 # |x| <= 2**20
z    = select(near, z1, 0x7fc00000)
return z
"""
)

CIRCULAR_RANGE = 1048576.0
"""sin and cos are defined as numbers for |x| up to this value, and as NaN beyond it."""


@dataclass(frozen=True)
class Step:
    """One line of a listing: `name = operation(arguments)`. An argument is an earlier name, "x", or a word."""

    name: str
    operation: str
    arguments: tuple[str | int, ...]


@dataclass(frozen=True)
class Sequence:
    """A parsed listing: steps in order, and the name of the result."""

    function: str
    steps: tuple[Step, ...]
    result: str


def _shift_left(a: int, distance: int) -> int:
    return (a << distance) & binary32.WORD_MASK


def _shift_right_arithmetic(a: int, distance: int) -> int:
    return (binary32.to_signed(a) >> distance) & binary32.WORD_MASK


OPERATIONS: dict[str, Callable[..., int]] = {
    "add": binary32.add,
    "sub": binary32.sub,
    "mul": binary32.mul,
    "div": binary32.div,
    "fma": binary32.fma,
    "absolute": binary32.absolute,
    "copysign": lambda a, b: (a & 0x7FFFFFFF) | (b & 0x80000000),
    "lt": lambda a, b: int(binary32.lt(a, b)),
    "le": lambda a, b: int(binary32.le(a, b)),
    "eq": lambda a, b: int(binary32.eq(a, b)),
    "select": lambda p, a, b: a if p != 0 else b,
    "iadd": lambda a, b: (a + b) & binary32.WORD_MASK,
    "isub": lambda a, b: (a - b) & binary32.WORD_MASK,
    "iand": lambda a, b: a & b,
    "ixor": lambda a, b: a ^ b,
    "shl": _shift_left,
    "shr": lambda a, distance: a >> distance,
    "sar": _shift_right_arithmetic,
}
"""Meaning of every step on words. Shift distances are plain numbers in [0, 31]."""

_STEP = re.compile(r"(\w+)\s*=\s*(\w+)\(([^)]*)\)")


def parse(function: str, listing: str) -> Sequence:
    """The steps of a listing. Raises `ValueError` for a line, operation or name that the notation does not know."""
    known = {"x"}
    steps: list[Step] = []
    for raw in listing.strip().splitlines():
        line = raw.split("#")[0].strip()
        if not line:
            continue
        if line.startswith("return "):
            result = line.removeprefix("return ").strip()
            if result not in known:
                raise ValueError(f"{function} returns {result!r}, which no step defines")
            return Sequence(function, tuple(steps), result)
        match = _STEP.fullmatch(line)
        if match is None or match[2] not in OPERATIONS or match[1] in known:
            raise ValueError(f"{function}: cannot read the step {line!r}")
        arguments: list[str | int] = []
        for text in (part.strip() for part in match[3].split(",")):
            if text in known:
                arguments.append(text)
            elif text[:1].isdigit():
                arguments.append(int(text, 0))
            else:
                raise ValueError(f"{function}: the step {line!r} reads {text!r} before it is defined")
        steps.append(Step(match[1], match[2], tuple(arguments)))
        known.add(match[1])
    raise ValueError(f"{function}: the listing ends without a return line")


SEQUENCES: dict[str, Sequence] = {
    name: parse(name, listing)
    for name, listing in {
        "exp": EXP_LISTING,
        "log": LOG_LISTING,
        "tanh": TANH_LISTING,
        "erf": ERF_LISTING,
        "sin": SIN_LISTING,
        "cos": COS_LISTING,
    }.items()
}


def evaluate(sequence: Sequence, x: int) -> int:
    """Run a sequence on one word, step by step, with the reference operations."""
    values: dict[str, int] = {"x": binary32.canonical(x)}
    for step in sequence.steps:
        words = [values[argument] if isinstance(argument, str) else argument for argument in step.arguments]
        values[step.name] = OPERATIONS[step.operation](*words)
    return binary32.canonical(values[sequence.result])


def evaluator(function: str) -> Callable[[int], int]:
    """The reference function of a name in `SEQUENCES`, from word to word."""
    return partial(evaluate, SEQUENCES[function])


def exp(x: int) -> int:
    """e**x of a word, as listed."""
    return evaluate(SEQUENCES["exp"], x)


def log(x: int) -> int:
    """Natural logarithm of a word, as listed."""
    return evaluate(SEQUENCES["log"], x)


def tanh(x: int) -> int:
    """Hyperbolic tangent of a word, as listed."""
    return evaluate(SEQUENCES["tanh"], x)


def erf(x: int) -> int:
    """Error function of a word, as listed."""
    return evaluate(SEQUENCES["erf"], x)


def sin(x: int) -> int:
    """Sine of a word, as listed; NaN beyond |x| = 2**20."""
    return evaluate(SEQUENCES["sin"], x)


def cos(x: int) -> int:
    """Cosine of a word, as listed; NaN beyond |x| = 2**20."""
    return evaluate(SEQUENCES["cos"], x)
