"""Watches a fan-out: when each run starts, how long the event loop is held, and what it costs. For ours and the peers'.

Nothing but the standard library, because it runs in the peers' environments. A loop's hold is measured by a ticker that
wants to run each millisecond: what the thread computes between two of its turns, less what the garbage collector takes
of it, is at most a millisecond more than the longest time for which nothing else could run.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Awaitable, Callable

TICK = 0.001


class Watch:
    """Of so many starts. What they are is told by `numbers`."""

    def __init__(self, size: int, reached: Callable[[], object]) -> None:
        self._starts = array("d")
        self._size = size
        self._reached = reached
        self._over = False
        self._cpu = 0.0
        self._collecting = 0.0
        self._collection_began = 0.0
        self._longest_collection = 0.0
        self._held = 0.0
        self._waited = 0.0

    def started(self) -> None:
        """One more, now."""
        starts = self._starts
        starts.append(time.time())
        if len(starts) == self._size:
            self._cpu = time.thread_time() - self._cpu
            self._over = True
            self._reached()

    async def tick(self, sleep: Callable[[float], Awaitable[object]], until: float) -> None:
        """Sleep until just before that time, and look on until all have started."""
        await sleep(max(0.0, until - 0.05 - time.time()))
        gc.callbacks.append(self._collect)
        self._cpu = time.thread_time()
        wall, cpu, collecting = time.perf_counter(), self._cpu, self._collecting
        while not self._over:
            await sleep(TICK)
            now, used, collected = time.perf_counter(), time.thread_time(), self._collecting
            self._waited = max(self._waited, now - wall - TICK)
            self._held = max(self._held, used - cpu - (collected - collecting))
            wall, cpu, collecting = now, used, collected
        gc.callbacks.remove(self._collect)

    def _collect(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collection_began = time.thread_time()
            return
        took = time.thread_time() - self._collection_began
        self._collecting += took
        self._longest_collection = max(self._longest_collection, took)

    def numbers(self, due: float) -> dict[str, float]:
        """In milliseconds; of the starts, after the instant."""
        late = sorted((start - due) * 1000 for start in self._starts)
        return {
            "first start, ms": late[0],
            "median start, ms": late[len(late) // 2],
            "99th start, ms": late[(len(late) - 1) * 99 // 100],
            "last start, ms": late[-1],
            "CPU until the last start, ms": self._cpu * 1000,
            "longest hold of the loop, ms of CPU": self._held * 1000,
            "longest wait of another task, ms": self._waited * 1000,
            "longest pause of the collector, ms of CPU": self._longest_collection * 1000,
        }


def a_whole_second(pace: float, size: int) -> float:
    """One that leaves time to add so many jobs, each of which takes about that."""
    return float(int(time.time() + 2.5 + 2 * pace * size))
