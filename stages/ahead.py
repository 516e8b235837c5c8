"""How far beyond its slots a queue's work is claimed. Pure arithmetic; the pool says what has happened.

A commit costs as much as many short runs do. Where runs are short and the store has more of them than there are slots,
the executor claims some beyond the slots: they wait in the pool, in order, and run while the store takes the outcomes
of those before them. How many is found out as a sender finds out what a network takes: twice as many each time that all
were gone before the store had answered, fewer when they had to wait, none when they waited for too long or the store
has no more. At rest it is none.
"""

from __future__ import annotations

from collections.abc import Container

LONGEST_WAIT = 0.05
"""Seconds for which a claim may wait for a slot; then it is given back, to whoever has room."""
QUIET = 1.0
"""Seconds in which a queue whose claims had to be given back is not claimed ahead for."""
_SHORT = LONGEST_WAIT / 4
"""A wait, or a run, of which there may be more."""
_FIRST = 8
"""This part of its slots a queue is claimed ahead for at first."""


class Ahead:
    """Claims beyond the slots, per queue; all together at most `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, int] = {}
        self._quiet: dict[str, float] = {}

    def of(self, queue: str) -> int:
        """How many more than its slots may be claimed of a queue."""
        return self._of.get(queue, 0)

    def learn(self, queue: str, slots: int, now: float, *, waiting: int, waited: float, took: float | None) -> None:
        """The store has answered, and has more of this queue.

        `waiting`: so many still wait for a slot. `waited`: for so long the last one did. `took`: the mean of its runs
        that have ended since the last time, in seconds; None: none has.
        """
        known = self.of(queue)
        if known and waited > LONGEST_WAIT / 2:
            self._set(queue, known // 2)
        elif not waiting and waited <= _SHORT and (known or self._may_begin(queue, now, took)):
            self._set(queue, 2 * known or max(1, slots // _FIRST))

    def rest(self, queue: str) -> None:
        """The store has no more of this queue."""
        self._of.pop(queue, None)

    def rest_all_but(self, queues: Container[str]) -> None:
        """Only these are asked for more."""
        for queue in [queue for queue in self._of if queue not in queues]:
            del self._of[queue]

    def gave_back(self, queue: str, now: float) -> None:
        """What was claimed has waited for too long."""
        self.rest(queue)
        self._quiet = {other: until for other, until in self._quiet.items() if until > now}
        self._quiet[queue] = now + QUIET

    def _may_begin(self, queue: str, now: float, took: float | None) -> bool:
        return took is not None and took <= _SHORT and self._quiet.get(queue, now) <= now

    def _set(self, queue: str, number: int) -> None:
        others = sum(self._of.values()) - self.of(queue)
        if number := min(number, self._most - others):
            self._of[queue] = number
        else:
            self.rest(queue)
