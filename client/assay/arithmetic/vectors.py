"""Golden vectors: operands and results from the reference, for every implementation to be held to.

    python -m assay.arithmetic.vectors [DIRECTORY]      writes the files (default: tests/vectors)

Each file is JSON: {"group", "arithmetic", "operations": [{"name", "arguments", "result", "cases"}]}. A case is
one string of hexadecimal words separated by blanks: the arguments in order, then the result. `arguments` and
`result` name what the words are: float (binary32), int (int32), bool (00000000 or 00000001), word, u64 (sixteen
digits); an argument that ends in "..." repeats up to the result. The files are functions of this module and the
reference alone; tests compare them with what is committed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from assay.arithmetic import binary32, fold, permutation, philox, transcendental
from assay.arithmetic.binary32 import from_float

SEED = 0x6173736179  # "assay"

LEAST_SUBNORMAL = 0x00000001
GREATEST_SUBNORMAL = 0x007FFFFF
LEAST_NORMAL = 0x00800000
GREATEST = 0x7F7FFFFF

SPECIALS = (
    0x00000000,
    0x80000000,
    LEAST_SUBNORMAL,
    0x80000001,
    GREATEST_SUBNORMAL,
    LEAST_NORMAL,
    0x80800000,
    0x3F800000,
    0xBF800000,
    0x3F7FFFFF,
    0x3F800001,
    0x4B800001,
    GREATEST,
    0xFF7FFFFF,
    0x7F800000,
    0xFF800000,
    0x7FC00000,
    0xFFC12345,  # a quiet NaN with sign and payload
    0x7F800001,  # a signalling NaN
)
FEW_SPECIALS = (0x00000000, 0x80000000, LEAST_SUBNORMAL, 0xBF800000, GREATEST, 0x7F800000, 0xFFC12345)


@dataclass(frozen=True)
class Operation:
    """One operation's cases: each a tuple of words, the result last."""

    name: str
    arguments: tuple[str, ...]
    result: str
    cases: tuple[tuple[int, ...], ...]


class RandomWords:
    """A deterministic supply of words: Philox in stream `stream`."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._element = 0

    def word(self) -> int:
        """Any 32 bits."""
        self._element += 1
        return philox.philox(SEED, 0, self._stream, self._element - 1)

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return self.word() % limit

    def float_near_one(self, spread: int = 12) -> int:
        """A float of any sign with an exponent within `spread` of zero, so that sums interact."""
        word = self.word()
        exponent = 127 - spread + self.below(2 * spread + 1)
        return (word & 0x807FFFFF) | (exponent << 23)

    def subnormal(self) -> int:
        """A subnormal float of any sign."""
        return self.word() & 0x807FFFFF


def _power(exponent: int) -> int:
    return from_float(2.0**exponent)


def _sum_pairs(random: RandomWords) -> Iterator[tuple[int, int]]:
    """Pairs whose sum is a tie, cancels, overflows, or meets the subnormals."""
    for _ in range(25):
        a = random.float_near_one()
        ulp = (a >> 23 & 0xFF) - 127 - 23
        for half in (_power(ulp - 1), _power(ulp - 1) + 1, _power(ulp - 1) - 1):
            yield a, half ^ (random.word() & binary32.SIGN_BIT)
        yield a, (a ^ binary32.SIGN_BIT) + random.below(5)
    for _ in range(15):
        yield random.subnormal(), random.subnormal()
        yield GREATEST - random.below(3), _power(103) - 2 + random.below(5)


def _product_pairs(random: RandomWords) -> Iterator[tuple[int, int]]:
    """Pairs whose product has exactly 25 bits (half of them ties), is subnormal, or is close to overflow."""
    for _ in range(30):
        a, b = 2 * random.below(1 << 11) + 1 + (1 << 12), 2 * random.below(1 << 10) + 1 + (1 << 11)
        yield from_float(float(a)), from_float(float(b))
        yield from_float(a * 2.0**-90), from_float(b * 2.0 ** -(72 + random.below(14)))
        yield random.float_near_one(3), random.float_near_one(3)
        yield (
            (random.word() & 0x807FFFFF) | ((64 + random.below(24)) << 23),
            (random.word() & 0x807FFFFF) | ((30 + random.below(12)) << 23),
        )
    for _ in range(15):
        yield (
            (random.word() & 0x807FFFFF) | ((189 + random.below(3)) << 23),
            (random.word() & 0x807FFFFF) | ((190 + random.below(2)) << 23),
        )


def _quotient_pairs(random: RandomWords) -> Iterator[tuple[int, int]]:
    """Pairs whose quotient is exact, general, subnormal (ties included), or close to overflow."""
    for _ in range(25):
        a, b = 1 + random.below(1 << 12), 1 + random.below(1 << 12)
        yield from_float(float(a * b)), from_float(float(b))
        yield random.float_near_one(3), random.float_near_one(3)
        yield random.subnormal(), random.float_near_one(20)
        yield from_float((2 * a + 1) * 2.0**-140), from_float(1024.0)
        yield (random.word() & 0x807FFFFF) | (253 << 23), (random.word() & 0x807FFFFF) | (125 << 23)


def _fused_triples(random: RandomWords) -> Iterator[tuple[int, int, int]]:
    """Triples where one rounding and two differ: products that cancel against the addend, ties, subnormal results."""
    for _ in range(40):
        a, b = random.float_near_one(4), random.float_near_one(4)
        rounded = binary32.mul(a, b)
        yield a, b, binary32.neg(rounded)  # what remains is the rounding error of the product
        yield a, b, binary32.neg(rounded) ^ 1
        yield a, b, random.float_near_one(30)
        ulp = (rounded >> 23 & 0xFF) - 127 - 23
        yield a, b, _power(ulp - 1) if ulp > -140 else 0
    for _ in range(20):
        odd = 2 * random.below(1 << 20) + 1
        yield (
            from_float(odd * 2.0**-100),
            _power(-50),
            random.subnormal(),
        )  # the product is far below the least subnormal
        yield from_float(odd * 2.0**-80), _power(-70 + random.below(4)), random.subnormal()
        yield GREATEST, from_float(1.0), _power(103) - 1 + random.below(3)
        yield GREATEST, from_float(2.0), 0xFF7FFFFF - random.below(3)
        # A tie of the sum, decided by a product too small to be seen otherwise.
        yield from_float(odd * 2.0**-60), _power(-60) ^ (random.word() & binary32.SIGN_BIT), from_float(odd + 0.0)


def _order_pairs(random: RandomWords) -> Iterator[tuple[int, int]]:
    for _ in range(30):
        a = random.word()
        yield a, random.word()
        yield a, a
        yield a, (a + 1) & binary32.WORD_MASK
        yield a, a ^ binary32.SIGN_BIT


def _single_operands(random: RandomWords, count: int) -> Iterator[int]:
    for _ in range(count):
        yield random.word()
        yield random.float_near_one(20)
        yield random.subnormal()


def _cases(
    function: Callable[..., int], operands: Iterator[Sequence[int]] | list[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Operands with results, each operand list once."""
    return tuple((*words, int(function(*words))) for words in dict.fromkeys(tuple(words) for words in operands))


def scalar_operations() -> list[Operation]:
    """Cases of the scalar operations of `binary32`."""
    operations: list[Operation] = []
    special_pairs = list(product(SPECIALS, SPECIALS))
    directed: dict[str, Callable[[RandomWords], Iterator[tuple[int, int]]]] = {
        "add": _sum_pairs,
        "sub": _sum_pairs,
        "mul": _product_pairs,
        "div": _quotient_pairs,
    }
    for stream, (name, pairs) in enumerate(directed.items()):
        random = RandomWords(stream)
        operands: list[Sequence[int]] = [*special_pairs, *pairs(random)]
        operands += [(random.word(), random.word()) for _ in range(40)]
        operations.append(Operation(name, ("float", "float"), "float", _cases(getattr(binary32, name), operands)))

    random = RandomWords(4)
    triples: list[Sequence[int]] = [*product(FEW_SPECIALS, repeat=3), *_fused_triples(random)]
    triples += [(random.word(), random.word(), random.word()) for _ in range(30)]
    operations.append(Operation("fma", ("float",) * 3, "float", _cases(binary32.fma, triples)))

    random = RandomWords(5)
    roots: list[Sequence[int]] = [(a,) for a in (*SPECIALS, *_single_operands(random, 50))]
    roots += [(binary32.mul(a, a),) for a in (from_float(float(random.below(1 << 12))) for _ in range(40))]
    operations.append(Operation("sqrt", ("float",), "float", _cases(binary32.sqrt, roots)))
    for name in ("neg", "absolute"):
        singles: list[Sequence[int]] = [(a,) for a in (*SPECIALS, *_single_operands(RandomWords(6), 15))]
        operations.append(Operation(name, ("float",), "float", _cases(getattr(binary32, name), singles)))
    for name, result in (("eq", "bool"), ("lt", "bool"), ("le", "bool"), ("maximum", "float"), ("minimum", "float")):
        ordered: list[Sequence[int]] = [*special_pairs, *_order_pairs(RandomWords(7))]
        operations.append(Operation(name, ("float", "float"), result, _cases(getattr(binary32, name), ordered)))
    chosen: list[Sequence[int]] = [(c, a, b) for c in (0, 1) for a, b in product(SPECIALS[::2], SPECIALS[1::2])]
    operations.append(Operation("select", ("bool", "float", "float"), "float", _cases(binary32.select, chosen)))

    random = RandomWords(8)
    edges = [from_float(value) for value in (0.5, 0.99, 1.5, 2.5, 8388607.5, 16777216.0, 2.0**31, 2.0**32, 3e9, 1e30)]
    edges += [0x4EFFFFFF, 0x4F000001]  # beside 2**31
    edges += [edge | binary32.SIGN_BIT for edge in edges]
    floats: list[Sequence[int]] = [(a,) for a in (*SPECIALS, *edges, *_single_operands(random, 20))]
    floats += [(random.float_near_one(33),) for _ in range(60)]
    operations.append(Operation("float_to_int", ("float",), "int", _cases(binary32.float_to_int, floats)))
    integers = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0x7FFFFFBF, 0x7FFFFFC0, 0x7FFFFF40]
    for shift in range(24, 31):  # ties and their neighbours
        integers += [(1 << shift) + (k << (shift - 24)) + d for k in (1, 3) for d in (-1, 0, 1)]
    integers += [-value & binary32.WORD_MASK for value in integers]
    integers += [random.word() >> random.below(32) for _ in range(60)]
    words: list[Sequence[int]] = [(value & binary32.WORD_MASK,) for value in integers]
    operations.append(Operation("int_to_float", ("int",), "float", _cases(binary32.int_to_float, words)))
    return operations


def transcendental_operations() -> list[Operation]:
    """Cases of the transcendental functions: specials, edges of their domains, and all magnitudes in between."""
    edges = {
        "exp": (88.72283, 88.722839, 89.0, 89.1, -87.33654, -87.4, -103.27893, -103.97208, -103.9721, -104.0, -104.1),
        "log": (0.6666666, 0.66666675, 1.3333333, 1.3333334, 0.99999994, 1.0000001, 1.1754944e-38, 1.1754942e-38),
        "tanh": (0.1732, 0.1733, 0.5199, 9.0109, 9.0110, 10.0, 10.000001, 1e-4),
        "erf": (3.8, 3.9192059, 3.92, 4.0, 4.0000005, 0.2157, 1e-4, 0.7),
        "sin": (3.1415927, 1.5707964, 0.7853982, 0.7853981, 1048576.0, 1048576.06, 1048575.9, 710.0, 16367.173),
        "cos": (3.1415927, 1.5707964, 0.7853982, 0.7853981, 1048576.0, 1048576.06, 1048575.9, 710.0, 16367.173),
    }
    operations: list[Operation] = []
    for stream, (name, values) in enumerate(edges.items()):
        random = RandomWords(16 + stream)
        arguments = [*SPECIALS, *(from_float(value) for value in values), *(from_float(-value) for value in values)]
        arguments += [random.word() for _ in range(30)]
        arguments += [random.subnormal() for _ in range(6)]
        arguments += [random.float_near_one(7) for _ in range(110)]
        arguments += [random.float_near_one(25) for _ in range(40)]
        cases = _cases(transcendental.evaluator(name), [(a,) for a in arguments])
        operations.append(Operation(name, ("float",), "float", cases))
    return operations


def fold_operations() -> list[Operation]:
    """Cases of the sequential folds: short lists of terms, some with specials."""

    def lists(stream: int, width: int) -> Iterator[list[int]]:
        random = RandomWords(stream)
        for length in (1, 2, 3, 5, 8, 13, 17):
            for kind in range(4):
                terms = [random.float_near_one(6) for _ in range(length * width)]
                if kind == 2:
                    terms = [terms[random.below(1 + len(terms) // 2)] for _ in terms]  # repeated values
                if kind == 3:
                    terms[random.below(len(terms))] = SPECIALS[random.below(len(SPECIALS))]
                yield terms

    def grouped(terms: Sequence[int], width: int) -> list[tuple[int, ...]]:
        return [tuple(terms[i : i + width]) for i in range(0, len(terms), width)]

    def labelled(terms: Sequence[int]) -> list[int]:
        """Every three terms as two small labels, which are often the same, and a float."""
        return [term if i % 3 == 2 else (term >> (23 if i % 3 else 5)) & 1 for i, term in enumerate(terms)]

    def fma(*terms: int) -> int:
        return fold.fold_fma((a, b) for a, b in grouped(terms, 2))

    def add_if_equal(*terms: int) -> int:
        return fold.fold_add_if_equal((a, b, c) for a, b, c in grouped(terms, 3))

    maxima = [*lists(34, 1), [0x80000000, 0], [0, 0x80000000], [0xFF800000, 0xFF800000], [0x7FC00000, 0x7F800000]]
    return [
        Operation("fold_fma", ("float, float...",), "float", _cases(fma, list(lists(32, 2)))),
        Operation("fold_add", ("float...",), "float", _cases(lambda *t: fold.fold_add(t), list(lists(33, 1)))),
        Operation("fold_maximum", ("float...",), "float", _cases(lambda *t: fold.fold_maximum(t), list(maxima))),
        Operation("fold_argmax", ("float...",), "int", _cases(lambda *t: fold.fold_argmax(t), list(maxima))),
        Operation(
            "fold_add_if_equal",
            ("int, int, float...",),
            "float",
            _cases(add_if_equal, [labelled(terms) for terms in lists(35, 3)]),
        ),
        Operation(
            "fold_integer_add", ("int...",), "int", _cases(lambda *t: fold.fold_integer_add(t), list(lists(36, 1)))
        ),
    ]


def random_operations() -> list[Operation]:
    """Cases of Philox, the uniform and normal variates: (seed, step, stream, element)."""
    random = RandomWords(48)
    places: list[Sequence[int]] = [(0, 0, 0, element) for element in range(6)]
    places += [((1 << 64) - 1, (1 << 64) - 1, binary32.WORD_MASK, binary32.WORD_MASK)]
    for _ in range(50):
        seed = random.word() << 32 | random.word()
        step = random.below(1 << 20) if random.below(2) else random.word() << 32 | random.word()
        places.append((seed, step, random.below(300), random.below(1 << 26)))
    arguments = ("u64", "u64", "word", "word")
    return [
        Operation("philox", arguments, "word", _cases(philox.philox, places)),
        Operation("uniform", arguments, "float", _cases(philox.uniform, places)),
        Operation("normal", arguments, "float", _cases(philox.normal, places)),
    ]


def permutation_operations() -> list[Operation]:
    """Cases of the data permutation: (seed, epoch, position, count)."""
    random = RandomWords(56)
    places: list[Sequence[int]] = []
    for count in (1, 2, 3, 4, 5, 7, 8, 9):
        places += [(SEED, 1, position, count) for position in range(count)]
    for count in (31, 32, 33, 1000, 1009, 50000, 60000, 65535, 65536, 65537, (1 << 20) + 1, (1 << 31) - 1, 1 << 30):
        for _ in range(8):
            places.append((random.word() << 32 | random.word(), random.below(1 << 20), random.below(count), count))
    places += [(SEED, binary32.WORD_MASK, 0, 12345), (0, 0, 12344, 12345)]
    return [Operation("permutation", ("u64", "word", "word", "word"), "word", _cases(permutation.permutation, places))]


GROUPS: dict[str, Callable[[], list[Operation]]] = {
    "scalar": scalar_operations,
    "transcendental": transcendental_operations,
    "fold": fold_operations,
    "random": random_operations,
    "permutation": permutation_operations,
}


def render(group: str) -> str:
    """Text of a group's file, one case a line."""
    blocks = []
    for operation in GROUPS[group]():
        widths = [16 if kind == "u64" else 8 for kind in operation.arguments]
        lines = []
        for case in operation.cases:
            sizes = widths + [8] * (len(case) - len(widths))
            lines.append('"' + " ".join(f"{word:0{size}x}" for word, size in zip(case, sizes, strict=True)) + '"')
        head = json.dumps({"name": operation.name, "arguments": operation.arguments, "result": operation.result})
        blocks.append(head[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}")
    start = json.dumps({"group": group, "arithmetic": binary32.VERSION})
    return start[:-1] + ', "operations": [\n' + ",\n".join(blocks) + "\n]}\n"


def main(arguments: Sequence[str]) -> None:
    """Write every group's file into a directory."""
    directory = Path(arguments[0] if arguments else "tests/vectors")
    directory.mkdir(parents=True, exist_ok=True)
    for group in GROUPS:
        path = directory / f"{group}.json"
        path.write_text(render(group))
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
