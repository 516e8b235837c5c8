"""`clepsydra check module:scheduler`: what its jobs come to, and what is doubtful about them, without running anything.

Importing the module is all that runs of the user's code, and the store is not opened. A job whose task is unknown or
whose arguments do not fit is refused when it is declared, so that comes out as an import that fails.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from .. import Clock, Job, ScheduleError, Scheduler, to_datetime, to_instant
from .errors import OK, PROBLEM
from .findings import Finding, Level, findings_of
from .tables import Column, fitted
from .target import load_scheduler
from .words import Paint, length, moment, plural, table, width_of

_LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "info")
_COLOURS: Final = {"error": "red", "warning": "yellow", "info": "grey"}


def check(arguments: argparse.Namespace, paint: Paint, clock: Clock | None = None) -> int:
    """Print a scheduler's jobs and the findings about them."""
    scheduler = load_scheduler(arguments.target)
    now = to_datetime((clock or scheduler.clock).now())
    jobs = scheduler.declared_jobs
    print(f"{arguments.target}: {plural(len(jobs), 'job')}, {plural(_tasks(scheduler), 'task')}")
    if jobs:
        print()
        for line in overview(jobs, now):
            print(line)
    findings = all_findings(jobs, now)
    _print(findings, paint)
    return _verdict(findings, arguments.strict)


def _tasks(scheduler: Scheduler) -> int:
    return len({task.name for task in scheduler.tasks.values()})


def overview(jobs: Sequence[Job], now: datetime) -> list[str]:
    """A table of jobs: name, schedule in words, next time. On a terminal as wide as that is."""
    columns = [Column("JOB", least=12), Column("SCHEDULE", least=12), Column("NEXT TIME")]
    rows = [(job.name, job.schedule.describe() if job.schedule else "-", _next_time(job, now)) for job in jobs]
    return fitted(columns, rows, width_of(sys.stdout), Paint(sys.stdout))


def _next_time(job: Job, now: datetime) -> str:
    if job.schedule is None:
        return "when it is called"
    if job.schedule.driven_by != "time":
        return "at the next start" if job.schedule.driven_by == "reboot" else "after each completion"
    try:
        times = job.schedule.upcoming(1, now, name=job.name)
    except ScheduleError:
        times = []
    return f"{moment(times[0])} (in {length(to_instant(times[0]) - to_instant(now))})" if times else "never"


def all_findings(jobs: Sequence[Job], now: datetime) -> list[Finding]:
    """The findings about all jobs, the worst first."""
    found = [finding for job in jobs for finding in findings_of(job, now)]
    if not jobs:
        found.append(Finding("warning", "", "no jobs are declared; those that are added at run time are not seen here"))
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))


# --- telling -------------------------------------------------------------------------------------------------------


def _print(findings: Sequence[Finding], paint: Paint) -> None:
    if findings:
        print()
    lines = table((finding.level, finding.job, finding.text) for finding in findings) if findings else []
    width = width_of(sys.stdout)
    for finding, line in zip(findings, lines, strict=True):
        first, *others = [line] if width is None else textwrap.wrap(line, width, subsequent_indent=" " * 4)
        print(paint(_COLOURS[finding.level], finding.level) + first[len(finding.level) :])
        for other in others:
            print(other)
    counts = [sum(finding.level == level for finding in findings) for level in _LEVELS]
    print(f"\n{plural(counts[0], 'error')}, {plural(counts[1], 'warning')}, {counts[2]} to know")


def _verdict(findings: Sequence[Finding], strict: bool) -> int:
    bad = {"error", "warning"} if strict else {"error"}
    return PROBLEM if any(finding.level in bad for finding in findings) else OK
