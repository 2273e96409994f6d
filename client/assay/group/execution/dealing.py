"""Deal a program's families to stages: contiguous in order of first use, balanced by work, within memory, cut where
little crosses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from assay.group.errors import PlacementError
from assay.group.execution.families import Families, operands_of
from assay.program.operator import Program, Role, Source

BALANCE_SLACK = 0.15
"""How much longer the busiest stage may work than in the best balance, if fewer bytes cross for it."""

DECLARED_SLACK = 0.5
"""The same where the task declares compressed boundaries: it does so for links on which bytes are dear."""

LEAST_PART = 0.1
"""A stage has at least so much of its fair share of the work, if that can be: one with nothing to do is a link more."""

_BISECTIONS = 60


class Dealing:
    """Deals the families of a program out to stages. `shares`: how much of the work each should get (any unit).

    `reads`: what each live operator reads. `measured` gives the bytes that cross a cut before a family and the work on
    the near side of it. It costs more than the estimate that is made without it; cuts may then be less balanced.
    Raises PlacementError where there are more stages than families.
    """

    def __init__(
        self, program: Program, families: Families, shares: Sequence[float], reads: Mapping[int, set[int]],
        measured: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self.count, self.shares = len(families.families), shares
        if len(shares) < 1 or min(shares) <= 0:
            raise PlacementError(f"the shares of the stages are {list(shares)}; each must be positive")
        if self.count < len(shares):
            raise PlacementError(
                f"the program has {self.count} groups of state tensors, too few for {len(shares)} members; plan with "
                "fewer members"
            )
        work, memory, self._crossing = _estimates(program, families, reads)
        self._work_before = np.array([0, *accumulate(work)], np.float64)
        if measured is not None:
            cuts_found = [measured(family) for family in range(1, self.count)]
            self._crossing = [0, *(size for size, _ in cuts_found), 0]
            near = [0, *(before for _, before in cuts_found), self._work_before[-1]]
            self._work_before = np.maximum.accumulate(np.array(near, np.float64))
        self._memory_before = np.array([0, *accumulate(memory)], np.float64)
        self._slack = DECLARED_SLACK if measured is not None else BALANCE_SLACK

    def estimated(self, stage_of: Sequence[int]) -> list[float]:
        """Bytes dealt to each stage: the state twice, and once the values of operators that would best run beside it.
        What a member holds when everything is placed is another matter (`memory`)."""
        ends = [0, *(sum(stage <= each for stage in stage_of) for each in range(len(self.shares)))]
        return [float(self._memory_before[b] - self._memory_before[a]) for a, b in pairwise(ends)]

    def deal(self, bounds: Sequence[float]) -> tuple[int, ...]:
        """The stage of every family, in order, such that no stage is estimated at more than its bound. Raises
        PlacementError where they do not fit."""
        count, stages, shares = self.count, len(self.shares), self.shares
        work_before, memory_before = self._work_before, self._memory_before

        def fits(first: int, end: int, stage: int, time: float) -> bool:
            enough = work_before[end] - work_before[first] <= time * shares[stage]
            return bool(enough and memory_before[end] - memory_before[first] <= bounds[stage])

        def feasible(time: float) -> bool:
            first = 0
            for stage in range(stages):
                end, most = first, count - (stages - 1 - stage)
                while end < most and fits(first, end + 1, stage, time):
                    end += 1
                if end == first:
                    return False
                first = end
            return first == count

        longest = 2 * work_before[-1] / min(shares) + 1
        if not feasible(longest):
            raise PlacementError(
                f"{memory_before[-1]:.3g} bytes of state and intermediate values do not fit the members' memory "
                f"({', '.join(f'{bound:.3g}' for bound in bounds)}); use more members"
            )
        low, high = 0.0, longest
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if feasible(middle) else (middle, high)
        least = LEAST_PART * work_before[-1] / sum(shares)

        def pays(first: int, end: int, stage: int, time: float) -> bool:
            return fits(first, end, stage, time) and bool(
                work_before[end] - work_before[first] >= least * shares[stage]
            )

        longest = high * (1 + self._slack)
        cuts = _cheapest_cuts(count, stages, longest, pays, self._crossing)
        if cuts is None:
            cuts = _cheapest_cuts(count, stages, longest, fits, self._crossing)
        assert cuts is not None  # the bisection found a feasible time
        return tuple(sum(cut <= family for cut in cuts) for family in range(count))


def _cheapest_cuts(
    count: int, stages: int, time: float, fits: Callable[[int, int, int, float], bool], crossing: Sequence[int]
) -> list[int] | None:
    """First families of stages 1, 2, ... such that every stage fits and the fewest bytes cross; first found on ties.
    None where no cuts fit."""
    best: list[dict[int, tuple[int, int]]] = [{0: (0, -1)}]  # by end of the stage: (bytes, end of the stage before)
    for stage in range(stages):
        row: dict[int, tuple[int, int]] = {}
        for first, (cost, _) in best[-1].items():
            for end in range(first + 1, count - (stages - 1 - stage) + 1):
                if not fits(first, end, stage, time):
                    break
                total = cost + (crossing[end] if end < count else 0)
                if end not in row or total < row[end][0]:
                    row[end] = (total, first)
        best.append(row)
    if count not in best[-1]:
        return None
    cuts, end = [], count
    for stage in range(stages, 1, -1):
        end = best[stage][end][1]
        cuts.append(end)
    return cuts[::-1]


def _estimates(
    program: Program, families: Families, reads: Mapping[int, set[int]]
) -> tuple[list[int], list[int], list[int]]:
    """Work and memory of every family, and the bytes that cross when the families are cut before each."""
    operators = program.section(Role.STEP).operators
    count = len(families.families)
    family_of = {state: number for number, group in enumerate(families.families) for state in group}
    position = _positions(program, families, family_of)
    work, memory, change = [0] * count, [0] * count, [0] * (count + 1)
    for number, group in enumerate(families.families):
        memory[number] += sum(8 * program.state[state].count for state in group)
    readers: dict[int, set[int]] = {}
    for number, place in position.items():
        work[place] += operators[number].work
        memory[place] += 4 * operators[number].elements
        for state in operands_of(operators[number], Source.STATE):
            # A parameter that is read elsewhere than it lies travels there, and its gradient back.
            first, end = sorted((family_of.get(state, place), place))
            change[first + 1] += 8 * program.state[state].count if first < end else 0
            if first < end < count:
                change[end + 1] -= 8 * program.state[state].count
        for other in reads[number]:
            if other in position:
                readers.setdefault(other, set()).add(place)
    for number, places in readers.items():
        size, own = 4 * operators[number].elements, position[number]
        for first, end in ((own, max(places)), (min(places), own)):
            if first < end:  # crosses every cut before family first + 1, ..., end
                change[first + 1] += size
                if end + 1 <= count:
                    change[end + 1] -= size
    return work, memory, list(accumulate(change))


def _positions(program: Program, families: Families, family_of: dict[int, int]) -> dict[int, int]:
    """The family beside which each operator that is not free would best run: that of the state it reads, of all its
    readers, or the latest of what it reads."""
    section = program.section(Role.STEP)
    operators = section.operators
    placed: dict[int, int] = {}
    counted = [number for number in range(len(operators)) if number in families.live and number not in families.free]
    for number in counted:
        own = [state for state in operands_of(operators[number], Source.STATE) if state in family_of]
        if own:
            placed[number] = family_of[max(own, key=lambda state: (program.state[state].count, -state))]
    readers: dict[int, set[int | None]] = {}
    for state, entry in enumerate(section.next_state):
        if entry.operator is not None and state in family_of:
            readers.setdefault(entry.operator, set()).add(family_of[state])
    for number in reversed(counted):
        places = readers.get(number, set())
        if number not in placed and len(places) == 1 and None not in places:
            (only,) = places
            assert only is not None
            placed[number] = only
        for other in operands_of(operators[number], Source.OPERATOR):
            readers.setdefault(other, set()).add(placed.get(number))
    for number in counted:
        if number not in placed:
            read = [placed[other] for other in operands_of(operators[number], Source.OPERATOR) if other in placed]
            placed[number] = max(read, default=0)
    return placed
