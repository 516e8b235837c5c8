"""What is wrong, doubtful or worth knowing about declared jobs. Pure: jobs and a moment in, findings out; nothing runs.

An error is a job that cannot do what it was declared for. A warning is a job that probably does not do what its author
meant. An information is a fact that the author may not have thought of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, TypeAlias

from attrs import frozen

from .. import Job, JobState, Once, Overlap, Schedule, ScheduleError, to_instant
from .clock_changes import clock_changes, parts
from .words import SECOND, length, moment

Level: TypeAlias = Literal["error", "warning", "info"]

HORIZON = timedelta(days=400)
"""How far ahead changes of the clocks are looked for: each zone's next two, and then some."""

MANY_A_DAY = 1000
"""A job that runs more often than this is not one whose missed times one wants to make up for, one by one."""

_SAMPLE = 12  # times that tell how close together a job's times lie
_DAY = 86_400 * SECOND


@frozen
class Finding:
    """Something about a job."""

    level: Level
    job: str
    text: str


def findings_of(job: Job, now: datetime) -> Iterator[Finding]:
    """All that can be said about a job at this moment."""
    try:
        times = _next_times(job, now)
    except ScheduleError as error:
        yield Finding("error", job.name, f"never runs: {error}")
        return
    for look in _LOOKS:
        for level, text in look(job, times, now):
            yield Finding(level, job.name, text)


def _next_times(job: Job, now: datetime) -> list[datetime]:
    if job.schedule is None:
        return []
    return job.schedule.upcoming(_SAMPLE, now, name=job.name)


Said: TypeAlias = Iterable[tuple[Level, str]]
Look: TypeAlias = Callable[[Job, list[datetime], datetime], Said]


def _whether_it_fires(job: Job, times: list[datetime], now: datetime) -> Said:
    schedule = job.schedule
    if schedule is None:
        yield "info", "has no schedule: it runs when run_job() is called"
    elif schedule.driven_by == "time" and not times:
        yield "error", f"never runs: {_why_never(schedule)}"
    elif len(times) > 0 and times[0] - now > HORIZON:
        yield "warning", f"does not run before {moment(times[0])}"
    if job.state is JobState.PAUSED:
        yield "info", "is declared paused: it waits for resume_job()"


def _why_never(schedule: Schedule) -> str:
    if isinstance(schedule, Once):
        return f"its one time, {moment(schedule.at)}, has passed"
    return f"{schedule.describe()}: no time to come"


def _days_and_weekdays(job: Job, times: list[datetime], now: datetime) -> Said:
    for fields in _crons(job, now):
        day, _, weekday = fields
        if not _open(day) and not _open(weekday):
            yield (
                "warning",
                f"restricts both day of month ({day}) and day of week ({weekday}): it runs when either matches, "
                "as cron does, not only when both do",
            )


def _short_months(job: Job, times: list[datetime], now: datetime) -> Said:
    for day, months, weekday in _crons(job, now):
        late_days = day.isdigit() and int(day) > 28
        if late_days and _open(weekday) and _open(months):
            yield "info", f"runs on day {day}: shorter months are left out; 'L' is the last day of each month"


def _crons(job: Job, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Day of month, month and day of week of each cron that names times of the job."""
    if job.schedule is None:
        return
    start = to_instant(now)
    for part in parts(job.schedule.to_json(), start, start + _DAY):
        fields = part.cron.expr.split()
        if not part.excludes and len(fields) >= 5:
            first = 2 if len(fields) == 5 else 3
            yield fields[first], fields[first + 1], fields[first + 2]


def _open(field: str) -> bool:
    return any(atom in ("*", "?", "*/1") for atom in field.split(","))


def _changes_of_the_clocks(job: Job, times: list[datetime], now: datetime) -> Said:
    if job.schedule is None:
        return
    for change in clock_changes(job.schedule, now, now + HORIZON, job.name):
        yield "info", f"{change.describe()}: {change.effect}"


def _longer_than_its_interval(job: Job, times: list[datetime], now: datetime) -> Said:
    gap, timeout = _closest(times), job.work.timeout
    if gap is None or timeout is None or timeout <= gap:
        return
    becomes: dict[Overlap, str] = {
        Overlap.SKIP: "are skipped",
        Overlap.ALLOW: "run beside it",
        Overlap.BUFFER_ONE: "wait, one of them, and the others are skipped",
        Overlap.BUFFER_ALL: "all wait for their turn",
        Overlap.CANCEL_RUNNING: "cancel it",
    }
    yield (
        "info",
        f"may run for {length(timeout)} (timeout) and is due every {length(gap)}: while it runs, later times "
        f"{becomes[job.overlap]} (overlap={job.overlap.value})",
    )


def _what_it_makes_up_for(job: Job, times: list[datetime], now: datetime) -> Said:
    gap, misfire = _closest(times), job.misfire
    if gap is None or misfire.take != "all":
        return
    if misfire.limit is None and misfire.window is None and _DAY // gap > MANY_A_DAY:
        yield (
            "warning",
            f"makes up for all missed times (misfire='all') and is due every {length(gap)}: after a day's downtime "
            f"some {_DAY // gap} runs follow; give limit= or window=",
        )


def _jitter_beyond_the_next_time(job: Job, times: list[datetime], now: datetime) -> Said:
    gap = _closest(times)
    if gap is not None and job.jitter >= gap:
        yield "info", f"has a jitter of {length(job.jitter)} and is due every {length(gap)}: it is cut at the next time"


def _closest(times: list[datetime]) -> int | None:
    """How close together its next times lie, at the closest."""
    gaps = [to_instant(later) - to_instant(at) for at, later in pairwise(times)]
    return min(gaps, default=None)


_LOOKS: tuple[Look, ...] = (
    _whether_it_fires,
    _days_and_weekdays,
    _short_months,
    _longer_than_its_interval,
    _what_it_makes_up_for,
    _jitter_beyond_the_next_time,
    _changes_of_the_clocks,
)
