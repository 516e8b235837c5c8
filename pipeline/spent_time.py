"""Where an execution's time went: what it waited for, and how its attempts went. Pure, of the rows alone.

The rows say when an execution was due, made, ready, started and ended, attempt by attempt. What lies between two of
these is a wait, in the vessel that stands between them; waits and attempts together account for all of the time. One
thing is read between the lines: an attempt that was held has its not-before time from the moment in which overlap let
it go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from ..model.execution import Attempt, Ending, Execution, State
from ..model.explanation import Try, Vessel, Wait
from ..model.instants import Instant, to_datetime, to_timedelta

_AFTER = {str(Ending.RETRY): Vessel.RETRY, str(Ending.SNOOZED): Vessel.SNOOZE}
_AT_ONCE = (str(Ending.GIVEN_BACK), "lost")
"""Endings after which the next attempt is ready at once."""

_STANDING = {State.HELD: Vessel.HELD, State.PLACING: Vessel.PLACING}


@frozen
class Span:
    """A wait in instants; `until` None: it lasts."""

    vessel: Vessel
    since: Instant
    until: Instant | None


def tries_of(row: Execution, past: Sequence[Attempt]) -> list[Try]:
    """The attempts in order, the present one last if it has started, or is the only one."""
    tries = [
        Try(
            attempt.number,
            attempt.id,
            attempt.node,
            None if attempt.started_at is None else to_datetime(attempt.started_at),
            to_datetime(attempt.ended_at),
            attempt.ending,
            attempt.error,
        )
        for attempt in in_order(past)
    ]
    if row.started_at is not None or row.finished:
        tries.append(
            Try(row.attempt, row.attempt_id, row.node, row.started_time, row.finished_time, row.state.value, row.error)
        )
    return tries


def waits_of(row: Execution, past: Sequence[Attempt], now: Instant) -> list[Wait]:
    """What it waited for, in order."""
    return [_told(span, now) for span in _spans(row, past, now)]


def in_order(past: Sequence[Attempt]) -> list[Attempt]:
    """As they ended: ids are of different nodes, whose clocks may differ."""
    return sorted(past, key=lambda attempt: (attempt.ended_at, attempt.id))


def _told(span: Span, now: Instant) -> Wait:
    length = to_timedelta((now if span.until is None else span.until) - span.since)
    return Wait(span.vessel, to_datetime(span.since), None if span.until is None else to_datetime(span.until), length)


def _spans(row: Execution, past: Sequence[Attempt], now: Instant) -> Iterator[Span]:
    """Those that took any time; clocks that were set back leave some out."""
    for span in (*_before_it_was_ready(row, past, now), *_before_its_attempts(row, past, now)):
        if span.since < (now if span.until is None else span.until):
            yield span


def _before_it_was_ready(row: Execution, past: Sequence[Attempt], now: Instant) -> Iterator[Span]:
    if row.nominal is not None:
        yield Span(Vessel.JITTER, row.nominal, row.due_at)
        yield Span(Vessel.TIMELINE, row.due_at, row.created_at)
        return
    touched = _first_touched(row, past)
    if touched is not None:
        yield Span(Vessel.DELAY, row.created_at, min(row.due_at, touched))
    else:
        yield Span(Vessel.DELAY, row.created_at, row.due_at if row.due_at <= now else None)


def _first_touched(row: Execution, past: Sequence[Attempt]) -> Instant | None:
    """When something happened to it first: it started, or ended without, perhaps before it was due."""
    for attempt in in_order(past):
        return attempt.ended_at if attempt.started_at is None else attempt.started_at
    return row.finished_at if row.started_at is None else row.started_at


def _before_its_attempts(row: Execution, past: Sequence[Attempt], now: Instant) -> Iterator[Span]:
    ready, earlier = max(row.due_at, row.created_at), None
    for attempt in in_order(past):
        yield from _before(attempt.not_before, attempt.started_at or attempt.ended_at, ready, earlier, row.due_at)
        ready, earlier = attempt.ended_at, attempt.ending
    started = row.started_at if row.started_at is not None else row.finished_at
    if started is not None:
        yield from _before(row.not_before, started, ready, earlier, row.due_at)
    elif row.not_before > now:
        if earlier is not None:
            yield Span(_AFTER.get(earlier, Vessel.ENDED), ready, None)
    else:
        for span in _before(row.not_before, now, ready, earlier, row.due_at):
            # The last of them is the one that it is in.
            standing = _STANDING.get(row.state, span.vessel)
            yield Span(standing, span.since, None) if span.until == now else span


def _before(
    not_before: Instant, started: Instant, ready: Instant, earlier: str | None, due_at: Instant
) -> Iterator[Span]:
    """From the moment when an attempt might have been ready until it started."""
    let_go = min(max(ready, not_before), started)
    if earlier is None:
        # What is due later than it was made to be was held by overlap, until there was room.
        if not_before > due_at:
            yield Span(Vessel.HELD, ready, let_go)
    elif earlier not in _AT_ONCE:
        yield Span(_AFTER.get(earlier, Vessel.ENDED), ready, let_go)
    else:
        let_go = ready
    yield Span(Vessel.QUEUE, let_go, started)
