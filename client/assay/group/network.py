"""Who could take part: devices, and the delay and bandwidth between every two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.group.errors import ClusterError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Device:
    """One member's machine.

    `flops` is its sustained speed in floating-point operations a second; 0 means that the plan leaves compute out.
    `memory_bytes` limits how many layers it is given, and what it holds of a stage in training; 0 means no limit.
    """

    name: str
    flops: float = 0.0
    memory_bytes: float = 0.0


@dataclass(frozen=True)
class Network:
    """Pairwise links of n devices; both tables are symmetric, their diagonals are not read.

    `delay_seconds`: (n, n), one way. `bandwidth`: (n, n), bytes a second, one way.
    """

    delay_seconds: FloatArray
    bandwidth: FloatArray

    def __post_init__(self) -> None:
        n = self.delay_seconds.shape[0]
        if self.delay_seconds.shape != (n, n) or self.bandwidth.shape != (n, n):
            raise ClusterError(
                f"delays have shape {self.delay_seconds.shape} and bandwidths {self.bandwidth.shape}; "
                "give both as square tables of the same size"
            )
        apart = ~np.eye(n, dtype=bool)
        if np.any(self.delay_seconds[apart] < 0) or not np.all(np.isfinite(self.delay_seconds[apart])):
            raise ClusterError("a delay is negative or not finite; measure the links again with `assay group measure`")
        if np.any(self.bandwidth[apart] <= 0):
            first, second = np.argwhere((self.bandwidth <= 0) & apart)[0]
            raise ClusterError(
                f"the bandwidth between devices {first} and {second} is {self.bandwidth[first, second]}; "
                "every pair needs a positive one"
            )
        for table, what in ((self.delay_seconds, "delay"), (self.bandwidth, "bandwidth")):
            if not np.allclose(np.where(apart, table, 0), np.where(apart, table, 0).T):
                raise ClusterError(f"the {what} table is not symmetric; give the slower of both directions for a pair")

    @property
    def size(self) -> int:
        """The number of devices."""
        return int(self.delay_seconds.shape[0])


@dataclass(frozen=True)
class Cluster:
    """Devices and the network between them, in the same order."""

    devices: tuple[Device, ...]
    network: Network

    def __post_init__(self) -> None:
        if len(self.devices) != self.network.size:
            raise ClusterError(f"{len(self.devices)} devices but a network of {self.network.size}; they must match")
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ClusterError(f"two devices are named {twice!r}; give each its own name")

    def subset(self, indices: Sequence[int]) -> Cluster:
        """The same cluster with only the devices of `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        network = Network(self.network.delay_seconds[np.ix_(rows, rows)], self.network.bandwidth[np.ix_(rows, rows)])
        return Cluster(tuple(self.devices[i] for i in indices), network)


def network_from_groups(group_of: IntArray, delay_ms: FloatArray, bandwidth_gbps: FloatArray) -> Network:
    """Expand a block-structured network: device i lies in group `group_of[i]`, links depend on the two groups only.

    `group_of`: (n,); `delay_ms` and `bandwidth_gbps`: (groups, groups), the diagonal being the links inside a group.
    """
    rows = np.ix_(group_of, group_of)
    return Network(delay_ms[rows] / 1e3, bandwidth_gbps[rows] * 1e9 / 8)


def interchangeable_classes(cluster: Cluster) -> IntArray:
    """Class number of each device: two devices of one class can be exchanged without changing any cost.

    Returns (n,) int64. Found from the tables themselves, so measured networks simply get n classes.
    """
    n = cluster.network.size
    delay, bandwidth = cluster.network.delay_seconds, cluster.network.bandwidth
    classes = np.full(n, -1, dtype=np.int64)
    representatives: list[list[int]] = []
    for i in range(n):
        for number, members in enumerate(representatives):
            j = members[0]
            others = np.ones(n, dtype=bool)
            others[[i, j]] = False
            same_links = np.array_equal(delay[i, others], delay[j, others]) and np.array_equal(
                bandwidth[i, others], bandwidth[j, others]
            )
            # A third member of the class must be as far from either as they are from each other.
            inner_same = len(members) < 2 or (
                delay[i, j] == delay[j, members[1]] and bandwidth[i, j] == bandwidth[j, members[1]]
            )
            same_device = (cluster.devices[i].flops, cluster.devices[i].memory_bytes) == (
                cluster.devices[j].flops,
                cluster.devices[j].memory_bytes,
            )
            if same_links and inner_same and same_device:
                classes[i] = number
                members.append(i)
                break
        else:
            classes[i] = len(representatives)
            representatives.append([i])
    return classes
