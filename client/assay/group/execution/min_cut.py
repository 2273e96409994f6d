"""Minimum cuts of a directed network by Dinic's algorithm (1970): the placement of operators on two stages."""

from __future__ import annotations

UNBOUNDED = 1 << 62


class FlowNetwork:
    """Nodes are numbered from 0; capacities are whole numbers of bytes."""

    def __init__(self, nodes: int) -> None:
        self._edges_of: list[list[int]] = [[] for _ in range(nodes)]
        self._head: list[int] = []
        self._capacity: list[int] = []

    def add_node(self) -> int:
        """A new node; returns its number."""
        self._edges_of.append([])
        return len(self._edges_of) - 1

    def add_edge(self, tail: int, head: int, capacity: int) -> None:
        """An edge that costs `capacity` when `tail` lies on the source's side and `head` does not."""
        self._edges_of[tail].append(len(self._head))
        self._head.append(head)
        self._capacity.append(capacity)
        self._edges_of[head].append(len(self._head))
        self._head.append(tail)
        self._capacity.append(0)

    def source_side(self, source: int, sink: int) -> set[int]:
        """The smallest set of nodes on the source's side of a minimum cut. Uses the capacities up."""
        while True:
            level = self._levels(source)
            if sink not in level:
                return set(level)
            used = [0] * len(self._edges_of)
            while self._augment(source, sink, level, used):
                pass

    def _levels(self, source: int) -> dict[int, int]:
        """Distance from the source over edges with capacity left, of every node that can be reached."""
        level = {source: 0}
        queue = [source]
        for node in queue:
            for edge in self._edges_of[node]:
                head = self._head[edge]
                if self._capacity[edge] > 0 and head not in level:
                    level[head] = level[node] + 1
                    queue.append(head)
        return level

    def _augment(self, source: int, sink: int, level: dict[int, int], used: list[int]) -> bool:
        """Send flow along one shortest path; `used` are the edges of each node already known to lead nowhere."""
        path: list[int] = []
        node = source
        while node != sink:
            edges = self._edges_of[node]
            while used[node] < len(edges):
                edge = edges[used[node]]
                head = self._head[edge]
                if self._capacity[edge] > 0 and level.get(head) == level[node] + 1:
                    path.append(edge)
                    node = head
                    break
                used[node] += 1
            else:
                if not path:
                    return False
                node = self._head[path.pop() ^ 1]
                used[node] += 1
        flow = min(self._capacity[edge] for edge in path)
        for edge in path:
            self._capacity[edge] -= flow
            self._capacity[edge ^ 1] += flow
        return True
