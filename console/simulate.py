"""`clepsydra simulate module:scheduler`: a span of time through the real engine, and what would happen in it.

Nothing of the user's tasks runs: they sleep for as long as they are assumed to take, on a clock that jumps from one
time to the next. `--diff` compares with another version, or with what a store has, before it is deployed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import anyio

from .. import ExecutionFilter, Job, Scheduler, SystemClock, to_instant
from .arguments import AddCommand, add_command, add_target
from .clock_changes import clock_changes
from .deployment import Change, Side, changes, declared, stored
from .errors import OK, PROBLEM, UsageError
from .heat_map import heat_map
from .run import configure_logging
from .screen import Screen, iso, seconds
from .simulation import Collision, Durations, JobTally, Tally, expected_runs, simulate
from .stores import operator_at
from .tables import Column
from .target import load_scheduler
from .times import moment_of, seconds_of
from .words import SECOND, length, plural

MOST_RUNS: Final = 2_000_000
"""More than these would take many minutes: they are asked for with --all."""
_SHOWN: Final = 5
_RECORDED: Final = 200
"""Runs of a job whose recorded durations are taken."""
_DEFAULT_SPAN: Final = timedelta(days=365)


def add_simulate(add: AddCommand) -> None:
    """The command and its options."""
    command = add_command(
        add,
        "simulate",
        simulate_command,
        "run a scheduler's jobs through a span of time in seconds, and tell what would happen",
        "The engine is the real one, on a virtual clock and with a store in memory; tasks are not run, they take the "
        "time that is assumed or recorded for them.",
    )
    add_target(command)
    command.add_argument("--from", dest="start", metavar="TIME", default="now", help="the beginning (default: now)")
    command.add_argument("--to", dest="end", metavar="TIME", help="the end (default: a year later)")
    command.add_argument(
        "--assume",
        metavar="[NAME=]LENGTH",
        action="append",
        default=[],
        help="how long runs take, all or those of a job or task: 30s, backup=2h (default: no time at all)",
    )
    command.add_argument("--recorded", metavar="URL", help="take them from what this store has recorded")
    command.add_argument("--without", metavar="JOB", action="append", default=[], help="leave a job out")
    command.add_argument(
        "--diff",
        metavar="OTHER",
        help="tell only what deploying this changes, beside another MODULE:SCHEDULER, a file, or a store's URL",
    )
    command.add_argument("--all", action="store_true", help=f"also more than {MOST_RUNS:,} runs")
    command.add_argument("--tz", metavar="ZONE", default="UTC", help="the zone of times shown and given (default: UTC)")
    command.add_argument("--json", action="store_true", help="one JSON document, instants in UTC")
    command.add_argument("--no-pager", action="store_true", help="print long answers as they are, on a terminal too")


def simulate_command(arguments: argparse.Namespace) -> int:
    """Simulate, or compare."""
    screen = Screen(arguments, SystemClock().now())
    scheduler = load_scheduler(arguments.target)
    start = moment_of(arguments.start, screen, "--from", ahead=True)
    end = start + _DEFAULT_SPAN if arguments.end is None else moment_of(arguments.end, screen, "--to", ahead=True)
    if end <= start:
        raise UsageError(f"--to {arguments.end} is not after --from {arguments.start}")
    if arguments.diff is not None:
        return _compare(arguments, screen, scheduler, start, end)
    jobs = _chosen(scheduler.declared_jobs, arguments.without)
    _check_size(jobs, start, end, arguments)
    configure_logging("error")
    tally = Tally(screen.zone)
    progress = _Progress(start, end)
    durations = _durations(arguments, jobs)
    try:
        anyio.run(simulate, scheduler, jobs, start, end, durations, tally, progress.tell)
    finally:
        progress.clear()
    if screen.as_json:
        screen.document(_document(jobs, tally, start, end))
    else:
        screen.lines(_report(jobs, tally, start, end, screen))
    return OK


def _chosen(jobs: Sequence[Job], without: Sequence[str]) -> list[Job]:
    names = {job.name for job in jobs}
    for name in without:
        if name not in names:
            raise UsageError(
                f"--without {name!r}: there is no such job; there are {', '.join(sorted(names)) or 'none'}"
            )
    return [job for job in jobs if job.name not in without]


def _check_size(jobs: Sequence[Job], start: datetime, end: datetime, arguments: argparse.Namespace) -> None:
    runs = expected_runs(jobs, start, end, MOST_RUNS + 1)
    if sum(runs.values()) > MOST_RUNS and not arguments.all:
        busiest = max(runs, key=lambda name: runs[name])
        many = f"more than {MOST_RUNS:,}" if runs[busiest] > MOST_RUNS else f"{runs[busiest]:,}"
        raise UsageError(
            f"that is more than {MOST_RUNS:,} runs, {many} of them of {busiest!r}; simulate a shorter time (--to), "
            f"leave it out (--without {busiest}), or give --all and wait"
        )


# --- how long runs take ---------------------------------------------------------------------------------------------


def _durations(arguments: argparse.Namespace, jobs: Sequence[Job]) -> Durations:
    otherwise, by_name = 0, dict[str, Sequence[int]]()
    if arguments.recorded is not None:
        by_name |= _recorded(arguments.recorded, jobs)
    known = {job.name for job in jobs} | {job.work.task for job in jobs}
    for text in arguments.assume:
        name, equals, given = text.rpartition("=")
        lasting = seconds_of(given)
        if lasting is None:
            raise UsageError(f"--assume {text!r} is not read; write it like 30s, 1h30m or backup=2h")
        if not equals:
            otherwise = round(lasting * SECOND)
        elif name in known:
            by_name[name] = [round(lasting * SECOND)]
        else:
            raise UsageError(f"--assume {text!r}: no job or task is called {name!r}")
    return Durations(otherwise, by_name)


def _recorded(url: str, jobs: Sequence[Job]) -> dict[str, Sequence[int]]:
    """The durations of each job's last runs, in the order in which they ran."""
    with operator_at(url, "--recorded") as operator:
        found: dict[str, Sequence[int]] = {}
        for job in jobs:
            page = operator.executions(
                ExecutionFilter(jobs=[job.name], states="completed"), order="-finished", limit=_RECORDED
            )
            lasted = [
                run.finished_at - run.started_at
                for run in reversed(page.items)
                if run.finished_at is not None and run.started_at is not None
            ]
            if lasted:
                found[job.name] = lasted
        return found


# --- what happened --------------------------------------------------------------------------------------------------


def _report(jobs: Sequence[Job], tally: Tally, start: datetime, end: datetime, screen: Screen) -> Iterator[str]:
    paint = screen.paint
    span = length(to_instant(end) - to_instant(start))
    at_once = f", at most {tally.most_at_once} at once" if tally.runs else ""
    yield f"{screen.moment(to_instant(start))} to {screen.moment(to_instant(end))}, {span}"
    yield f"{_many(tally.runs, 'run')} of {_many(len(jobs), 'job')}{at_once}"
    yield ""
    yield from _job_table(jobs, tally, screen)
    if not tally.runs:
        return
    yield ""
    yield paint("bold", f"Runs by day of the week and hour, {screen.zone_name}")
    yield from heat_map(tally.week, paint, ascii_only=not _has_blocks())
    yield ""
    yield paint("bold", "Busiest minutes")
    for busy in tally.busiest[:_SHOWN]:
        yield f"  {screen.moment(busy.minute)}  {_many(busy.runs, 'run')}"
    yield ""
    yield from _collisions(tally, screen)
    yield from _touched(jobs, start, end, screen)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def _job_table(jobs: Sequence[Job], tally: Tally, screen: Screen) -> list[str]:
    columns = [
        Column("JOB", least=8),
        Column("RUNS", right=True),
        Column("NOT RUN", least=10),
        Column("OVERLAPS", right=True, rank=2),
        Column("AT ONCE", right=True, rank=3),
        Column("LATEST", right=True, rank=1),
        Column("TIMED OUT", right=True, rank=4),
    ]
    rows = [_row(job.name, tally.jobs.get(job.name, JobTally())) for job in jobs]
    return screen.table(columns, rows)


def _row(name: str, job: JobTally) -> list[Any]:
    not_run = ", ".join(f"{count:,} {kind.value.replace('_', ' ')}" for kind, count in job.settled.most_common())
    return [
        name,
        (f"{job.runs:,}", None if job.runs else "yellow"),
        (not_run, "yellow"),
        f"{job.overlapping:,}" if job.overlapping else "",
        str(job.most_at_once) if job.most_at_once > 1 else "",
        length(job.late) if job.late >= SECOND else "",
        (str(job.failed or ""), "red"),
    ]


def _collisions(tally: Tally, screen: Screen) -> Iterator[str]:
    yield screen.paint("bold", "Jobs at the same instant")
    if not tally.colliding_instants:
        yield "  none"
    for collision in tally.collisions[:_SHOWN]:
        yield f"  {_many(collision.times, 'time')}, first {screen.moment(collision.first)}: {_named(collision)}"
    more = len(tally.collisions) - _SHOWN
    if more > 0:
        yield f"  and {plural(more, 'more combination')}; {plural(tally.colliding_instants, 'instant')} in all"
    yield ""


def _named(collision: Collision) -> str:
    shown = ", ".join(collision.jobs[:_SHOWN])
    more = len(collision.jobs) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _touched(jobs: Sequence[Job], start: datetime, end: datetime, screen: Screen) -> Iterator[str]:
    yield screen.paint("bold", "Touched by changes of the clocks")
    touched = [
        (change.at, f"{change.describe()}: {job.name} {change.effect}")
        for job in jobs
        if job.schedule is not None
        for change in clock_changes(job.schedule, start, end, job.name)
    ]
    if not touched:
        yield "  none"
    for at, text in sorted(touched):
        yield from screen.prose([f"  {screen.moment(at)}  {text}"])


def _document(jobs: Sequence[Job], tally: Tally, start: datetime, end: datetime) -> dict[str, Any]:
    return {
        "from": iso(start),
        "to": iso(end),
        "runs": tally.runs,
        "most_at_once": tally.most_at_once,
        "jobs": {job.name: _job_document(tally.jobs.get(job.name, JobTally())) for job in jobs},
        "week": tally.week,
        "busiest_minutes": [{"at": iso(busy.minute), "runs": busy.runs} for busy in tally.busiest],
        "colliding_instants": tally.colliding_instants,
        "collisions": [
            {"jobs": list(one.jobs), "times": one.times, "first": iso(one.first)} for one in tally.collisions
        ],
        "clock_changes": [
            {"at": iso(change.at), "tz": change.tz, "job": job.name, "effect": change.effect}
            for job in jobs
            if job.schedule is not None
            for change in clock_changes(job.schedule, start, end, job.name)
        ],
    }


def _job_document(job: JobTally) -> dict[str, Any]:
    return {
        "runs": job.runs,
        "not_run": {kind.value: count for kind, count in job.settled.items()},
        "overlapping": job.overlapping,
        "most_at_once": job.most_at_once,
        "latest_start": seconds(job.late),
        "timed_out": job.failed,
    }


# --- what a deployment changes --------------------------------------------------------------------------------------


def _compare(
    arguments: argparse.Namespace, screen: Screen, scheduler: Scheduler, start: datetime, end: datetime
) -> int:
    """1 where there is any difference, as `diff` has it."""
    after = declared(_chosen(scheduler.declared_jobs, arguments.without), to_instant(start))
    before, kept = _other_side(arguments.diff, to_instant(start), after)
    found = [change for change in changes(before, after, start, end) if change.kind != "same"]
    if screen.as_json:
        screen.document([_change_document(change) for change in found])
    else:
        screen.lines(_changes(found, kept, screen))
    return PROBLEM if found else OK


def _other_side(other: str, start: int, after: Mapping[str, Side]) -> tuple[dict[str, Side], int]:
    """The jobs of before; and how many jobs a store has that nobody declares and this leaves alone."""
    if "://" not in other:
        return declared(load_scheduler(other).declared_jobs, start), 0
    with operator_at(other, "--diff") as operator:
        records = list(operator.all_jobs())
    ours = [record for record in records if record.declared or record.name in after]
    return stored(ours), len(records) - len(ours)


def _changes(found: Sequence[Change], kept: int, screen: Screen) -> Iterator[str]:
    signs = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow"), "same": (" ", None)}
    if not found:
        yield "nothing changes"
    for change in found:
        sign, colour = signs[change.kind]
        yield screen.paint(colour, f"{sign} {change.name}") + f": {_runs(change)}"
        for key, (was, will_be) in change.fields.items():
            yield f"    {key}: {_said(was)} -> {_said(will_be)}"
        if change.no_longer:
            yield f"    no longer: {', '.join(screen.moment(at) for at in change.no_longer)}"
        if change.newly:
            yield f"    newly: {', '.join(screen.moment(at) for at in change.newly)}"
        yield f"    {change.effect}"
    if kept:
        yield f"{plural(kept, 'job')} that no code declares: left as they are"


def _runs(change: Change) -> str:
    was, will_be = change.runs
    match change.kind:
        case "added":
            return "added" if will_be is None else f"added, {plural(will_be, 'run')}"
        case "removed":
            return "removed" if was is None else f"removed, {plural(was, 'run')} fewer"
        case _ if was is None or will_be is None:
            return change.kind
        case _:
            return f"{change.kind}, {plural(will_be, 'run')}" + (f" instead of {was}" if was != will_be else "")


def _said(value: object) -> str:
    return "-" if value is None else str(value)


def _change_document(change: Change) -> dict[str, Any]:
    return {
        "job": change.name,
        "change": change.kind,
        "fields": {
            key: {"before": _plain(was), "after": _plain(will_be)} for key, (was, will_be) in change.fields.items()
        },
        "runs_before": change.runs[0],
        "runs_after": change.runs[1],
        "no_longer": [iso(at) for at in change.no_longer],
        "newly": [iso(at) for at in change.newly],
        "effect": change.effect,
    }


def _plain(value: object) -> object:
    """Moments inside of definitions as JSON has them."""
    plain: object = json.loads(json.dumps(value, default=iso))
    return plain


# --- while it goes on -----------------------------------------------------------------------------------------------


class _Progress:
    """How far the simulation is, on standard error where that is a terminal."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._start, self._span = start, end - start
        self._shown = sys.stderr.isatty()

    def tell(self, at: datetime, runs: int) -> None:
        """It is so far."""
        if self._shown:
            part = (at - self._start) / self._span
            print(f"\r{part:4.0%}  {at:%Y-%m-%d}  {plural(runs, 'run')}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """It is over."""
        if self._shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def _has_blocks() -> bool:
    """Whether the output can show them."""
    try:
        "░▒▓█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
