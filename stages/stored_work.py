"""What the execution broadcaster knows of work that is in the store already: enqueued calls, retries, recovered
attempts.

No stored work is held here, only when each queue has some: `hot` queues have ready work as far as is known, others at
an instant, or nobody knows of any. The executor finds out by asking the store to start some; a queue that gave less
than was asked for is dry until a hint, a look into the store, or its next instant says otherwise. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..model.instants import Instant
from .demand import Demand


class StoredWork:
    """When the store has ready work, per queue."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._next: dict[str, Instant] = {}
        self._hot: set[str] = set()
        self._dry: set[str] = set()

    def advance(self, now: Instant) -> None:
        """Take in hints, dry queues, and the time."""
        for queue in self._demand.dry:
            if queue in self._hot:
                self._hot.discard(queue)
                self._dry.add(queue)
        self._demand.dry.clear()
        for queue, at in self._demand.wanted.items():
            self._learn(queue, at)
        self._demand.wanted.clear()
        for queue in [queue for queue, at in self._next.items() if at <= now]:
            del self._next[queue]
            self._hot.add(queue)
        self._demand.hot = bool(self._hot)

    def learn(self, waiting: Mapping[str, Instant]) -> None:
        """The store says when queues have work."""
        for queue, at in waiting.items():
            self._learn(queue, at)

    def hot(self) -> list[str]:
        """Queues with ready work, in a stable order."""
        return sorted(self._hot)

    def is_hot(self, queue: str) -> bool:
        """Whether a queue has ready work."""
        return queue in self._hot

    def take_dry(self) -> list[str]:
        """Queues that have run dry: ask the store when they will have work again."""
        taken, self._dry = self._dry, set()
        return sorted(taken)

    def next_instant(self, now: Instant) -> Instant | None:
        """When the next queue has work; those that are hinted at or dry count as now."""
        if self._demand.wanted or self._demand.dry or self._dry:
            return now
        return min(self._next.values(), default=None)

    def _learn(self, queue: str, at: Instant) -> None:
        known = self._next.get(queue)
        self._next[queue] = at if known is None else min(at, known)
