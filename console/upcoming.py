"""`clepsydra next EXPR`: when a cron expression runs, in words, in its zone and in UTC.

Changes of the clocks that touch it stand between the times, where they happen: an expression is looked at before it is
deployed, and that is when they can still be thought of.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from .. import Clock, Cron, Instant, ScheduleError, SystemClock, to_datetime, to_instant
from .clock_changes import ClockChange, clock_changes
from .errors import OK, PROBLEM, UsageError
from .words import length, moment, table, utc

MOST = 1000


def next_times(arguments: argparse.Namespace, clock: Clock | None = None) -> int:
    """Print the next times of an expression."""
    cron = _cron(arguments.expr, arguments.tz)
    after = _start(arguments.start, cron.tz, SystemClock() if clock is None else clock)
    times = _upcoming(cron, arguments.count, after, arguments.name)
    print(cron.describe())
    if cron.driven_by != "time":
        return OK
    if not times:
        print(f"no time to come after {moment(after.astimezone(_zone(cron.tz)))}")
        return PROBLEM
    print()
    for line in listing(cron, times, after, arguments.name):
        print(line)
    if len(times) < arguments.count:
        print("and no more")
    return OK


def _cron(expr: str, tz: str) -> Cron:
    try:
        return Cron(expr, tz=tz)
    except ScheduleError as error:
        raise UsageError(str(error)) from error


def _upcoming(cron: Cron, count: int, after: datetime, name: str) -> list[datetime]:
    try:
        return cron.upcoming(count, after, name=name)
    except ScheduleError as error:
        raise UsageError(str(error).replace("pass name=", "give it with --name")) from error


def _start(text: str | None, tz: str, clock: Clock) -> datetime:
    """From when on: now, or what --from says, in the expression's zone if it names none."""
    if text is None:
        return to_datetime(clock.now())
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--from {text!r} is not read; write it like 2027-03-28 or 2027-03-28T01:30+01:00") from None
    return at.replace(tzinfo=_zone(tz)) if at.tzinfo is None else at


def _zone(tz: str) -> ZoneInfo:
    return ZoneInfo(tz)


def listing(cron: Cron, times: list[datetime], after: datetime, name: str = "") -> Iterator[str]:
    """One line for each time, and one for each change of the clocks among them."""
    changes = clock_changes(cron, after, times[-1] + timedelta(days=1), name)
    since = to_instant(after)
    rows = [_cells(at, since, in_utc=cron.tz != "UTC") for at in times]
    for line, at, previous in zip(table(rows), times, [after, *times], strict=False):
        yield from (f"  {note(change)}" for change in changes if _lies_before(change, at, previous))
        yield line + _pass_of_fold(at, times)


def _cells(at: datetime, since: Instant, *, in_utc: bool) -> list[str]:
    return [moment(at), *([utc(at)] if in_utc else []), f"in {length(to_instant(at) - since)}"]


def note(change: ClockChange) -> str:
    """What a change does to the times around it."""
    return f"-- {change.describe()}: {change.effect}"


def _lies_before(change: ClockChange, at: datetime, previous: datetime) -> bool:
    """Whether this is the first line after what it touches began."""
    return to_instant(previous) < change.first_affected <= to_instant(at)


def _pass_of_fold(at: datetime, times: list[datetime]) -> str:
    """Which of the two times with the same look this is, if both are there."""
    wall = at.replace(tzinfo=None, fold=0)
    looks = [other for other in times if other.replace(tzinfo=None, fold=0) == wall]
    return f"  (the {'second' if at.fold else 'first'} {at:%H:%M})" if len(looks) > 1 else ""
