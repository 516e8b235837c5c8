"""What a job's due times come to now: the one that runs, those that are settled without running. Pure.

`judge` is asked for one job when there is a free slot for it. Mostly one time is due and it runs. When several have
passed, because the process was down, the host slept, the clock was set or the slots were full, the job's misfire
policy decides; the answer is a `Fire` for the store, whose ranges account for every time that is passed over. No step
of it walks over the times in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import define

from ..model.execution import Kind
from ..model.instants import Instant
from ..model.job import Job, JobRecord
from ..model.policies import Overlap
from ..model.schedule import BoundSchedule, jitter_of
from ..storage.protocol import Fire, Settle


@define(weakref_slot=False)
class Entry:
    """A job in the timeline: its definition, and the next time at which it is due."""

    record: JobRecord
    bound: BoundSchedule
    cursor: Instant
    nominal: Instant = 0
    """The first time to run after the cursor."""
    due: Instant = 0
    """The nominal time with its jitter."""
    following: Instant | None = None
    """The time after `nominal`, once `judge` has asked for it."""
    catching_up: bool = False
    """Its last fire was one of several overdue ones: the first that is on time again must not overtake it."""
    judged: Instant = 0
    """The misfire limit has been applied to times up to here."""
    group: object = None
    """Where in the timeline it stands; None: nowhere."""


NextAfter: TypeAlias = Callable[[BoundSchedule, Instant], Instant | None]
"""Asks a schedule for its next time; who asks for many jobs at once shares the answers."""


def _step(bound: BoundSchedule, instant: Instant) -> Instant | None:
    return bound.next_after(instant)


def due_of(job: Job, bound: BoundSchedule, nominal: Instant) -> Instant:
    """When a nominal time is due: at once, or after its jitter."""
    if not job.definition.jitter:
        return nominal
    following = bound.next_after(nominal) if bound.driven_by == "time" else None
    return nominal + jitter_of(job.name, nominal, job.jitter, following)


def judge(entry: Entry, now: Instant, execution_id: str, next_after: NextAfter = _step) -> Fire:
    """The fire of a job whose next time is due."""
    bound, record, nominal, due = entry.bound, entry.record, entry.nominal, entry.due
    if bound.driven_by != "time":
        return _event_driven(entry, execution_id)
    job = record.job
    misfire = job.definition.misfire
    following = entry.following = next_after(bound, nominal)
    in_time = now - misfire.grace
    # With its jitter the following time is due later still.
    if due >= in_time and (following is None or following > now or due_of(job, bound, following) > now):
        fire = Fire(record.id, record.status.generation, entry.cursor, nominal, execution_id, nominal, due)
        if following is None:
            fire.finishes = True
        if entry.catching_up:
            fire.alone = job.overlap is not Overlap.ALLOW
    else:
        fire = _judge_overdue(entry, now, execution_id)
        fire.finishes = bound.next_after(fire.to) is None
    if misfire.take == "latest" and fire.execution_id:
        fire.coalesce_before = fire.nominal if fire.nominal < in_time else in_time
    if bound.has_exclusions:
        _account_for_exclusions(entry, fire)
    return fire


def _event_driven(entry: Entry, execution_id: str) -> Fire:
    fire = _fire(entry, execution_id, entry.nominal, entry.due)
    fire.alone = entry.bound.driven_by == "completion"
    return fire


def _judge_overdue(entry: Entry, now: Instant, execution_id: str) -> Fire:
    misfire = entry.record.job.misfire
    last = _last_due(entry, now)
    if misfire.take == "all":
        return _next_of_all(entry, now, last, execution_id)
    last_due_at = due_of(entry.record.job, entry.bound, last)
    too_late = misfire.take == "none" and now - last_due_at > misfire.grace
    if too_late or (misfire.window is not None and last < now - misfire.window):
        return _settle_only(entry, last, "it was overdue" if too_late else "it was later than the misfire window")
    fire = _fire(entry, execution_id, last, last_due_at)
    if misfire.take == "none":
        fire.settled = _spans(entry, (Kind.MISSED, last, "it was overdue"))
        return fire
    cut = entry.nominal if misfire.window is None else min(last, max(entry.nominal, now - misfire.window))
    fire.settled = _spans(
        entry,
        (Kind.MISSED, cut, "it was later than the misfire window"),
        (Kind.COALESCED, last, "a later time ran for it"),
    )
    return fire


def _next_of_all(entry: Entry, now: Instant, last: Instant, execution_id: str) -> Fire:
    """The earliest of the overdue times that are to run; each runs when the one before has ended."""
    misfire = entry.record.job.misfire
    first, why = entry.nominal, "it was later than the misfire window"
    if misfire.window is not None and first < now - misfire.window:
        in_window = entry.bound.next_after(now - misfire.window - 1)
        if in_window is None or in_window > last:
            return _settle_only(entry, last, why)
        first = in_window
    if misfire.limit is not None and first > entry.judged:
        limited = _nth_from_last(entry.bound, last, misfire.limit)
        entry.judged = last
        if limited > first:
            first, why = limited, "more were overdue than the misfire limit"
    fire = _fire(entry, execution_id, first, due_of(entry.record.job, entry.bound, first))
    fire.settled = _spans(entry, (Kind.MISSED, first, why))
    fire.alone = entry.record.job.overlap is not Overlap.ALLOW
    entry.catching_up = True
    return fire


def _last_due(entry: Entry, now: Instant) -> Instant:
    """The latest time that is due; there is at least the entry's own."""
    last = entry.bound.last_before(now + 1) or entry.nominal
    while last > entry.nominal and due_of(entry.record.job, entry.bound, last) > now:
        last = entry.bound.last_before(last) or entry.nominal  # its jitter ends before the next time: one step
    return max(last, entry.nominal)


def _nth_from_last(bound: BoundSchedule, last: Instant, count: int) -> Instant:
    first = last
    for _ in range(count - 1):
        earlier = bound.last_before(first)
        if earlier is None:
            break
        first = earlier
    return first


def _fire(entry: Entry, execution_id: str, nominal: Instant, due_at: Instant) -> Fire:
    record = entry.record
    return Fire(record.id, record.status.generation, entry.cursor, nominal, execution_id, nominal, due_at)


def _settle_only(entry: Entry, last: Instant, reason: str) -> Fire:
    record = entry.record
    settled = (Settle(Kind.MISSED, entry.nominal, last + 1, reason),)
    return Fire(record.id, record.generation, entry.cursor, last, settled=settled)


def _spans(entry: Entry, *ends: tuple[Kind, Instant, str]) -> list[Settle]:
    """Consecutive spans from the entry's first time on, empty ones left out."""
    spans: list[Settle] = []
    start = entry.nominal
    for kind, end, reason in ends:
        if end > start:
            spans.append(Settle(kind, start, end, reason))
            start = end
    return spans


def _account_for_exclusions(entry: Entry, fire: Fire) -> None:
    first = next(iter(entry.bound.times(entry.cursor + 1, fire.to)), None)
    if first is None or (first == entry.nominal == fire.to):
        return
    fire.settled = [*fire.settled, Settle(Kind.EXCLUDED, entry.cursor + 1, fire.to)]
