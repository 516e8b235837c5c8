"""Slots: how many tasks may run at once, per queue, per task and together. Pure arithmetic over what the pool says.

A slot is taken from the claim to the end of the task, or, by what was claimed ahead (`ahead.py`), from the end of an
earlier one. A claim also needs a place for its outcome: claimed and unrecorded together are at most twice what may be
claimed, so that a store that is slow to take outcomes slows claiming, not the tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from ..model.task import Task
from ..storage.protocol import TaskRoom

_NO_LIMIT = 2**31


class PoolCounts(Protocol):
    """What slots need to know of the pool."""

    def busy(self, queue: str) -> int:
        """Slots of the queue that are taken."""
        ...

    def ahead(self, queue: str) -> int:
        """Claims of the queue that wait for one of its slots."""
        ...

    def unrecorded(self, queue: str) -> int:
        """Ended tasks of the queue whose outcome the store has not taken yet."""
        ...

    def busy_queues(self) -> Mapping[str, int]:
        """Slots taken, of every queue that has any taken or unrecorded."""
        ...


@frozen
class QueueLevel:
    """A queue at one moment, for health pages."""

    name: str
    busy: int
    """Slots taken: running, or about to."""
    slots: int
    unrecorded: int
    """Ended, and the store does not know it yet."""
    credit: int
    """How many more the stages above may send."""
    ahead: int = 0
    """Claimed beyond the slots: they wait for the end of those in them, for some tens of milliseconds at most."""


class Slots:
    """The concurrency settings, which `tune` may change at any time."""

    def __init__(self, concurrency: int, queues: Mapping[str, int], limit: int | None) -> None:
        self.concurrency = concurrency
        """Of each queue that has no number of its own."""
        self.queues = dict(queues)
        self.limit = limit
        """Of all queues together; None: no more than the queues allow."""

    def take_over(self, concurrency: int, queues: Mapping[str, int], limit: int | None) -> None:
        """Other settings in the place of all these."""
        self.concurrency, self.queues, self.limit = concurrency, dict(queues), limit

    def of(self, queue: str) -> int:
        """The concurrency of a queue."""
        return self.queues.get(queue, self.concurrency)

    def free(self, queue: str, pool: PoolCounts, ahead: int = 0) -> int:
        """How many more of this queue may be claimed now, so many ahead of its slots included."""
        may_be_claimed = self.of(queue) + ahead
        claimed = pool.busy(queue) + pool.ahead(queue)
        return max(0, min(may_be_claimed - claimed, 2 * may_be_claimed - claimed - pool.unrecorded(queue)))

    def free_in_all(self, pool: PoolCounts) -> int:
        """How many more of all queues together may be claimed now."""
        return _NO_LIMIT if self.limit is None else max(0, self.limit - sum(pool.busy_queues().values()))

    def levels(self, pool: PoolCounts) -> tuple[dict[str, int], int, int | None]:
        """Free slots of the queues in use or set, of any other queue, and of all together."""
        names = {*self.queues, *pool.busy_queues()}
        total = None if self.limit is None else self.free_in_all(pool)
        return {queue: self.free(queue, pool) for queue in names}, self.concurrency, total


class TaskSlots:
    """The concurrency of single tasks in this process, which `tune` may change at any time.

    What a full task keeps waiting lies in the store, and no hint will tell of it: the queues that were asked while the
    task was full are remembered until it has room.
    """

    def __init__(self, declared: Mapping[str, Task[..., Any]]) -> None:
        self._declared = declared
        self._tuned: dict[str, tuple[Task[..., Any], int | None]] = {}
        self._asked: dict[str, set[str]] = {}

    @property
    def are_used(self) -> bool:
        """Whether any task has a concurrency of its own."""
        return bool(self._declared or self._tuned)

    def tune(self, task: Task[..., Any], concurrency: int | None) -> None:
        """From now on so many; None: as many as its queue allows."""
        self._tuned[task.name] = task, concurrency

    def rooms(self, running: Iterable[str]) -> Sequence[TaskRoom]:
        """How many more of each limited task may start, given the task of everything that runs."""
        limits = {name: (task, task.concurrency) for name, task in self._declared.items()} | self._tuned
        busy = Counter(running)
        return [
            TaskRoom((task.name, *task.aliases), max(0, limit - sum(busy[name] for name in (task.name, *task.aliases))))
            for task, limit in limits.values()
            if limit is not None
        ]

    def asked(self, queues: Iterable[str], rooms: Sequence[TaskRoom]) -> None:
        """These queues were asked for work, and this room is left."""
        queues = set(queues)
        for one in rooms:
            if not one.room:
                self._asked.setdefault(one.names[0], set()).update(queues)

    def take_freed(self, running: Iterable[str]) -> dict[str, int]:
        """The queues in which something may wait for tasks that have room by now, and how much room that is."""
        freed: dict[str, int] = {}
        if self._asked:
            rooms = {one.names[0]: one.room for one in self.rooms(running)}
            for name in [name for name in self._asked if rooms.get(name, _NO_LIMIT)]:
                for queue in self._asked.pop(name):
                    freed[queue] = freed.get(queue, 0) + rooms.get(name, _NO_LIMIT)
        return freed

    def remembers(self, queue: str) -> bool:
        """Whether something in this queue may wait for a task that is full."""
        return any(queue in queues for queues in self._asked.values())

    def keep_waiting(self, tasks: Collection[str], queue: str, running: Callable[[], Iterable[str]]) -> bool:
        """Work for these tasks was put into a queue. True: all of them are full, and it waits until they are not."""
        if not self.are_used:
            return False
        full = [one for one in self.rooms(running()) if not one.room]
        if not all(any(task in one.names for one in full) for task in tasks):
            return False
        self.asked([queue], full)
        return True
