"""Deadlines of what runs, or waits for the store: one heap, one task that waits for the first, on the injected clock.

Deadlines of the event loop's own would cost each run some microseconds, and a virtual clock could not rule them. Who
has a deadline is a key; what to do when it has passed is the owner's business.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ..model.clock import Clock

_EARLY = 5e-7
"""Seconds that a deadline may be early: rounding, where the clock counts in microseconds."""

_SHORTEST_WAIT = 0.001
"""uvloop's clock counts milliseconds: shorter waits return at once and would spin."""

_TURN = 64
"""Deadlines that expire between two checkpoints."""

_STALE_KEPT = 256
"""Entries of the heap that nobody waits for any more, before it is made anew."""


Key = TypeVar("Key", str, int)


class Deadlines(Generic[Key]):
    """Calls `expired(key)` for each key whose deadline has passed and that was not disarmed before."""

    def __init__(self, clock: Clock, expired: Callable[[Key], object]) -> None:
        self._clock = clock
        self._expired: Callable[[Key], object] = expired
        self._heap: list[tuple[float, Key]] = []
        self._armed: dict[Key, float] = {}
        self._news: anyio.Event | None = None
        self._owed = 0

    def __len__(self) -> int:
        return len(self._armed)

    @property
    def kept(self) -> int:
        """How many are remembered, with those that were disarmed and not yet forgotten."""
        return len(self._heap)

    def arm(self, key: Key, at: float) -> None:
        """Expire the key at this monotonic time."""
        self._armed[key] = at
        heapq.heappush(self._heap, (at, key))
        if self._heap[0][1] == key and self._news is not None:
            # Counted until the watcher has seen it, or a virtual clock might pass the deadline meanwhile.
            self._clock.activity.began()
            self._owed += 1
            self._news.set()
            self._news = None

    def disarm(self, key: Key) -> None:
        """It has ended."""
        self._armed.pop(key, None)
        if len(self._heap) > 2 * len(self._armed) + _STALE_KEPT:
            self._heap = [entry for entry in self._heap if self._armed.get(entry[1]) == entry[0]]
            heapq.heapify(self._heap)

    async def watch(self) -> None:
        """Wait for one deadline after another, until cancelled."""
        try:
            while True:
                while self._expire():
                    await checkpoint()
                await self._wait()
        finally:
            self._news = None
            self._rest()

    def _expire(self) -> bool:
        """Expire what is due. True: there may be more of it, and the event loop shall turn first (law 6)."""
        now = self._clock.monotonic() + _EARLY
        for _ in range(_TURN):
            if not self._heap or (self._heap[0][0] > now and not self._is_stale()):
                return False
            at, key = heapq.heappop(self._heap)
            if self._armed.get(key) == at:
                del self._armed[key]
                self._expired(key)
        return True

    def _is_stale(self) -> bool:
        at, key = self._heap[0]
        return self._armed.get(key) != at

    async def _wait(self) -> None:
        self._news = news = anyio.Event()
        first = self._heap[0][0] if self._heap else None
        delay = None if first is None else max(first - self._clock.monotonic(), _SHORTEST_WAIT)
        self._rest()
        with self._clock.wake_after(delay) as waiting:
            await news.wait()
        if waiting.fired:
            self._owed += 1

    def _rest(self) -> None:
        owed, self._owed = self._owed, 0
        if owed:
            self._clock.activity.ended(owed)
