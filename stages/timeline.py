"""The timeline: when each active job is due next. A pure core; the execution broadcaster asks it and sends.

Due instants are few, jobs are many: cron falls on a coarse grid. So there is one heap of distinct instants, each with
its groups of jobs by queue and priority, and when an instant has come its groups move to the queue's overdue heap as
they are, without a look at the jobs in them. There they wait for credit, in the ready order: priority, due time, job
id. Jobs with the same bound schedule share one computation of what comes next. A job that is alone at its instant
stands there without a group, so that a million jobs at a million instants cost little more than themselves.

It is told what time it is; it knows nothing of nodes, slots or stores.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

from ..model.errors import ScheduleError
from ..model.instants import Instant
from ..model.job import JobRecord
from ..model.schedule import BoundSchedule
from .misfire import Entry, due_of

_SHARED = 4096
"""Of how many schedules the last answer is remembered at most."""


class _Group:
    """Jobs of one queue and priority that are due at one instant. Those that have left are passed over when their turn
    comes.
    """

    __slots__ = ("due", "entries", "in_order", "priority", "queue")

    def __init__(self, queue: str, priority: int, due: Instant) -> None:
        self.queue, self.priority, self.due = queue, priority, due
        self.entries: list[Entry] = []
        """By job id as a rule; once overdue backwards, so that the first can be taken from the end."""
        self.in_order = True

    def add(self, entry: Entry) -> None:
        if self.entries and self.entries[-1].record.id > entry.record.id:
            self.in_order = False
        self.entries.append(entry)
        entry.group = self

    def head(self) -> Entry | None:
        entries = self.entries
        while entries and entries[-1].group is not self:
            entries.pop()
        return entries[-1] if entries else None

    def turn_overdue(self) -> None:
        if not self.in_order:
            self.entries.sort(key=lambda entry: entry.record.id)
        self.entries.reverse()


_Bucket: TypeAlias = Entry | _Group | dict[tuple[str, int], _Group]
"""What is due at one instant: mostly a single job or a single group."""

_ALONE = object()
"""In the place of a group: the job stands in its bucket by itself."""


class Timeline:
    """Active jobs by the time at which they are due."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._instants: list[Instant] = []
        self._buckets: dict[Instant, _Bucket] = {}
        self._overdue: dict[str, list[tuple[int, Instant, int, _Group]]] = {}
        self._now: Instant = 0
        self._pushed = 0
        self._left_behind = 0
        self._steps: dict[int, tuple[BoundSchedule, Instant, Instant | None]] = {}
        """The last answer of each bound schedule, found by its identity: to compare two costs more than most steps."""
        self._last_bound: BoundSchedule | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    def get(self, job_id: str) -> Entry | None:
        """The entry of a job."""
        return self._entries.get(job_id)

    # ---- which jobs

    def put(self, record: JobRecord) -> Entry | None:
        """Take a job in, or take its new definition. None: it has no schedule, and is left out."""
        self.remove(record.id)
        bound = record.bind()
        if bound is None:
            return None
        entry = Entry(record, self._one_for_equals(bound), record.cursor)
        self._entries[record.id] = entry
        if bound.driven_by == "time":
            self.arm(entry, record.cursor)
        return entry

    def remove(self, job_id: str) -> None:
        """Forget a job; one that is not known is no error."""
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self._take_out(entry)
            self._compact()

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    # ---- when

    def arm(self, entry: Entry, cursor: Instant) -> None:
        """Everything up to `cursor` is accounted for: wait for the next time, if there is one."""
        known = entry.following if cursor == entry.nominal else None
        entry.cursor, entry.following = cursor, None
        nominal = self.next_after(entry.bound, cursor) if known is None else known
        if nominal is None:
            self._take_out(entry)
            return
        self.arm_at(entry, nominal)

    def arm_at(self, entry: Entry, nominal: Instant) -> None:
        """Wait for this nominal time."""
        if entry.group is not None:
            self._take_out(entry)
        if nominal <= entry.cursor:
            raise ScheduleError(f"it gave {nominal} after {entry.cursor}; a next time must be later (law 9)")
        entry.nominal = nominal
        job = entry.record.job
        entry.due = due_of(job, entry.bound, nominal) if job.definition.jitter else nominal
        self._add(entry)

    def put_back(self, entry: Entry) -> None:
        """An entry that was popped and could not be fired: it keeps its time."""
        self._add(entry)

    def advance(self, now: Instant) -> None:
        """Let what is due by now become overdue; after the clock was set back, what is not due any more waits again."""
        if now < self._now:
            self._take_back(now)
        self._now = now
        while self._instants and self._instants[0] <= now:
            due = heapq.heappop(self._instants)
            for group in _groups_of(self._buckets.pop(due, {}), due):
                group.turn_overdue()
                self._push_overdue(group)

    def next_instant(self) -> Instant | None:
        """The earliest instant at which something that is not overdue yet is due."""
        while self._instants and self._instants[0] not in self._buckets:
            heapq.heappop(self._instants)
        return self._instants[0] if self._instants else None

    def soonest(self, count: int) -> list[tuple[Instant, str]]:
        """The first so many jobs by when they are due, overdue ones first: instants and names. Costs nothing more."""
        found = sorted((entry.due, entry.record.name) for entry in islice(self.overdue(), count))
        heap, reached = self._instants, [(instant, 0) for instant in self._instants[:1]]
        while reached and len(found) < count:
            due, index = heapq.heappop(reached)
            names = sorted(entry.record.name for entry in self._waiting_at(due, count))
            found += [(due, name) for name in names]
            for below in range(2 * index + 1, min(2 * index + 3, len(heap))):
                heapq.heappush(reached, (heap[below], below))
        return found[:count]

    def _waiting_at(self, due: Instant, count: int) -> Iterable[Entry]:
        bucket = self._buckets.get(due, {})
        if isinstance(bucket, Entry):
            return (bucket,) if _is_alone_at(bucket, due) else ()
        groups = (bucket,) if isinstance(bucket, _Group) else bucket.values()
        return islice((entry for group in groups for entry in group.entries if entry.group is group), count)

    # ---- what is overdue

    def overdue_queues(self) -> list[str]:
        """Queues with jobs that are due."""
        return [queue for queue in list(self._overdue) if self.head(queue) is not None]

    def head(self, queue: str) -> Entry | None:
        """The overdue job of a queue whose turn is first."""
        heap = self._overdue.get(queue)
        while heap:
            entry = heap[0][3].head()
            if entry is not None:
                return entry
            heapq.heappop(heap)
        self._overdue.pop(queue, None)
        return None

    def pop(self, queue: str, count: int) -> list[Entry]:
        """Take out the first so many; each must be armed again, put back or removed."""
        popped: list[Entry] = []
        while len(popped) < count and self.head(queue) is not None:
            group = self._overdue[queue][0][3]
            entries = group.entries
            while entries and len(popped) < count:
                entry = entries.pop()
                if entry.group is group:
                    entry.group = None
                    popped.append(entry)
        return popped

    def overdue(self) -> Iterator[Entry]:
        """All overdue jobs, in no order."""
        for heap in self._overdue.values():
            for *_, group in heap:
                yield from (entry for entry in group.entries if entry.group is group)

    def next_after(self, bound: BoundSchedule, instant: Instant) -> Instant | None:
        """The schedule's own answer, computed once for all jobs that share it."""
        known = self._steps.get(id(bound))
        if known is not None and known[0] is bound and known[1] == instant:
            return known[2]
        following = bound.next_after(instant)
        if len(self._steps) >= _SHARED:
            self._steps.clear()
        self._steps[id(bound)] = bound, instant, following
        return following

    # ---- inside

    def _one_for_equals(self, bound: BoundSchedule) -> BoundSchedule:
        """One bound schedule for jobs that share it and come in a row: to know it again costs nothing then."""
        last = self._last_bound
        if last is None or (last is not bound and last.shares_with != bound.shares_with):
            last = self._last_bound = bound
        return last

    def _add(self, entry: Entry) -> None:
        bucket = self._buckets.get(entry.due)
        if type(bucket) is _Group:  # what comes next for many: others of their queue are due then
            work = entry.record.job.definition.work
            if bucket.queue == work.queue and bucket.priority == work.priority:
                bucket.add(entry)
                return
        if bucket is None:
            heapq.heappush(self._instants, entry.due)
        elif not isinstance(bucket, Entry) or (bucket is not entry and _is_alone_at(bucket, entry.due)):
            self._group_for(entry, bucket).add(entry)
            return
        self._buckets[entry.due] = entry
        entry.group = _ALONE

    def _group_for(self, entry: Entry, bucket: _Bucket) -> _Group:
        """The group that an entry joins at an instant at which others are due."""
        queue, priority = key = _key_of(entry)
        if isinstance(bucket, Entry):
            bucket = self._buckets[entry.due] = _group_of(bucket)
        if isinstance(bucket, _Group):
            if (bucket.queue, bucket.priority) == key:
                return bucket
            bucket = self._buckets[entry.due] = {(bucket.queue, bucket.priority): bucket}
        group = bucket.get(key)
        if group is None:
            group = bucket[key] = _Group(queue, priority, entry.due)
        return group

    def _push_overdue(self, group: _Group) -> None:
        self._pushed += 1
        heapq.heappush(self._overdue.setdefault(group.queue, []), (-group.priority, group.due, self._pushed, group))

    def _take_back(self, now: Instant) -> None:
        early = [entry for entry in self.overdue() if entry.due > now]
        for entry in early:
            self._take_out(entry)
            self.put_back(entry)

    def _take_out(self, entry: Entry) -> None:
        if entry.group is not None:
            entry.group = None
            self._left_behind += 1

    def _compact(self) -> None:
        """Drop what has left its group, when that is most of what there is."""
        if self._left_behind <= 2 * len(self._entries) + 1000:
            return
        self._left_behind = 0
        waiting = [entry for entry in self._entries.values() if entry.group is not None]
        self._instants, self._buckets, self._overdue = [], {}, {}
        for entry in sorted(waiting, key=lambda entry: entry.record.id):
            self._add(entry)


def _key_of(entry: Entry) -> tuple[str, int]:
    work = entry.record.job.definition.work
    return work.queue, work.priority


def _is_alone_at(entry: Entry, due: Instant) -> bool:
    """Whether the single job of an instant still waits for it; it may have left for another."""
    return entry.group is _ALONE and entry.due == due


def _group_of(entry: Entry) -> _Group:
    group = _Group(*_key_of(entry), entry.due)
    group.add(entry)
    return group


def _groups_of(bucket: _Bucket, due: Instant) -> Iterable[_Group]:
    """The groups that have come due with an instant."""
    if isinstance(bucket, Entry):
        return (_group_of(bucket),) if _is_alone_at(bucket, due) else ()
    return (bucket,) if isinstance(bucket, _Group) else bucket.values()
