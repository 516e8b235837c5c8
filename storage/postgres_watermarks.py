"""Low-watermarks: where in a queue's order the waiting work begins, so that nobody reads what has left before it.

PostgreSQL removes the traces of rows that have changed later, and while some transaction stays open it removes none:
who began at the head of an index each time would pass over all that was ever started. So for each priority of a queue
the lowest attempt id that waits is remembered, and the earliest time of what has come due; both are looked for again
every second. Ids grow with time, so hardly ever is one added below; when another process does, its work is seen a
second later. Priorities that are not known yet are read in full, so a more urgent one is seen at once. Knows no
connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from attrs import Factory, define

from ..model.execution import Execution, State
from ..model.instants import SECOND, Instant

LEVELS = 8
"""Priorities of a queue that are remembered; those beyond are read in full."""
_END = 2**62
"""Beyond every priority."""


@define
class Watermark:
    """Of one queue."""

    at: Instant | None = None
    """When it was last looked for."""
    levels: dict[int, str] = Factory(dict[int, str])
    """By priority an attempt id below which nothing waits."""
    due: Instant = -_END
    """A not-before time before which nothing waits, of what was not due when it was made."""

    def is_old(self, now: Instant) -> bool:
        """Whether it has to be looked for again."""
        return self.at is None or not self.at <= now < self.at + SECOND

    def learn(self, now: Instant, levels: Mapping[int, str], due: Instant | None) -> None:
        """What waits is at these places now. Of a priority at which nothing waits, the last place stays known."""
        self.at = now
        latest = [*levels, *(priority for priority in self.levels if priority not in levels)][:LEVELS]
        known = {**self.levels, **levels}
        self.levels = {priority: known[priority] for priority in latest}
        self.due = now - SECOND if due is None else due

    def lower(self, row: Execution) -> None:
        """Something that was written here may wait."""
        if row.state is not State.PENDING:
            return
        if row.attempt_id < self.levels.get(row.work.priority, ""):
            self.levels[row.work.priority] = row.attempt_id
        self.due = min(self.due, row.not_before)


_UNKNOWN = Watermark()


@define
class Spans:
    """What is read of some queues: known priorities from their marks on, all between, and what has come due."""

    levels: list[tuple[str, int, int, str]] = Factory(list[tuple[str, int, int, str]])
    """Queue, how many, priority, first attempt id."""
    gaps: list[tuple[str, int, int, int]] = Factory(list[tuple[str, int, int, int]])
    """Queue, how many, and the priorities between which."""
    late: list[tuple[str, int, Instant]] = Factory(list[tuple[str, int, Instant]])
    """Queue, how many, and since when due."""


def spans(wanted: Iterable[tuple[str, int]], marks: Mapping[str, Watermark]) -> Spans:
    """For each queue as many rows as wanted."""
    found = Spans()
    for queue, most in wanted:
        mark = marks.get(queue, _UNKNOWN)
        levels = sorted(mark.levels.items(), reverse=True)
        found.levels += [(queue, most, priority, least) for priority, least in levels]
        ends = [_END, *(priority for priority, _ in levels), -_END]
        found.gaps += [(queue, most, low, high) for high, low in pairwise(ends) if high - low > 1]
        found.late.append((queue, most, mark.due))
    return found
