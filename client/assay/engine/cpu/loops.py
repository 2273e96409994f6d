"""Loop kernels: groups of operators as one LLVM function, in the exact order the program demands.

A group shares its leading *row* dimensions: whatever one of its operators reads of another lies in the same row. The
kernel walks blocks of rows; within a block it runs the group's members one after the other, so intermediate rows stay
in the processor's cache (scratch memory of the worker) or in registers, and only what is read elsewhere is written to
memory. Members are

- *maps*: scalar bodies over one box, vectorised along the innermost dimension (or along the rows, if there is none);
- *folds*: strictly sequential in the fold's own order, vectorised over independent outputs, never within one fold.

Vectorisation and blocking therefore cannot change a bit of any result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assay.engine.cpu import sequences
from assay.engine.cpu.emitter import NEGATIVE_INFINITY, Emitter
from assay.engine.cpu.loads import ROW, Key, Loads, Scope
from assay.engine.nest import Location, LoopGroup, Member, Nest
from assay.program.operator import Body, ElementType, Source

HEADER_WORDS = 5  # step number, scratch address, scratch bytes a worker, first row, end row; buffers follow
UNROLL = 4


@dataclass(frozen=True)
class LoopKernel:
    """IR of a group and how to launch it."""

    text: str
    slots: tuple[tuple[Source, int], ...]  # whose address each buffer word of the record holds
    tasks: int
    scratch_bytes: int  # a worker


class _Writer(Loads):
    def __init__(self, group: LoopGroup) -> None:
        super().__init__(group)
        self.slots: list[tuple[Source, int]] = []
        self.values: dict[int, str] = {}
        self.block_start = ""
        self.scratch_offsets: dict[int, int] = {}
        self.scratch_bytes = 0

    # -- bodies --------------------------------------------------------------------------------------------------

    def operand(self, nest: Nest, place: int, scope: Scope, element: str) -> str:
        reading = nest.readings[place]
        if reading.in_register:
            return self.values[reading.index]
        return self.read(reading, nest, scope, element)

    def scalar_body(self, nest: Nest, scope: Scope) -> str:
        """The value of a non-fold body at the current place."""
        e = self.e
        body = nest.operator.body
        output = "float" if nest.operator.type == ElementType.FLOAT else "i32"

        def f(place: int) -> str:
            return self.operand(nest, place, scope, "float")

        def i(place: int) -> str:
            return self.operand(nest, place, scope, "i32")

        if body in _FLOAT_BINARY:
            return _FLOAT_BINARY[body](e, f(0), f(1))
        if body in _FLOAT_UNARY:
            return _FLOAT_UNARY[body](e, f(0))
        if body in sequences.FUNCTIONS:
            return sequences.emit(body, e, f(0))
        if body in _INTEGER_BINARY:
            return _INTEGER_BINARY[body](e, i(0), i(1))
        if body == Body.COPY:
            return self.operand(nest, 0, scope, output)
        if body == Body.FMA:
            return e.fma(f(0), f(1), f(2))
        if body == Body.SAME:
            floats = [reading.dtype != ElementType.INT for reading in nest.readings]
            bits = [e.canonical_bits(f(k)) if is_float else i(k) for k, is_float in enumerate(floats)]
            return e.truth(e.icompare("eq", bits[0], bits[1]))
        if body == Body.SELECT:
            return e.pick(
                e.nonzero(i(0)),
                e.vector(output),
                self.operand(nest, 1, scope, output),
                self.operand(nest, 2, scope, output),
            )
        if body == Body.TO_INT:
            return e.to_int(f(0))
        if body == Body.TO_FLOAT:
            return e.to_float(i(0))
        if body == Body.GATHER:
            return self.gather_body(nest, scope, output)
        raise NotImplementedError(f"body {body.name} is not a loop body")

    def gather_body(self, nest: Nest, scope: Scope, element: str) -> str:
        e = self.e
        table, by = nest.readings
        stride, bound = nest.operator.p0, nest.operator.p1
        kind = e.vector(element)
        zero = e.splat_literal(element, "0.0" if element == "float" else "0")
        position = self.form(table.offset, table.stride, nest, table.rows_flat)
        guards = [(self.form(g.offset, g.stride, nest, table.rows_flat), g) for g in table.guards]
        lanes_on = scope.lanes_on
        by_form = self.form(by.offset, by.stride, nest, by.rows_flat)
        index_varies = (
            e.width > 1
            and lanes_on is not None
            and (
                by.in_register
                or bool(by.guards)
                or by_form.coefficient(lanes_on) != 0
                or (lanes_on == ROW and any(key[0] == "decoded" for key in by_form.terms))
            )
        )
        table_simple = not guards and not (lanes_on == ROW and any(key[0] == "decoded" for key in position.terms))
        if not index_varies and table_simple:
            # One index for all lanes: a row of the table, read side by side.
            with e.lanes_of(1):
                index = (
                    self.operand(nest, 1, Scope(scope.variables, None), "i32")
                    if not by.in_register
                    else self.values[by.index]
                )
            wide = e.let(f"sext i32 {index} to i64")
            inside = e.let(f"icmp ult i64 {wide}, {bound}")
            slot = e.slot(kind)

            def load() -> None:
                value = self.read_plain(table, position, e.mul64(wide, stride), scope, element)
                e.line(f"store {kind} {value}, ptr {slot}")

            e.when(inside, load, lambda: e.line(f"store {kind} {zero}, ptr {slot}"))
            return e.let(f"load {kind}, ptr {slot}")
        indices = self.operand(nest, 1, scope, "i32")
        vector = "poison"
        for lane in range(e.width):
            index = indices if e.width == 1 else e.let(f"extractelement {e.i32} {indices}, i64 {lane}")
            wide = e.let(f"sext i32 {index} to i64")
            inside = e.let(f"icmp ult i64 {wide}, {bound}")
            holds, extra = self.guards_at(guards, scope, lane)
            place = e.add64(e.add64(self.scalar(position, scope, lane), extra), e.mul64(wide, stride))
            reads = inside if holds == "true" else e.let(f"and i1 {inside}, {holds}")
            first = self.firsts.get((table.source, table.index), "0")
            place = e.let(f"select i1 {reads}, i64 {place}, i64 {first}")
            with e.lanes_of(1):
                value = self.value_at(table, place, element)
                missing = "0.0" if element == "float" else "0"
                if holds != "true":
                    fill = e.constant_f32(table.fill) if element == "float" else e.constant_i32(table.fill)
                    missing = e.let(f"select i1 {holds}, {element} {missing}, {element} {fill}")
                value = e.let(f"select i1 {reads}, {element} {value}, {element} {missing}")
            vector = value if e.width == 1 else e.let(f"insertelement {kind} {vector}, {element} {value}, i64 {lane}")
        return vector

    def store(self, nest: Nest, value: str, scope: Scope) -> None:
        """Write the member's output, unless it lives in a register only. Outputs are row-major."""
        e = self.e
        self.values[nest.index] = value
        if nest.location == Location.REGISTER:
            return
        form = self.form(0, nest.output_strides, nest, flat=True)
        element = "float" if nest.operator.type == ElementType.FLOAT else "i32"
        pointer = self.address(self.base(Source.OPERATOR, nest.index), self.scalar(form, scope))
        e.line(f"store {e.vector(element)} {value}, ptr {pointer}, align 4")

    # -- members -------------------------------------------------------------------------------------------------

    def member(self, member: Member, begin: str, end: str) -> None:
        """One member over the rows [begin, end)."""
        emit = self.fold_at if member.is_fold else self.map_at
        first = member.nests[0]
        if not first.inner:
            self._vector_loop(
                ROW, begin, end, None, lambda scope, count: emit(member, scope, count), Scope({}, ROW), member
            )
            return

        def row(name: str) -> None:
            self._inner_loops(member, 0, Scope({ROW: name}, None), emit)

        self.e.loop(begin, end, 1, row)

    def _inner_loops(
        self, member: Member, place: int, scope: Scope, emit: Callable[[Member, Scope, int], None]
    ) -> None:
        dims = member.nests[0].inner
        key: Key = ("inner", place)
        if place == len(dims) - 1:
            extent = dims[place].extent
            self._vector_loop(key, "0", str(extent), extent, lambda s, count: emit(member, s, count), scope, member)
            return
        self.e.loop(
            "0",
            str(dims[place].extent),
            1,
            lambda name: self._inner_loops(member, place + 1, scope.with_variable(key, name), emit),
        )

    def _vector_loop(
        self,
        key: Key,
        begin: str,
        end: str,
        extent: int | None,
        body: Callable[[Scope, int], None],
        scope: Scope,
        member: Member,
    ) -> None:
        """Cover [begin, end) with groups of vectors, vectors, and single elements, in ascending order."""
        e = self.e
        start = begin
        room = extent if extent is not None else self.group.block_rows
        unrolls = [UNROLL, 1] if member.is_fold and room >= UNROLL * e.lanes else [1]
        widths = [(e.lanes, unroll) for unroll in unrolls]
        if e.lanes > 4 and extent is not None:
            widths.append((4, 1))
        widths.append((1, 1))
        for width, unroll in widths:
            step = width * unroll
            if extent is not None:
                stop_number = int(start) + (extent - int(start)) // step * step
                if stop_number == int(start):
                    continue
                stop = str(stop_number)
            elif step == 1:
                stop = end
            else:
                length = e.let(f"sub i64 {end}, {start}")
                stop = e.add64(start, e.mul64(e.let(f"udiv i64 {length}, {step}"), step))

            def run(name: str, width: int = width, unroll: int = unroll) -> None:
                inside = Scope({**scope.variables, key: name}, key)
                with e.lanes_of(width):
                    body(inside, unroll)

            e.loop(start, stop, step, run)
            start = stop

    def map_at(self, member: Member, scope: Scope, unroll: int) -> None:
        for nest in member.nests:
            self.store(nest, self.scalar_body(nest, scope), scope)

    def fold_at(self, member: Member, scope: Scope, unroll: int) -> None:
        """Folds of one member (usually one) for `unroll` vectors of outputs side by side."""
        e = self.e
        lanes_on = scope.lanes_on or ROW
        scopes = [
            Scope({**scope.variables, lanes_on: e.add64(scope.variables[lanes_on], str(n * e.width))}, lanes_on)
            for n in range(unroll)
        ]
        for nest in member.nests:
            accumulators = [self._initial(nest) for _ in scopes]
            self._fold_loops(nest, 0, {}, scopes, accumulators)
            for inside, slots in zip(scopes, accumulators, strict=True):
                kind = e.f32 if nest.operator.type == ElementType.FLOAT else e.i32
                self.store(nest, e.let(f"load {kind}, ptr {slots[0]}"), inside)

    def _initial(self, nest: Nest) -> list[str]:
        e = self.e
        body = nest.operator.body
        if body == Body.FOLD_ARGMAX:
            best, index = e.slot(e.f32), e.slot(e.i32)
            e.line(f"store {e.i32} {e.constant_i32(0)}, ptr {index}")
            e.line(f"store {e.f32} {e.splat_literal('float', NEGATIVE_INFINITY)}, ptr {best}")
            return [index, best]
        if body == Body.FOLD_IADD:
            total = e.slot(e.i32)
            e.line(f"store {e.i32} {e.constant_i32(0)}, ptr {total}")
            return [total]
        total = e.slot(e.f32)
        start = NEGATIVE_INFINITY if body == Body.FOLD_MAX else "0.0"
        e.line(f"store {e.f32} {e.splat_literal('float', start)}, ptr {total}")
        return [total]

    def _fold_loops(
        self, nest: Nest, place: int, variables: dict[Key, str], scopes: list[Scope], accumulators: list[list[str]]
    ) -> None:
        e = self.e
        dims = nest.fold
        if place < len(dims) - 1:
            e.loop(
                "0",
                str(dims[place].extent),
                1,
                lambda name: self._fold_loops(
                    nest, place + 1, {**variables, ("fold", place): name}, scopes, accumulators
                ),
            )
            return
        key: Key = ("fold", place)
        extent = dims[place].extent if dims else 1

        def scopes_at(name: str) -> list[Scope]:
            return [Scope({**s.variables, **variables, key: name}, s.lanes_on) for s in scopes]

        def one(name: str) -> None:
            for inside, slots in zip(scopes_at(name), accumulators, strict=True):
                operands = [self.operand(nest, k, inside, _element(nest, k)) for k in range(len(nest.readings))]
                self._accumulate(nest, operands, slots, inside, name)

        start = 0
        turned = [k for k in range(len(nest.readings)) if self._turns(nest, k, scopes[0], key)]
        if (
            turned
            and e.width == e.lanes
            and len(scopes) >= 1
            and extent >= e.lanes
            and nest.operator.body != Body.FOLD_ARGMAX
        ):
            start = extent // e.lanes * e.lanes

            def block(name: str) -> None:
                for inside, slots in zip(scopes_at(name), accumulators, strict=True):
                    columns = {k: self._turned(nest, k, inside) for k in turned}
                    for step in range(e.lanes):
                        term = Scope({**inside.variables, key: e.add64(name, str(step))}, inside.lanes_on)
                        operands = [
                            columns[k][step] if k in columns else self.operand(nest, k, term, _element(nest, k))
                            for k in range(len(nest.readings))
                        ]
                        self._accumulate(nest, operands, slots, term, "")

            e.loop("0", str(start), e.lanes, block)
        if start < extent:
            e.loop(str(start), str(extent), 1, one)

    def _turns(self, nest: Nest, place: int, scope: Scope, key: Key) -> bool:
        """Whether an operand lies along the fold and across the lanes, so that blocks of it are best transposed."""
        reading = nest.readings[place]
        if reading.in_register or reading.guards or reading.source in (Source.IMMEDIATE, Source.INDEX, Source.STEP):
            return False
        form = self.form(reading.offset, reading.stride, nest, reading.rows_flat)
        if scope.lanes_on is None or any(k[0] == "decoded" for k in form.terms):
            return False
        return form.coefficient(key) == 1 and form.coefficient(scope.lanes_on) not in (0, 1)

    def _turned(self, nest: Nest, place: int, scope: Scope) -> list[str]:
        """`lanes` vectors: number s holds, for every lane, the operand s terms on."""
        e = self.e
        reading = nest.readings[place]
        element = _element(nest, place)
        form = self.form(reading.offset, reading.stride, nest, reading.rows_flat)
        stride = form.coefficient(scope.lanes_on or ROW)
        start = self.scalar(form, scope)
        base = self.base(reading.source, reading.index)
        kind = e.vector(element)
        rows = []
        for lane in range(e.width):
            pointer = self.address(base, e.add64(start, str(lane * stride)))
            rows.append(e.let(f"load {kind}, ptr {pointer}, align 4{self.invariant(reading)}"))
        # Transposition by exchanging ever smaller blocks between rows `half` apart.
        half = e.width // 2
        while half:
            for first in range(e.width):
                if first & half:
                    continue
                a, b = rows[first], rows[first + half]
                low = [(i & ~half) + (e.width if i & half else 0) for i in range(e.width)]
                high = [(i | half) + (e.width if i & half else 0) for i in range(e.width)]
                rows[first] = self._shuffle(kind, a, b, low)
                rows[first + half] = self._shuffle(kind, a, b, high)
            half //= 2
        return rows

    def _shuffle(self, kind: str, a: str, b: str, mask: list[int]) -> str:
        lanes = ", ".join(f"i32 {i}" for i in mask)
        return self.e.let(f"shufflevector {kind} {a}, {kind} {b}, <{len(mask)} x i32> <{lanes}>")

    def _accumulate(self, nest: Nest, operands: list[str], slots: list[str], scope: Scope, name: str) -> None:
        e = self.e
        body = nest.operator.body
        kind = e.i32 if body in (Body.FOLD_IADD, Body.FOLD_ARGMAX) else e.f32
        total = e.let(f"load {kind}, ptr {slots[0]}")
        if body == Body.FOLD_FMA:
            total = e.fma(operands[0], operands[1], total)
        elif body == Body.FOLD_ADD:
            total = e.add(total, operands[0])
        elif body == Body.FOLD_MAX:
            total = e.maximum(total, operands[0])
        elif body == Body.FOLD_IADD:
            total = e.integer("add", total, operands[0])
        elif body == Body.FOLD_ADD_IF:
            equal = e.icompare("eq", operands[0], operands[1])
            total = e.pick(equal, e.f32, e.add(total, operands[2]), total)
        else:
            best = e.let(f"load {e.f32}, ptr {slots[1]}")
            term = "0"
            for place, dim in enumerate(nest.fold):
                term = e.add64(e.mul64(term, dim.extent), scope.variables[("fold", place)])
            narrow = e.let(f"trunc i64 {term} to i32")
            first = e.splat("i1", e.let(f"icmp eq i32 {narrow}, 0"))
            fresh_nan = e.let(
                f"and {e.i1} {e.compare('uno', operands[0], operands[0])}, {e.compare('ord', best, best)}"
            )
            better = e.let(f"or {e.i1} {e.compare('ogt', operands[0], best)}, {fresh_nan}")
            better = e.let(f"or {e.i1} {better}, {first}")
            total = e.pick(better, e.i32, e.splat("i32", narrow), total)
            e.line(f"store {e.f32} {e.pick(better, e.f32, operands[0], best)}, ptr {slots[1]}")
        e.line(f"store {kind} {total}, ptr {slots[0]}")

    # -- the function --------------------------------------------------------------------------------------------

    def write(self) -> LoopKernel:
        e, group = self.e, self.group
        for nest in group.nests:
            for reading in nest.readings:
                if reading.has_memory and not (reading.source == Source.OPERATOR and reading.index in group.members_of):
                    self._slot(reading.source, reading.index)
        for nest in group.nests:
            if nest.location == Location.BUFFER:
                self._slot(Source.OPERATOR, nest.index)
            elif nest.location == Location.SCRATCH:
                self.scratch_offsets[nest.index] = self.scratch_bytes
                self.scratch_bytes += (4 * group.block_rows * nest.row_elements + 127) // 64 * 64
        word = 0

        def load_word(name: str) -> None:
            nonlocal word
            e.line(f"%p.{name} = getelementptr i64, ptr %record.ptr, i64 {word}")
            e.line(f"%{name} = load i64, ptr %p.{name}")
            word += 1

        for name in ("step", "scratch.all", "scratch.size", "row.first", "row.end"):
            load_word(name)
        for number, key in enumerate(self.slots):
            load_word(f"buffer{number}")
            self.bases[key] = f"%buffer{number}"
        mine = e.let("mul i64 %worker, %scratch.size")
        scratch = e.add64("%scratch.all", mine)
        begin = e.add64("%row.first", e.mul64("%task", group.task_rows))
        unclipped = e.add64(begin, str(group.task_rows))
        over = e.let(f"icmp sgt i64 {unclipped}, %row.end")
        end = e.let(f"select i1 {over}, i64 %row.end, i64 {unclipped}")

        def block(start: str) -> None:
            stop = e.add64(start, str(group.block_rows))
            past = e.let(f"icmp sgt i64 {stop}, {end}")
            stop = e.let(f"select i1 {past}, i64 {end}, i64 {stop}")
            for nest in group.nests:
                if nest.location == Location.SCRATCH:
                    # Scratch holds this block of rows only: shift its base so that full positions fit.
                    base = e.add64(scratch, str(self.scratch_offsets[nest.index]))
                    before = e.mul64(start, 4 * nest.row_elements)
                    self.bases[(Source.OPERATOR, nest.index)] = e.let(f"sub i64 {base}, {before}")
                    self.firsts[(Source.OPERATOR, nest.index)] = e.mul64(start, nest.row_elements)
            for member in group.members:
                self.member(member, start, stop)

        e.loop(begin, end, group.block_rows, block)
        body = "\n  ".join(["%record.ptr = inttoptr i64 %record to ptr", *e.slots, *e.lines, "ret void"])
        declarations = "\n".join(sorted(e.declarations))
        text = (
            "define void @kernel(i64 %record, i64 %task, i64 %worker) nounwind {\n  "
            + body
            + "\n}\n"
            + declarations
            + "\n!0 = !{}\n"
        )
        tasks = -(-group.rows // group.task_rows)
        return LoopKernel(text, tuple(self.slots), tasks, self.scratch_bytes)

    def _slot(self, source: Source, index: int) -> None:
        if (source, index) not in self.slots:
            self.slots.append((source, index))


def generate(group: LoopGroup) -> LoopKernel:
    """The IR of a group."""
    return _Writer(group).write()


def _element(nest: Nest, place: int) -> str:
    body = nest.operator.body
    if body == Body.FOLD_IADD or (body == Body.FOLD_ADD_IF and place < 2):
        return "i32"
    return "float"


_FLOAT_BINARY: dict[Body, Callable[[Emitter, str, str], str]] = {
    Body.ADD: Emitter.add,
    Body.SUB: Emitter.sub,
    Body.MUL: Emitter.mul,
    Body.DIV: Emitter.div,
    Body.MAX: Emitter.maximum,
    Body.MIN: Emitter.minimum,
    Body.EQ: lambda e, a, b: e.truth(e.compare("oeq", a, b)),
    Body.LT: lambda e, a, b: e.truth(e.compare("olt", a, b)),
    Body.LE: lambda e, a, b: e.truth(e.compare("ole", a, b)),
}

_FLOAT_UNARY: dict[Body, Callable[[Emitter, str], str]] = {
    Body.SQRT: Emitter.sqrt,
    Body.NEG: Emitter.neg,
    Body.ABS: Emitter.abs,
}

_INTEGER_BINARY: dict[Body, Callable[[Emitter, str, str], str]] = {
    Body.IADD: lambda e, a, b: e.integer("add", a, b),
    Body.ISUB: lambda e, a, b: e.integer("sub", a, b),
    Body.IMUL: lambda e, a, b: e.integer("mul", a, b),
    Body.IAND: lambda e, a, b: e.integer("and", a, b),
    Body.IOR: lambda e, a, b: e.integer("or", a, b),
    Body.IXOR: lambda e, a, b: e.integer("xor", a, b),
    Body.IDIV: lambda e, a, b: e.floor_divide(a, b, remainder=False),
    Body.IMOD: lambda e, a, b: e.floor_divide(a, b, remainder=True),
    Body.ILT: lambda e, a, b: e.truth(e.icompare("slt", a, b)),
    Body.ILE: lambda e, a, b: e.truth(e.icompare("sle", a, b)),
}
