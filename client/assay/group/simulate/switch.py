"""Forward packets between TUN devices, each after its link's transmission time and delay."""

from __future__ import annotations

import heapq
import os
import selectors
import time

# What may wait for a link before packets are dropped, in seconds of its bandwidth: a generous router.
QUEUE_SECONDS = 2.0
_BATCH = 64


def run_switch(devices: list[int], delay_seconds: list[list[float]], bandwidth: list[list[float]], stop: int) -> None:
    """Forward until the descriptor `stop` becomes readable (its other end is closed).

    Device i has the address 10.77.0.(i + 1). Every ordered pair is a link of its own: a packet begins when the one
    before it has passed, takes its bytes over the bandwidth, and arrives a delay later.
    """
    size = len(devices)
    free = [[0.0] * size for _ in range(size)]
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    selector = selectors.DefaultSelector()
    selector.register(stop, selectors.EVENT_READ, -1)
    for number, device in enumerate(devices):
        selector.register(device, selectors.EVENT_READ, number)
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in selector.select(timeout):
            source = key.data
            if source < 0:
                return
            for _ in range(_BATCH):
                try:
                    packet = os.read(devices[source], 65536)
                except BlockingIOError:
                    break
                # IPv4 only: byte 16 to 19 is the destination.
                if len(packet) < 20 or packet[0] >> 4 != 4 or packet[16:18] != b"\x0a\x4d":
                    continue
                target = packet[19] - 1
                if not 0 <= target < size or target == source:
                    continue
                now = time.monotonic()
                passed = max(now, free[source][target]) + len(packet) / bandwidth[source][target]
                if passed - now > QUEUE_SECONDS:
                    continue
                free[source][target] = passed
                count += 1
                heapq.heappush(waiting, (passed + delay_seconds[source][target], count, target, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(waiting)
            try:
                os.write(devices[target], packet)
            except OSError:
                continue  # the receiving queue is full or its device is down: a lost packet, as on any network
