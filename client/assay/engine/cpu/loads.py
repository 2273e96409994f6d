"""Reading operands: index maps, guards and fills as vector loads, broadcasts and gathers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from assay.engine.cpu import isa
from assay.engine.cpu.emitter import Emitter, float_literal, signed
from assay.engine.nest import LoopGroup, Nest, Reading
from assay.program.operator import Guard, Source

Key = tuple[str, int]
ROW: Key = ("row", 0)


@dataclass
class Affine:
    """offset + sum of coefficient * loop variable."""

    offset: int
    row_extents: tuple[int, ...] = ()
    terms: dict[Key, int] = field(default_factory=dict)

    def coefficient(self, key: Key) -> int:
        return self.terms.get(key, 0)


class Scope:
    """Loop variables in scope, and which of them runs over the lanes."""

    def __init__(self, variables: dict[Key, str], lanes_on: Key | None) -> None:
        self.variables = variables
        self.lanes_on = lanes_on

    def with_variable(self, key: Key, name: str) -> Scope:
        return Scope({**self.variables, key: name}, self.lanes_on)


class Loads:
    """What a writer of kernels needs to read operands: the group, the emitter, and every value's base address."""

    def __init__(self, group: LoopGroup) -> None:
        self.group = group
        self.e = Emitter(isa.UNIT.lanes)
        self.bases: dict[tuple[Source, int], str] = {}
        self.firsts: dict[tuple[Source, int], str] = {}  # of bases that are shifted: the first position there is

    # -- addresses -----------------------------------------------------------------------------------------------

    def base(self, source: Source, index: int) -> str:
        """Base address (i64) such that element `position` lies at base + 4 * position."""
        return self.bases[(source, index)]

    def address(self, base: str, position: str) -> str:
        e = self.e
        address = e.add64(base, e.mul64(position, 4))
        return e.let(f"inttoptr i64 {address} to ptr")

    def scalar(self, affine: Affine, scope: Scope, lane: int = 0) -> str:
        """The affine form at lane `lane`, as a scalar i64."""
        e = self.e
        total = str(affine.offset)
        rows = affine.row_extents
        decode = [key for key in affine.terms if key[0] == "decoded"]
        terms = dict(affine.terms)
        if decode:
            row = scope.variables[ROW]
            if scope.lanes_on == ROW and lane:
                row = e.add64(row, str(lane))
            for key in decode:
                coefficient = terms.pop(key)
                below = 1
                for extent in rows[key[1] + 1 :]:
                    below *= extent
                digit = row if below == 1 else e.let(f"udiv i64 {row}, {below}")
                if key[1] > 0:
                    digit = e.let(f"urem i64 {digit}, {rows[key[1]]}")
                total = e.add64(total, e.mul64(digit, coefficient))
        for key, coefficient in terms.items():
            variable = scope.variables[key]
            if key == scope.lanes_on and lane:
                variable = e.add64(variable, str(lane))
            total = e.add64(total, e.mul64(variable, coefficient))
        return total

    def _row_form(self, extents: Sequence[int], strides: Sequence[int], flat: bool) -> dict[Key, int]:
        """Terms of the row dimensions: one on the flat row number if `flat`, otherwise one a decoded digit."""
        if flat:
            last = next(
                (stride for stride, extent in zip(reversed(strides), reversed(extents), strict=True) if extent > 1), 0
            )
            return {ROW: last} if last else {}
        return {
            ("decoded", i): stride
            for i, (stride, extent) in enumerate(zip(strides, extents, strict=True))
            if stride and extent > 1
        }

    def form(self, offset: int, strides: Sequence[int], nest: Nest, flat: bool) -> Affine:
        rows = len(nest.row_extents)
        terms = self._row_form(nest.row_extents, strides[:rows], flat)
        affine = Affine(offset, nest.row_extents, terms)
        for kind, dims in (("inner", nest.inner), ("fold", nest.fold)):
            for place, dim in enumerate(dims):
                if strides[dim.last]:
                    affine.terms[(kind, place)] = strides[dim.last]
        return affine

    # -- reading operands ----------------------------------------------------------------------------------------

    def read(self, reading: Reading, nest: Nest, scope: Scope, element: str) -> str:
        """The operand's value, `self.e.width` lanes of type `element` ('float' or 'i32')."""
        e = self.e
        if reading.source == Source.IMMEDIATE:
            literal = float_literal(reading.index) if element == "float" else str(signed(reading.index))
            return e.splat_literal(element, literal)
        position = self.form(reading.offset, reading.stride, nest, reading.rows_flat)
        guards = [(self.form(guard.offset, guard.stride, nest, reading.rows_flat), guard) for guard in reading.guards]
        lanes_vary = scope.lanes_on is not None and e.width > 1
        if lanes_vary and any(
            form.coefficient(scope.lanes_on or ROW)
            or (scope.lanes_on == ROW and any(k[0] == "decoded" for k in form.terms))
            for form, _ in guards
        ):
            return self._read_lane_by_lane(reading, position, guards, scope, element)
        if lanes_vary and scope.lanes_on == ROW and any(key[0] == "decoded" for key in position.terms):
            return self._read_lane_by_lane(reading, position, guards, scope, element)
        if not guards:
            return self.read_plain(reading, position, "0", scope, element)
        # The guards do not depend on the lane: one condition for all of them.
        holds, extra = self.guards_at(guards, scope, 0)
        return self._guarded(holds, reading, element, lambda: self.read_plain(reading, position, extra, scope, element))

    def _guarded(self, holds: str, reading: Reading, element: str, load: Callable[[], str]) -> str:
        e = self.e
        kind = e.vector(element)
        fill = e.constant_f32(reading.fill) if element == "float" else e.constant_i32(reading.fill)
        slot = e.slot(kind)

        def yes() -> None:
            e.line(f"store {kind} {load()}, ptr {slot}")

        e.when(holds, yes, lambda: e.line(f"store {kind} {fill}, ptr {slot}"))
        return e.let(f"load {kind}, ptr {slot}")

    def guards_at(self, guards: list[tuple[Affine, Guard]], scope: Scope, lane: int) -> tuple[str, str]:
        """Whether all guards hold at a lane (i1), and what they add to the position (i64)."""
        e = self.e
        holds, extra = "true", "0"
        for form, guard in guards:
            value = self.scalar(form, scope, lane)
            condition = e.let(f"icmp sge i64 {value}, 0")
            quotient = value
            if guard.divisor > 1:
                divisor = guard.divisor
                rest = e.let(f"srem i64 {value}, {divisor}")
                condition = e.let(f"and i1 {condition}, {e.let(f'icmp eq i64 {rest}, 0')}")
                quotient = e.let(f"sdiv i64 {value}, {divisor}")
            below = e.let(f"icmp slt i64 {quotient}, {guard.bound}")
            condition = e.let(f"and i1 {condition}, {below}")
            holds = condition if holds == "true" else e.let(f"and i1 {holds}, {condition}")
            extra = e.add64(extra, e.mul64(quotient, guard.multiplier))
        return holds, extra

    def invariant(self, reading: Reading) -> str:
        """Loads of what this kernel does not write may be moved out of its loops."""
        outside = reading.source != Source.OPERATOR or reading.index not in self.group.members_of
        return ", !invariant.load !0" if outside else ""

    def value_at(self, reading: Reading, position: str, element: str) -> str:
        """A scalar of the source at a scalar position."""
        e = self.e
        if reading.source == Source.IMMEDIATE:
            return float_literal(reading.index) if element == "float" else str(signed(reading.index))
        if reading.source == Source.INDEX:
            return e.let(f"trunc i64 {position} to i32")
        if reading.source == Source.STEP:
            return e.let("trunc i64 %step to i32")
        pointer = self.address(self.base(reading.source, reading.index), position)
        return e.let(f"load {element}, ptr {pointer}, align 4{self.invariant(reading)}")

    def read_plain(self, reading: Reading, position: Affine, extra: str, scope: Scope, element: str) -> str:
        e = self.e
        start = e.add64(self.scalar(position, scope), extra)
        lane_stride = position.coefficient(scope.lanes_on) if scope.lanes_on is not None and e.width > 1 else 0
        if reading.source == Source.STEP:
            return e.splat("i32", self.value_at(reading, start, "i32"))
        if reading.source == Source.INDEX:
            first = e.splat("i32", self.value_at(reading, start, "i32"))
            if not lane_stride:
                return first
            ramp = "<" + ", ".join(f"i32 {signed((lane * lane_stride) & 0xFFFFFFFF)}" for lane in range(e.width)) + ">"
            return e.integer("add", first, ramp)
        if lane_stride == 0:
            return e.splat(element, self.value_at(reading, start, element))
        base = self.base(reading.source, reading.index)
        if lane_stride == 1:
            pointer = self.address(base, start)
            return e.let(f"load {e.vector(element)}, ptr {pointer}, align 4{self.invariant(reading)}")
        positions = [e.add64(start, str(lane * lane_stride)) for lane in range(e.width)]
        return self._gather(reading, positions, element)

    def _gather(self, reading: Reading, positions: list[str], element: str) -> str:
        e = self.e
        vector = e.vector(element)
        result = "poison"
        for lane, position in enumerate(positions):
            value = self.value_at(reading, position, element)
            result = e.let(f"insertelement {vector} {result}, {element} {value}, i64 {lane}")
        return result

    def _read_lane_by_lane(
        self, reading: Reading, position: Affine, guards: list[tuple[Affine, Guard]], scope: Scope, element: str
    ) -> str:
        """Each lane by itself. A lane whose guard fails reads the first element that is in memory instead, and is then
        replaced by the fill."""
        e = self.e
        first_place = self.firsts.get((reading.source, reading.index), "0")
        # Lanes that all hold and lie side by side need no gather; the first and the last lane tell.
        lanes_on = scope.lanes_on or ROW
        decoded = any(key[0] == "decoded" for form in (position, *(form for form, _ in guards)) for key in form.terms)
        stride = position.coefficient(lanes_on)
        simple = not decoded or lanes_on != ROW
        for form, guard in guards:
            if guard.divisor != 1 or abs(form.coefficient(lanes_on)) > 1:
                simple = False
            stride += form.coefficient(lanes_on) * guard.multiplier
        kind = e.vector(element)
        slot = e.slot(kind)

        def by_lane() -> None:
            vector, mask = "poison", "poison"
            for lane in range(e.width):
                holds, extra = self.guards_at(guards, scope, lane)
                place = e.add64(self.scalar(position, scope, lane), extra)
                if holds != "true":
                    place = e.let(f"select i1 {holds}, i64 {place}, i64 {first_place}")
                value = self.value_at(reading, place, element)
                vector = e.let(f"insertelement {kind} {vector}, {element} {value}, i64 {lane}")
                mask = e.let(f"insertelement {e.i1} {mask}, i1 {holds}, i64 {lane}")
            fill = e.constant_f32(reading.fill) if element == "float" else e.constant_i32(reading.fill)
            e.line(f"store {kind} {e.pick(mask, kind, vector, fill)}, ptr {slot}")

        if simple and stride in (0, 1) and reading.source not in (Source.INDEX, Source.STEP):
            first, extra = self.guards_at(guards, scope, 0)
            last, _ = self.guards_at(guards, scope, e.width - 1)
            both = e.let(f"and i1 {first}, {last}")

            def side_by_side() -> None:
                start = e.add64(self.scalar(position, scope), extra)
                pointer = self.address(self.base(reading.source, reading.index), start)
                if stride == 1:
                    value = e.let(f"load {kind}, ptr {pointer}, align 4{self.invariant(reading)}")
                else:
                    value = e.splat(element, e.let(f"load {element}, ptr {pointer}, align 4{self.invariant(reading)}"))
                e.line(f"store {kind} {value}, ptr {slot}")

            e.when(both, side_by_side, by_lane)
        else:
            by_lane()
        return e.let(f"load {kind}, ptr {slot}")
