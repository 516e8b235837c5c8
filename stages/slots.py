"""Slots: how many tasks may run at once, per queue and together. Pure arithmetic over what the pool says.

A slot is taken from the claim to the end of the task. A claim also needs a place for its outcome: running and
unrecorded together are at most twice the concurrency, so that a store that is slow to take outcomes slows claiming,
not the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

_NO_LIMIT = 2**31


class PoolCounts(Protocol):
    """What slots need to know of the pool."""

    def busy(self, queue: str) -> int:
        """Slots of the queue that are taken."""
        ...

    def unrecorded(self, queue: str) -> int:
        """Ended tasks of the queue whose outcome the store has not taken yet."""
        ...

    def busy_queues(self) -> Mapping[str, int]:
        """Slots taken, of every queue that has any taken or unrecorded."""
        ...


class Slots:
    """The concurrency settings, which `tune` may change at any time."""

    def __init__(self, concurrency: int, queues: Mapping[str, int], limit: int | None) -> None:
        self.concurrency = concurrency
        """Of each queue that has no number of its own."""
        self.queues = dict(queues)
        self.limit = limit
        """Of all queues together; None: no more than the queues allow."""

    def of(self, queue: str) -> int:
        """The concurrency of a queue."""
        return self.queues.get(queue, self.concurrency)

    def free(self, queue: str, pool: PoolCounts) -> int:
        """How many more of this queue may be claimed now."""
        concurrency = self.of(queue)
        busy = pool.busy(queue)
        return max(0, min(concurrency - busy, 2 * concurrency - busy - pool.unrecorded(queue)))

    def free_in_all(self, pool: PoolCounts) -> int:
        """How many more of all queues together may be claimed now."""
        return _NO_LIMIT if self.limit is None else max(0, self.limit - sum(pool.busy_queues().values()))

    def levels(self, pool: PoolCounts) -> tuple[dict[str, int], int, int | None]:
        """Free slots of the queues in use or set, of any other queue, and of all together."""
        names = {*self.queues, *pool.busy_queues()}
        total = None if self.limit is None else self.free_in_all(pool)
        return {queue: self.free(queue, pool) for queue in names}, self.concurrency, total
