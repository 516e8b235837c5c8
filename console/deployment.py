"""What a deployment changes: the jobs of before beside those of after, and the times at which they run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal

from attrs import frozen

from .. import Instant, Job, JobRecord, JobState, ScheduleError, job_to_data, to_instant

_SHOWN: Final = 3
_LOOKED_AT: Final = 10_000
"""Times of a job that are compared one by one."""


@frozen
class Change:
    """What becomes of a job."""

    name: str
    kind: Literal["added", "removed", "changed", "same"]
    fields: Mapping[str, tuple[Any, Any]]
    """What of its definition differs, before and after."""
    runs: tuple[int | None, int | None]
    """How many times it has in the span; None: time does not drive it."""
    no_longer: tuple[Instant, ...] = ()
    """The first times that only the old definition has."""
    newly: tuple[Instant, ...] = ()
    """The first times that only the new one has."""
    effect: str = ""
    """What the redeploy rules make of it."""


@frozen
class Side:
    """A job on one side: its definition and its life, and so the times that it has."""

    job: Job
    anchor: Instant
    state: JobState
    job_id: str = ""

    def times(self, start: Instant, end: Instant) -> Iterator[Instant] | None:
        """The times to run in `(start, end]`; None: time does not drive it."""
        bound = self.job.bind(self.job_id, self.anchor)
        if bound is None or bound.driven_by != "time":
            return None
        return _running(bound.next_after, start, end) if self.state is JobState.ACTIVE else iter(())

    def deployed(self, job: Job, start: Instant) -> Side:
        """What this comes to be when code declares `job` in its place."""
        if not _differences(self.job, job):
            return self
        if self.state is JobState.STOPPED:
            return Side(job, start, job.state)
        # An equal schedule goes on counting from where it did, and the store keeps the state of what code declares.
        anchor = self.anchor if self.job.schedule == job.schedule else start
        return Side(job, anchor, self.state, self.job_id)


def declared(jobs: Iterable[Job], start: Instant) -> dict[str, Side]:
    """A side that code declares, deployed at `start`."""
    return {job.name: Side(job, start, job.state) for job in jobs}


def stored(records: Iterable[JobRecord]) -> dict[str, Side]:
    """A side that a store has."""
    return {record.name: Side(record.job, record.anchor, record.state, record.id) for record in records}


def changes(before: Mapping[str, Side], after: Mapping[str, Side], start: datetime, end: datetime) -> list[Change]:
    """Every job of either side, by name."""
    first, last = to_instant(start), to_instant(end)
    return [_change(name, before.get(name), after.get(name), first, last) for name in sorted({*before, *after})]


def _change(name: str, old: Side | None, new: Side | None, start: Instant, end: Instant) -> Change:
    differs = {} if old is None or new is None else _differences(old.job, new.job)
    if old is not None and new is not None:
        new = old.deployed(new.job, start)
    was, will_be = _times(old, start, end), _times(new, start, end)
    runs = (None if was is None else len(was), None if will_be is None else len(will_be))
    before, after = set(was or ()), set(will_be or ())
    kind: Literal["added", "removed", "changed", "same"] = (
        "added" if old is None else "removed" if new is None else "changed" if differs else "same"
    )
    return Change(
        name,
        kind,
        differs,
        runs,
        tuple(sorted(before - after)[:_SHOWN]) if kind != "removed" else (),
        tuple(sorted(after - before)[:_SHOWN]) if kind != "added" else (),
        _effect(kind, differs, old),
    )


def _times(side: Side | None, start: Instant, end: Instant) -> list[Instant] | None:
    times = None if side is None else side.times(start, end)
    return None if times is None else list(islice(times, _LOOKED_AT))


def _running(next_after: Any, start: Instant, end: Instant) -> Iterator[Instant]:
    at = next_after(start)
    while at is not None and at <= end:
        yield at
        at = next_after(at)


def _differences(old: Job, new: Job) -> dict[str, tuple[Any, Any]]:
    before, after = _data(old), _data(new)
    if not new.says_recovery or not old.says_recovery:  # the scheduler says it for one of them
        before.pop("recovery", None)
        after.pop("recovery", None)
    keys = [key for key in {**before, **after} if key != "paused"]  # the store keeps the state of declared jobs
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _data(job: Job) -> dict[str, Any]:
    try:
        return job_to_data(job)
    except ScheduleError:  # a schedule of the user's own
        assert job.schedule is not None
        return {"schedule": job.schedule.describe()}


def _effect(kind: str, differs: Mapping[str, Any], old: Side | None) -> str:
    if kind == "removed":
        return "stays in the store, and is not fired any more by what is deployed"
    if kind == "added":
        return "counts from the deployment on"
    if old is not None and old.state is JobState.STOPPED and differs:
        return "had ended, and begins a new life"
    if "schedule" in differs:
        return "counts from the deployment on; what waits of the old schedule is superseded"
    return "what waits is kept, and runs under the new definition" if differs else ""
