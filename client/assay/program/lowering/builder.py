"""The builder of a section: emits operators, folds constants, shares equal operators, and keeps views lazy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from assay.arithmetic import binary32
from assay.program.encoding import MAX_DIMENSIONS
from assay.program.lowering import view as views
from assay.program.lowering.view import NotAffineError, View
from assay.program.operator import (
    BODY_RULES,
    Array,
    Body,
    ElementType,
    Operand,
    Operator,
    Section,
    Source,
    StateEntry,
    float_bits,
)
from assay.program.operator import Role as SectionRole
from assay.program.reference import SCALAR_BODIES

FLOAT, INT = ElementType.FLOAT, ElementType.INT
ONE = float_bits(1.0)
NEGATIVE_INFINITY = float_bits(float("-inf"))

LANES = (32, 64, 48, 16, 40, 56, 24)  # preferred numbers of lanes of a fold over contiguous elements
WIDE_LANES = 1024
SPLIT_CONTIGUOUS = 64  # terms from which a contiguous fold is split into lanes
SPLIT_WIDE = 1 << 16  # terms from which a fold with few outputs takes wide lanes
SPLIT_STRIDED = 1 << 13  # terms from which any other fold is split
STRIDED_LANES = 16

Scalar = int | float | bool


def word(value: Scalar, kind: ElementType) -> int:
    """The 32 bits of a number: rounded to binary32, or an integer as it is. `ValueError` for an integer beyond."""
    if kind == FLOAT:
        return float_bits(float(value))
    if not -(2**31) <= int(value) < 2**31:
        raise ValueError(f"the integer {value}; integers have 32 bits")
    return int(value) & 0xFFFFFFFF


class Builder:
    """Operators of one section, in order. `origin` names what the next ones belong to."""

    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.origins: list[str] = []
        self.origin = ""
        self.constants: list[Array] = []
        # Of a logarithm of a softmax: the exponentials and their sum, for its backward pass.
        self.probabilities: dict[View, tuple[View, View]] = {}
        self._known: dict[Operator, int] = {}
        self._known_constants: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    # --- leaves ---

    def number(self, value: Scalar, kind: ElementType = FLOAT, shape: Sequence[int] = ()) -> View:
        """A number, rounded to binary32 or an integer of 32 bits, as a view; `ValueError` for a larger integer."""
        return views.constant(kind, word(value, kind), shape)

    def constant(self, values: Array) -> View:
        """A constant tensor of the program, C-contiguous."""
        key = (values.dtype.name, tuple(values.shape), values.tobytes())
        index = self._known_constants.setdefault(key, len(self.constants))
        if index == len(self.constants):
            self.constants.append(values)
        return views.whole(ElementType.of(values), values.shape, Source.CONSTANT, index)

    # --- emission ---

    def emit(
        self,
        body: Body,
        kind: ElementType,
        operands: Sequence[View],
        shape: Sequence[int],
        reduced: Sequence[int] = (),
        p0: int = 0,
        p1: int = 0,
    ) -> View:
        """Add an operator over loops `shape` then `reduced`; every operand is a view of exactly those loops.

        Dimensions are merged where all index maps allow it, so equal computations have equal records; an operator that
        already exists is not added again.
        """
        shape, reduced = tuple(shape), tuple(reduced)
        loops = shape + reduced
        if not all(isinstance(number, int) for number in (*loops, p0, p1)):
            raise TypeError(f"extents {loops} and parameters {p0!r}, {p1!r} have to be integers")
        if any(operand.shape != loops for operand in operands):
            raise ValueError(f"operands of shapes {[o.shape for o in operands]} in loops {loops}")
        if operands:
            rank = len(shape)
            merged = views.merge_dimensions(operands, rank, rank + len(reduced))
            inner = merged[0].shape[rank:]
            if reduced and not inner:
                merged, inner = [views.insert(view, rank) for view in merged], (1,)
            merged = views.merge_dimensions(merged, 0, rank)
            outer = merged[0].shape[: merged[0].rank - len(inner)]
        else:
            merged, outer, inner = [], ((prod(shape),) if prod(shape) > 1 else ()), ()
        if len(outer) + len(inner) > MAX_DIMENSIONS:
            raise ValueError(f"a loop over {len(outer)} + {len(inner)} dimensions; {MAX_DIMENSIONS} are possible")
        operator = Operator(body, kind, outer, tuple(view.operand for view in merged), inner, p0, p1)
        number = self._known.get(operator)
        if number is None:
            number = len(self.operators)
            self._known[operator] = number
            self.operators.append(operator)
            self.origins.append(self.origin)
        return views.whole(kind, shape, Source.OPERATOR, number)

    def apply(self, body: Body, *arguments: View | Scalar, kind: ElementType | None = None) -> View:
        """An elementwise body over arguments broadcast against each other; numbers take the type the body wants."""
        rule = BODY_RULES[body]
        if kind is None:
            kind = {"f": FLOAT, "i": INT}.get(rule.output)
        if kind is None:
            kind = next(
                a.type
                for a, letter in zip(arguments, rule.operands, strict=True)
                if letter == "t" and isinstance(a, View)
            )
        operands: list[View] = []
        for argument, letter in zip(arguments, rule.operands, strict=True):
            wanted = {"f": FLOAT, "i": INT, "t": kind, "x": None}[letter]
            if not isinstance(argument, View):
                argument = self.number(argument, wanted or FLOAT)
            operands.append(argument if wanted is None else self.as_type(argument, wanted))
        simpler = self._simplify(body, operands)
        shape = broadcast_shape([operand.shape for operand in operands])
        if simpler is not None:
            return views.expand(simpler, shape)
        if all(operand.is_immediate for operand in operands) and body in SCALAR_BODIES:
            bits = SCALAR_BODIES[body](*(operand.operand.index for operand in operands))
            return views.constant(kind, bits, shape)
        # Elements that repeat along a dimension are computed once.
        return self.emit(body, kind, [views.expand(operand, shape) for operand in operands], shape)

    def _simplify(self, body: Body, operands: list[View]) -> View | None:
        """An operand that the body returns unchanged, if there is one (NaNs of tensors are canonical already)."""

        def is_one(view: View) -> bool:
            return view.is_immediate and view.operand.index == ONE

        if body == Body.MUL and is_one(operands[1]):
            return operands[0]
        if body == Body.MUL and is_one(operands[0]):
            return operands[1]
        if body == Body.DIV and is_one(operands[1]):
            return operands[0]
        return None

    def as_type(self, view: View, kind: ElementType) -> View:
        """The view with elements converted; integers round to nearest, floats go towards zero."""
        if view.type == kind:
            return view
        if view.is_immediate:
            bits = view.operand.index
            word = binary32.int_to_float(bits) if kind == FLOAT else binary32.float_to_int(bits)
            return views.constant(kind, word, view.shape)
        return self.emit(Body.TO_FLOAT if kind == FLOAT else Body.TO_INT, kind, [view], view.shape)

    def copy(self, view: View) -> View:
        """The view as a tensor of its own."""
        if view.is_whole and view.operand.source == Source.OPERATOR:
            return view
        return self.emit(Body.COPY, view.type, [view], view.shape)

    def gather(self, table: View, place: int, rows: View) -> View:
        """Elements of `table` with dimension `place` indexed by `rows`; the result has the rows' dimensions there.

        Rows outside read 0.
        """
        if table.is_immediate or any(guard.stride[place] for guard in table.operand.guards):
            table = self.copy(table)
        step = table.operand.stride[place]
        if step < 0:
            table = self.copy(table)
            step = table.operand.stride[place]
        extent = table.shape[place]
        base = views.select(table, place, 0)
        for axis, size in enumerate(rows.shape):
            base = views.insert(base, place + axis, size)
        chooser = rows
        for axis in range(place):
            chooser = views.insert(chooser, axis, base.shape[axis])
        for axis in range(place + rows.rank, base.rank):
            chooser = views.insert(chooser, axis, base.shape[axis])
        return self.emit(Body.GATHER, table.type, [base, chooser], base.shape, p0=step, p1=extent)

    # --- views that may need a copy ---

    def reshape(self, view: View, shape: Sequence[int]) -> View:
        """The elements under another shape, copied only where no index map expresses it."""
        try:
            return views.reshape(view, shape)
        except NotAffineError:
            return views.reshape(self.copy(view), shape)

    def remap(
        self,
        view: View,
        place: int,
        extents: Sequence[int],
        coefficients: Sequence[int],
        offset: int = 0,
        divisor: int = 1,
        fill: int = 0,
    ) -> View:
        """`views.remap`, copied only where the view's own guards stand in the way."""
        try:
            return views.remap(view, place, extents, coefficients, offset, divisor, fill)
        except NotAffineError:
            return views.remap(self.copy(view), place, extents, coefficients, offset, divisor, fill)

    def condition(self, view: View, offset: int, stride: Sequence[int], bound: int, fill: int) -> View:
        """`views.condition`, copied only where the view's own guards stand in the way."""
        try:
            return views.condition(view, offset, stride, bound, fill)
        except NotAffineError:
            return views.condition(self.copy(view), offset, stride, bound, fill)

    # --- folds ---

    def reduce(self, body: Body, operands: Sequence[View], dimensions: Sequence[int], keep: bool = False) -> View:
        """Fold over some dimensions of operands of one shape: one operator, or two where the fold is long.

        A fold over contiguous elements is split into lanes (lane l takes elements l, l + lanes, ...), which vectorise,
        then a fold over the lanes; other folds only where they are very long.
        """
        shape = operands[0].shape
        dimensions = sorted({d % max(len(shape), 1) for d in dimensions}) if shape else []
        outer_places = [d for d in range(len(shape)) if d not in dimensions]
        outer = tuple(shape[d] for d in outer_places)
        moved = [views.permute(view, [*outer_places, *dimensions]) for view in operands]
        if not dimensions:
            moved = [views.insert(view, view.rank) for view in moved]
        moved = views.merge_dimensions(moved, len(outer), moved[0].rank)
        if moved[0].rank == len(outer):
            moved = [views.insert(view, len(outer)) for view in moved]
        result = self._fold(body, moved, outer)
        if not keep:
            return result
        kept = tuple(1 if d in dimensions else extent for d, extent in enumerate(shape))
        return views.reshape(result, kept)

    def _fold(self, body: Body, operands: list[View], outer: tuple[int, ...]) -> View:
        rank = len(outer)
        inner = operands[0].shape[rank:]
        kind = INT if BODY_RULES[body].output == "i" else FLOAT
        plan = self._lanes(operands, outer, inner) if body in _SPLITTABLE else None
        if plan is None:
            return self.emit(body, kind, operands, outer, inner)
        place, lanes, leading = plan
        rounds = -(-inner[place - rank] // lanes)
        fill = NEGATIVE_INFINITY if body == Body.FOLD_MAX else 0
        split = [self.remap(view, place, (rounds, lanes), (lanes, 1), 0, 1, fill) for view in operands]
        # The lane becomes an output dimension: the last where lanes are contiguous, else the first.
        order = [d for d in range(split[0].rank) if d != place + 1]
        order.insert(0 if leading else rank, place + 1)
        split = [views.permute(view, order) for view in split]
        lane_outer = (lanes, *outer) if leading else (*outer, lanes)
        partial = self.emit(body, kind, split, lane_outer, split[0].shape[rank + 1 :])
        if leading:
            partial = views.permute(partial, [*range(1, rank + 1), 0])
        return self.emit(_SPLITTABLE[body], kind, [partial], outer, (lanes,))

    def _lanes(
        self, operands: list[View], outer: tuple[int, ...], inner: tuple[int, ...]
    ) -> tuple[int, int, bool] | None:
        """(dimension to split, lanes, whether lanes lead) of a fold, or None where it stays one operator."""
        rank, terms = len(outer), prod(inner)
        contiguous = [d for d in range(rank, rank + len(inner)) if _runs_along(operands[0], d)]
        if contiguous and terms >= SPLIT_CONTIGUOUS:
            place = max(contiguous, key=lambda d: inner[d - rank])
            extent = inner[place - rank]
            if prod(outer) < 64 and extent >= SPLIT_WIDE:
                return place, WIDE_LANES, False
            for lanes in LANES:
                if extent % lanes == 0 and extent > lanes:
                    return place, lanes, False
            if extent in LANES and len(inner) > 1:
                return place, extent, False
            if extent >= 4 * LANES[0]:
                return place, LANES[0], False
        if terms >= SPLIT_STRIDED:
            place = max(range(rank, rank + len(inner)), key=lambda d: inner[d - rank])
            return place, STRIDED_LANES, True
        return None


_SPLITTABLE = {
    Body.FOLD_FMA: Body.FOLD_ADD,
    Body.FOLD_ADD: Body.FOLD_ADD,
    Body.FOLD_MAX: Body.FOLD_MAX,
    Body.FOLD_IADD: Body.FOLD_IADD,
}


def _runs_along(view: View, dimension: int) -> bool:
    """Whether neighbours along a dimension are neighbours in memory."""
    if any(guard.stride[dimension] for guard in view.operand.guards):
        return any(g.stride[dimension] == 1 and g.multiplier == 1 and g.divisor == 1 for g in view.operand.guards)
    return view.operand.stride[dimension] == 1


def broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The common shape of broadcast operands; `ValueError` where there is none."""
    rank = max((len(shape) for shape in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for place, extent in enumerate(shape, rank - len(shape)):
            if extent != 1:
                if result[place] not in (1, extent):
                    raise ValueError(f"shapes {shapes} cannot be broadcast together")
                result[place] = extent
    return tuple(result)


def finish(
    builder: Builder,
    role: SectionRole,
    next_state: Sequence[int | None],
    keep: Sequence[int] = (),
) -> tuple[Section, dict[int, int]]:
    """The section of all operators that the next state or `keep` need, renumbered; and the map of numbers."""
    needed = {number for number in (*next_state, *keep) if number is not None}
    for number in range(len(builder.operators) - 1, -1, -1):
        if number in needed:
            operands = builder.operators[number].operands
            needed.update(o.index for o in operands if o.source == Source.OPERATOR)
    order = sorted(needed)
    renumbered = {old: new for new, old in enumerate(order)}
    operators = tuple(_renumber(builder.operators[old], renumbered) for old in order)
    table = tuple(StateEntry(None if n is None else renumbered[n]) for n in next_state)
    origins = tuple(builder.origins[old] for old in order)
    return Section(role, operators, table, origins), renumbered


def _renumber(operator: Operator, numbers: dict[int, int]) -> Operator:
    def change(operand: Operand) -> Operand:
        if operand.source != Source.OPERATOR:
            return operand
        return Operand(
            operand.source,
            numbers[operand.index],
            operand.count,
            operand.stride,
            operand.offset,
            operand.fill,
            operand.guards,
        )

    return Operator(
        operator.body,
        operator.type,
        operator.extents,
        tuple(change(operand) for operand in operator.operands),
        operator.reduced,
        operator.p0,
        operator.p1,
    )


__all__ = [
    "FLOAT",
    "INT",
    "NEGATIVE_INFINITY",
    "Builder",
    "Scalar",
    "broadcast_shape",
    "finish",
    "word",
]
