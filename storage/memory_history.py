"""What the memory store remembers of the past beside its executions: epochs, ranges, and jobs that were removed.

It is bounded: what is dropped moves the horizon of its job, and no horizon moves past an execution that is unfinished.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import count, islice
from operator import attrgetter

from attrs import define, evolve

from ..model.execution import Range
from ..model.instants import Instant
from ..model.job import JobRecord, ScheduleEpoch, first_epoch

_AT_ONCE = 256
"""About so much is dropped in one go."""


@define
class RemovedJob:
    """What is left of a removed job."""

    id: str
    name: str
    revision: int
    at: Instant
    cursor: Instant
    horizon: Instant


class Bound:
    """How many of something are kept. Some more are tolerated, so that dropping pays, but soon ends."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._most = self._usual = keep + min(keep // 10, _AT_ONCE)

    def surplus(self, count: int) -> int:
        """How many are to be dropped now."""
        return count - self._keep if count > self._most else 0

    def settle(self, count: int) -> None:
        """So many are left. Where some could not be dropped, do not look at them again too soon."""
        self._most = self._usual if count <= self._keep else count + count // 10


class Walk:
    """Keys in order, a few at a time, while their owner changes: sorted once, when a walk begins."""

    def __init__(self, keys: Callable[[], Iterable[str]], is_there: Callable[[str], bool]) -> None:
        self._keys, self._is_there = keys, is_there
        self._left: list[str] = []

    def after(self, key: str, limit: int) -> list[str]:
        """The next so many after this one that are still there; those that came since the walk began are left out."""
        if not key or not self._left:
            self._left = sorted(self._keys())
        found: list[str] = []
        for index in range(bisect_right(self._left, key), len(self._left)):
            if self._is_there(self._left[index]):
                found.append(self._left[index])
                if len(found) == limit:
                    return found
        self._left = []
        return found


class EpochsByJob:
    """The epochs of each job, in the order in which they began, and which jobs bear or bore a name.

    Nearly all jobs have one epoch, which began with them and lasts: it is what their record tells, and is not kept
    here. A list is made of it when it ends, when a second one comes, or when somebody asks for the list.
    """

    def __init__(self, job: Callable[[str], JobRecord | None], named: Callable[[str], JobRecord | None]) -> None:
        self._job, self._named = job, named
        self._lists: dict[str, list[ScheduleEpoch]] = {}
        """A job that is not here has what its record tells; an empty list is that of a job whose epochs are dropped."""
        self._bearers: dict[str, set[str]] = {}
        """Of those that have lists."""

    def __getitem__(self, job_id: str) -> list[ScheduleEpoch]:
        if job_id not in self._lists:
            self._list(job_id, *self._told(job_id))
        return self._lists[job_id]

    def __iter__(self) -> Iterator[ScheduleEpoch]:
        """All that have ended, and some that last."""
        for epochs in self._lists.values():
            yield from epochs

    def _told(self, job_id: str) -> Sequence[ScheduleEpoch]:
        record = self._job(job_id)
        return () if record is None or record.schedule is None else (first_epoch(record, record.schedule),)

    def _list(self, job_id: str, *epochs: ScheduleEpoch) -> None:
        self._lists[job_id] = list(epochs)
        for epoch in epochs:
            self._bearers.setdefault(epoch.name, set()).add(job_id)

    def add(self, epoch: ScheduleEpoch) -> None:
        """One that begins."""
        if epoch.job_id in self._lists:
            self._list(epoch.job_id, *self._lists[epoch.job_id], epoch)
        elif (told := self._told(epoch.job_id)) != (epoch,):
            self._list(epoch.job_id, *told, epoch)

    def end(self, job_id: str, until: Instant) -> int:
        """End what lasts of a job's epochs; how many that are."""
        if not self.of_job(job_id):
            return 0
        ended, epochs = 0, self[job_id]
        for index, epoch in enumerate(epochs):
            if epoch.until is None:
                epochs[index] = evolve(epoch, until=until)
                ended += 1
        return ended

    def of_job(self, job_id: str) -> Sequence[ScheduleEpoch]:
        """Of one job."""
        epochs = self._lists.get(job_id)
        return self._told(job_id) if epochs is None else epochs

    def bearers(self, name: str) -> list[str]:
        """The jobs that bear or bore a name, as far as they may have epochs."""
        record = self._named(name)
        living = () if record is None else (record.id,)
        return sorted(self._bearers.get(name, set()).union(living))

    def keep(self, job_id: str) -> None:
        """The job is going to be removed: what its record tells will be asked for nevertheless."""
        if self.of_job(job_id):
            self[job_id]

    def forget(self, name: str, job_id: str) -> None:
        """All of one job."""
        self._lists.pop(job_id, None)
        if self._told(job_id):
            self._lists[job_id] = []
        bearers = self._bearers.get(name, set())
        bearers.discard(job_id)
        if not bearers:
            self._bearers.pop(name, None)

    def clear(self) -> None:
        """Forget all."""
        self._lists.clear()
        self._bearers.clear()


class History:
    """Epochs, ranges and removed jobs, by job id.

    `may_reach(job_id, horizon)` says whether a job's horizon may come to stand there, `reach` moves it there.
    """

    def __init__(
        self,
        keep: int,
        may_reach: Callable[[str, Instant], bool],
        reach: Callable[[Mapping[str, Instant]], None],
        epochs: EpochsByJob,
    ) -> None:
        self._may_reach, self._reach = may_reach, reach
        self._of_ranges, self._of_epochs, self._of_removed = Bound(keep), Bound(keep), Bound(keep)
        self.removed: dict[str, RemovedJob] = {}
        """In the order of their removal."""
        self._remembers_from = 0
        """The revision since which no removed job has been forgotten."""
        self._epochs = epochs
        self._ended_count = 0
        self._ranges: dict[int, Range] = {}
        """By number, in the order of their insertion."""
        self._ranges_of: dict[str, dict[int, Range]] = {}
        """The same by job."""
        self._numbers = count()

    # ---- epochs

    def insert_epochs(self, epochs: Iterable[ScheduleEpoch]) -> None:
        """Spans that begin."""
        for epoch in epochs:
            self._epochs.add(epoch)
            self._ended_count += epoch.until is not None

    def end_epochs(self, ends: Iterable[tuple[str, Instant]]) -> None:
        """Spans that end."""
        for job_id, until in ends:
            self._ended_count += self._epochs.end(job_id, until)

    def epochs_of(self, name: str) -> list[ScheduleEpoch]:
        """Of all jobs that bore the name, by job id and `since`."""
        return [epoch for job_id in self._epochs.bearers(name) for epoch in self.epochs_of_job(job_id)]

    def epochs_of_job(self, job_id: str) -> list[ScheduleEpoch]:
        """Of one job, by `since`."""
        return sorted(self._epochs.of_job(job_id), key=attrgetter("since"))

    def _drop_epochs(self, dropped: Sequence[ScheduleEpoch]) -> None:
        for epoch in dropped:
            left = self._epochs[epoch.job_id]
            left.remove(epoch)
            self._ended_count -= epoch.until is not None
            if not left:
                self._forget_bearer(epoch.name, epoch.job_id)

    def _forget_bearer(self, name: str, job_id: str) -> None:
        self._epochs.forget(name, job_id)

    # ---- ranges

    def insert_ranges(self, ranges: Iterable[Range]) -> None:
        """Settled nominal times."""
        for span in ranges:
            number = next(self._numbers)
            self._ranges[number] = span
            self._ranges_of.setdefault(span.job_id, {})[number] = span

    def ranges_of(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Range]:
        """Those that touch `[start, end)`, by job and start."""
        found = [
            span
            for job_id in set(job_ids)
            for span in self._ranges_of.get(job_id, {}).values()
            if span.start < end and span.end > start
        ]
        return sorted(found, key=attrgetter("job_id", "start"))

    def starts_of(self, job_id: str, start: Instant) -> list[Instant]:
        """Where a job's ranges begin, from `start` on, in order."""
        return sorted(span.start for span in self._ranges_of.get(job_id, {}).values() if span.start >= start)

    def drop_ranges(self, limit: int, before: Instant | None = None) -> int:
        """The oldest go, at most so many, of those that end at or before."""
        old = (
            (number, span)
            for number, span in self._ranges.items()
            if (before is None or span.end <= before) and self._may_reach(span.job_id, span.end)
        )
        dropped = list(islice(old, limit))
        horizons: dict[str, Instant] = {}
        for number, span in dropped:
            horizons[span.job_id] = max(horizons.get(span.job_id, 0), span.end)
            self._drop_range(number, span)
        self._reach(horizons)
        return len(dropped)

    def _drop_range(self, number: int, span: Range) -> None:
        del self._ranges[number]
        of_job = self._ranges_of[span.job_id]
        del of_job[number]
        if not of_job:
            del self._ranges_of[span.job_id]

    def _drop_ranges_before(self, job_id: str, horizon: Instant | None = None) -> None:
        """Those of a job that end at or before, or all of them."""
        for number, span in list(self._ranges_of.get(job_id, {}).items()):
            if horizon is None or span.end <= horizon:
                self._drop_range(number, span)

    # ---- removed jobs

    def remember_removed(self, records: Iterable[JobRecord], revision: int, now: Instant) -> None:
        """Jobs that are removed."""
        for record in records:
            self._epochs.keep(record.id)
            self.removed[record.id] = RemovedJob(record.id, record.name, revision, now, record.cursor, record.horizon)

    def removed_since(self, revision: int) -> tuple[list[tuple[str, str]], bool]:
        """Ids and names of those removed after a revision, and whether all of them are remembered."""
        after = [(job.id, job.name) for job in self.removed.values() if job.revision > revision]
        return after, revision >= self._remembers_from

    def _forget(self, job: RemovedJob) -> None:
        """Forget a removed job with all that is left to be read of it."""
        del self.removed[job.id]
        self._remembers_from = max(self._remembers_from, job.revision)
        self._drop_ranges_before(job.id)
        for epoch in self._epochs.of_job(job.id):
            self._ended_count -= epoch.until is not None
        self._forget_bearer(job.name, job.id)

    def forget_all(self, revision: int) -> None:
        """Jobs are purged: nothing is known of what was removed up to this revision."""
        self.removed.clear()
        self._epochs.clear()
        self._ended_count = 0
        self._ranges.clear()
        self._ranges_of.clear()
        self._remembers_from = revision

    # ---- bounds

    def forget_removed(
        self, before: Instant, limit: int, has_executions: Callable[[str, Instant | None, Instant | None], bool]
    ) -> int:
        """Removed jobs and ended epochs of which nothing is left to read go; how many.

        `has_executions(job_id, since, until)`: whether it has any, or any with a nominal time in `(since, until]`.
        """
        jobs = [
            job
            for job in self.removed.values()
            if job.at < before and job.id not in self._ranges_of and not has_executions(job.id, None, None)
        ][:limit]
        for job in jobs:
            self._forget(job)
        epochs = [
            epoch
            for epoch in self._epochs
            if epoch.until is not None
            and epoch.until < before
            and not any(span.generation == epoch.generation for span in self._ranges_of.get(epoch.job_id, {}).values())
            and not has_executions(epoch.job_id, epoch.since, epoch.until)
        ][: limit - len(jobs)]
        self._drop_epochs(epochs)
        return len(jobs) + len(epochs)

    def keep_bounds(self) -> None:
        """Drop the oldest of what is too much."""
        if surplus := self._of_ranges.surplus(len(self._ranges)):
            self.drop_ranges(surplus)
            self._of_ranges.settle(len(self._ranges))
        if surplus := self._of_epochs.surplus(self._ended_count):
            self._drop_oldest_epochs(surplus)
            self._of_epochs.settle(self._ended_count)
        if surplus := self._of_removed.surplus(len(self.removed)):
            for job in list(self.removed.values())[:surplus]:
                self._forget(job)
            self._of_removed.settle(len(self.removed))

    def _drop_oldest_epochs(self, count: int) -> None:
        ended = [
            (epoch.until, epoch)
            for epoch in self._epochs
            if epoch.until is not None and self._may_reach(epoch.job_id, epoch.until + 1)
        ]
        dropped = nsmallest(count, ended, key=lambda pair: pair[0])
        # Oldest first: of several epochs of a job the last one counts.
        horizons = {epoch.job_id: until + 1 for until, epoch in dropped}
        self._reach(horizons)
        self._drop_epochs([epoch for _, epoch in dropped])
        for job_id, horizon in horizons.items():
            self._drop_ranges_before(job_id, horizon)
