"""The waiting lines of the memory store: which executions may start, in which order, and when the next one may.

Each queue has a sorted list of what is due, best first, and buckets of what is not yet, by the instant from which it
is. Ids grow with time, so that a new entry nearly always goes to the end. What no longer waits is not looked for: its
entry stays where it is, passed over because it is not the live one of its execution, until it comes to the front or
until dead entries outnumber the live ones, when all are swept out at once. Times come in; nothing here knows what an
execution is but its place in the line.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush, merge
from typing import TypeAlias

from ..model.execution import Execution
from ..model.instants import Instant

Entry: TypeAlias = tuple[int, str, str, Instant, str]
"""Priority negated, attempt, execution, not before, queue: it sorts in the order in which executions start."""

_FEW = 1024
"""As many dead entries are always tolerated."""
_AFTER_ALL_IDS = "\U0010ffff"


class _Line:
    """One queue."""

    __slots__ = ("head", "instants", "later", "latest", "ready")

    def __init__(self) -> None:
        self.ready: list[Entry] = []
        self.head = 0
        """What is before this index in `ready` has started or gone."""
        self.latest: Instant = 0
        """The latest not-before time that ever was in `ready`."""
        self.later: dict[Instant, list[Entry]] = {}
        self.instants: list[Instant] = []
        """A heap of the keys of `later`."""

    def put_ready(self, entry: Entry) -> None:
        """Insert at its place, mostly the end."""
        ready = self.ready
        if not ready or ready[-1] < entry:
            ready.append(entry)
        else:
            insort(ready, entry, self.head)
        if entry[3] > self.latest:
            self.latest = entry[3]

    def put_later(self, entry: Entry) -> None:
        """Keep until its time."""
        bucket = self.later.get(entry[3])
        if bucket is not None:
            bucket.append(entry)
            return
        self.later[entry[3]] = [entry]
        heappush(self.instants, entry[3])

    def take_due(self, now: Instant) -> list[Entry]:
        """What has come due, in no order, taken out of the buckets."""
        due: list[Entry] = []
        while self.instants and self.instants[0] <= now:
            due += self.later.pop(heappop(self.instants))
        return due

    def put_many_ready(self, entries: list[Entry]) -> None:
        """Insert one by one where they are few, and in one go where that is cheaper."""
        if len(entries) * 32 < len(self.ready):
            for entry in entries:
                self.put_ready(entry)
            return
        if entries:
            self.ready = self.ready[self.head :] + entries
            self.ready.sort()  # runs that are sorted already: a merge
            self.head = 0
            self.latest = max(self.latest, *(entry[3] for entry in entries))

    def drop_head(self) -> None:
        """Let go of the entries that have been passed, when they are half of all."""
        if self.head > _FEW and self.head * 2 > len(self.ready):
            del self.ready[: self.head]
            self.head = 0

    def sweep(self, live: Mapping[str, Entry]) -> int:
        """Only what still waits remains; how much that is."""
        self.ready = [entry for entry in self.ready[self.head :] if live.get(entry[2]) is entry]
        self.head = 0
        for instant, bucket in list(self.later.items()):
            self.later[instant] = bucket = [entry for entry in bucket if live.get(entry[2]) is entry]
            if not bucket:
                del self.later[instant]
        self.instants = list(self.later)
        heapify(self.instants)
        return len(self.ready) + sum(map(len, self.later.values()))


class WaitingQueues:
    """All queues. `live` holds the one valid entry of each execution that waits."""

    def __init__(self) -> None:
        self.live: dict[str, Entry] = {}
        self.new: dict[str, Execution] = {}
        """New executions that wait, not lined up yet: most are started by name at once, so nothing is lined up before
        somebody looks at lines.
        """
        self._lines: dict[str, _Line] = {}
        self._stored = 0
        """Entries in all lines, live and dead."""
        self._now: Instant = 0
        """An instant that has come: what is due by it need not wait in a bucket."""

    def drop(self, execution_id: str) -> None:
        """An execution does not wait any more."""
        if self.new.pop(execution_id, None) is None:
            self.live.pop(execution_id, None)

    def drop_all(self, rows: Iterable[Execution]) -> None:
        """None of these waits any more."""
        new, live = self.new, self.live
        for row in rows:
            if new.pop(row.id, None) is None:
                live.pop(row.id, None)

    def _line_up(self) -> None:
        if self.new:
            new, self.new = self.new, {}
            for row in new.values():
                self.put(row)

    def put(self, row: Execution) -> None:
        """An execution waits, or waits otherwise than before."""
        work, row_id, not_before = row.work, row.id, row.not_before
        self.new.pop(row_id, None)
        entry = (-work.priority, row.attempt_id, row_id, not_before, work.queue)
        if self.live.get(row_id) == entry:
            return
        self.live[row_id] = entry
        if row.created_at > self._now:
            self._now = row.created_at
        line = self._lines.get(work.queue)
        if line is None:
            line = self._lines[work.queue] = _Line()
        self._stored += 1
        if not_before > self._now:
            line.put_later(entry)
        elif line.latest >= not_before and line.ready and line.ready[-1] < entry:
            line.ready.append(entry)  # a short way for nearly all
        else:
            line.put_ready(entry)
        if self._stored > 2 * len(self.live) + _FEW:
            self._sweep()

    @property
    def size(self) -> int:
        """Entries in all lines, live and dead, and those that are not lined up yet."""
        return self._stored + len(self.new)

    def best(self, queue: str, now: Instant, after: tuple[int, str] | None) -> Iterable[str]:
        """The executions of one queue that may start, best first, those after (priority, attempt)."""
        self._line_up()
        if self._stored > 2 * len(self.live) + _FEW:
            self._sweep()
        line = self._lines.get(queue)
        if line is None:
            return ()
        self._advance(line, now)
        return self._ids(self._due(line, now, after))

    def best_of_all(self, now: Instant, after: tuple[int, str] | None) -> Iterable[str]:
        """The same of all queues together."""
        self._line_up()
        if self._stored > 2 * len(self.live) + _FEW:
            self._sweep()
        for line in self._lines.values():
            self._advance(line, now)
        return self._ids(merge(*(self._due(line, now, after) for line in self._lines.values())))

    def next_due(self, after: Instant, queues: Collection[str] | None, ignore: Collection[str]) -> dict[str, Instant]:
        """Per queue the earliest not-before time later than `after`, where there is one."""
        self._line_up()
        found: dict[str, Instant] = {}
        for queue in list(self._lines) if queues is None else queues:
            line = self._lines.get(queue)
            if line is None:
                continue
            self._advance(line, after)
            instant = self._next_in(line, after, frozenset(ignore))
            if instant is not None:
                found[queue] = instant
        return found

    @staticmethod
    def _ids(entries: Iterable[Entry]) -> Iterator[str]:
        return (entry[2] for entry in entries)

    def _advance(self, line: _Line, now: Instant) -> None:
        """Let what has come due by now into the line."""
        if now > self._now:
            self._now = now
        if not line.instants or line.instants[0] > now:
            return
        due = line.take_due(now)
        waiting = [entry for entry in due if self.live.get(entry[2]) is entry]
        self._stored -= len(due) - len(waiting)
        line.put_many_ready(waiting)

    def _due(self, line: _Line, now: Instant, after: tuple[int, str] | None) -> Iterator[Entry]:
        line.drop_head()
        live, ready, index = self.live, line.ready, line.head
        if after is not None:
            index = bisect_right(ready, (-after[0], after[1], _AFTER_ALL_IDS, 0, ""), index)
        for place in range(index, len(ready)):
            entry = ready[place]
            if live.get(entry[2]) is not entry:
                if place == line.head:
                    line.head += 1
                    self._stored -= 1
            elif entry[3] <= now:  # the clock may have been set back since it came due
                yield entry

    def _next_in(self, line: _Line, after: Instant, ignore: frozenset[str]) -> Instant | None:
        if line.latest > after:  # the clock was set back
            due_again = [
                entry[3] for entry in line.ready[line.head :] if entry[3] > after and self._counts(entry, ignore)
            ]
            if due_again:
                return min(due_again)
        while line.instants:
            bucket = line.later[line.instants[0]]
            if any(self._counts(entry, ignore) for entry in bucket):
                return line.instants[0]
            if any(self._counts(entry, ()) for entry in bucket):
                break  # only what is to be ignored: look behind it
            self._stored -= len(line.later.pop(heappop(line.instants)))
        counting = (
            instant for instant, bucket in line.later.items() if any(self._counts(entry, ignore) for entry in bucket)
        )
        return min(counting, default=None)

    def _counts(self, entry: Entry, ignore: Collection[str]) -> bool:
        return self.live.get(entry[2]) is entry and entry[2] not in ignore

    def _sweep(self) -> None:
        self._stored = 0
        for queue, line in list(self._lines.items()):
            left = line.sweep(self.live)
            self._stored += left
            if not left:
                del self._lines[queue]
