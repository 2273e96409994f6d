"""Scatter-add of rows as an LLVM kernel: out[index[k], :] += row k, for k in order.

The order of additions into one output element is the fold's order, whatever the number of columns a task takes.
"""

from __future__ import annotations

from assay.engine.cpu import isa
from assay.engine.cpu.emitter import Emitter
from assay.engine.patterns import Scatter

COLUMNS = 64
"""Columns of one task."""


def tasks(pattern: Scatter) -> int:
    return -(-pattern.width // COLUMNS)


def text(pattern: Scatter) -> str:
    """IR of the kernel; its record holds the addresses of the index tensor, the rows and the output."""
    e = Emitter(isa.UNIT.lanes)
    for number, name in enumerate(("index", "rows", "output")):
        e.line(f"%p.{name} = getelementptr i64, ptr %record.ptr, i64 {number}")
        e.line(f"%{name} = load i64, ptr %p.{name}")
    begin = e.mul64("%task", COLUMNS)
    unclipped = e.add64(begin, str(COLUMNS))
    over = e.let(f"icmp sgt i64 {unclipped}, {pattern.width}")
    end = e.let(f"select i1 {over}, i64 {pattern.width}, i64 {unclipped}")

    def pointer(base: str, position: str) -> str:
        return e.let(f"inttoptr i64 {e.add64(base, e.mul64(position, 4))} to ptr")

    def columns(body: object) -> None:
        length = e.let(f"sub i64 {end}, {begin}")
        whole = e.add64(begin, e.mul64(e.let(f"udiv i64 {length}, {e.lanes}"), e.lanes))
        e.loop(begin, whole, e.lanes, lambda at: _wide(e, e.lanes, body, at))
        e.loop(whole, end, 1, lambda at: _wide(e, 1, body, at))

    def clear(row: str) -> None:
        start = e.mul64(row, pattern.width)

        def zero(at: str) -> None:
            to = pointer("%output", e.add64(start, at))
            e.line(f"store {e.f32} {e.splat_literal('float', '0.0')}, ptr {to}, align 4")

        columns(zero)

    e.loop("0", str(pattern.values), 1, clear)

    def term(k: str) -> None:
        place = e.add64(e.mul64(k, pattern.index_stride), str(pattern.index_offset))
        index = e.let(f"load i32, ptr {pointer('%index', place)}, align 4")
        wide = e.let(f"sext i32 {index} to i64")
        inside = e.let(f"icmp ult i64 {wide}, {pattern.values}")
        source = e.add64(e.mul64(k, pattern.row_stride), str(pattern.row_offset))
        target = e.mul64(wide, pattern.width)

        def add(at: str) -> None:
            to = pointer("%output", e.add64(target, at))
            old = e.let(f"load {e.f32}, ptr {to}, align 4")
            new = e.let(f"load {e.f32}, ptr {pointer('%rows', e.add64(source, at))}, align 4")
            e.line(f"store {e.f32} {e.add(old, new)}, ptr {to}, align 4")

        e.when(inside, lambda: columns(add))

    e.loop("0", str(pattern.terms), 1, term)
    body = "\n  ".join(["%record.ptr = inttoptr i64 %record to ptr", *e.slots, *e.lines, "ret void"])
    return f"define void @kernel(i64 %record, i64 %task, i64 %worker) nounwind {{\n  {body}\n}}\n"


def _wide(e: Emitter, width: int, body: object, at: str) -> None:
    with e.lanes_of(width):
        body(at)  # type: ignore[operator]
