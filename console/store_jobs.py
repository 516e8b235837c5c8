"""`clepsydra jobs`, `job`, `pause`, `resume`, `stop`, `run-now`, `remove`: what operators see and do of jobs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from .. import (
    Execution,
    ExecutionFilter,
    Instant,
    JobFilter,
    JobNotFound,
    JobRecord,
    JobState,
    Operator,
    State,
    Verdict,
    to_instant,
)
from .arguments import AddCommand, count_up_to
from .documents import late_by, of_definition, of_execution, of_job, of_verdict, took
from .errors import OK, UsageError
from .screen import Screen, confirm, iso, page_hint, paged
from .stores import add_store_command, add_yes
from .tables import Cell, Column, harmless
from .target import did_you_mean
from .times import labels_of
from .words import length, plural

_LAST: Final = 10
"""So many verdicts are shown of a job, and so many times to come."""
_NAMES_AT_MOST: Final = 1000
STATE_COLOURS: Final = {
    "active": "green",
    "succeeded": "green",
    "paused": "yellow",
    "stopped": "grey",
    "running": "yellow",
    "failed": "red",
    "expired": "red",
    "cancelled": "grey",
    "skipped": "grey",
}
_SIGNS: Final = {
    "fired": ("✓", "green"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "running": ("▶", "yellow"),
    "cancelled": ("k", "grey"),
    "coalesced": ("c", None),
    "missed": ("m", "red"),
    "paused": ("p", "yellow"),
    "excluded": ("x", "grey"),
    "overlap_skipped": ("o", "yellow"),
    "superseded": ("s", "grey"),
    "removed": ("r", "grey"),
    "expired": ("e", "red"),
    "no_node": ("n", "red"),
}
_OPEN: Final = ("·", None)


# ---- jobs


def add_jobs(add: AddCommand) -> None:
    """`clepsydra jobs`."""
    command = add_store_command(add, "jobs", _jobs, "list the jobs of a store, with their next times")
    add_which_jobs(command, "only jobs of this")
    add_paging(command)


def add_paging(command: argparse.ArgumentParser) -> None:
    """Page by page."""
    command.add_argument("--limit", type=count_up_to(1000), default=50, help="so many on a page (default: 50)")
    command.add_argument("--page", metavar="TOKEN", help="the page after an earlier one, which ends with its token")


def add_which_jobs(command: argparse.ArgumentParser, words: str) -> None:
    """Jobs by what they have in common."""
    states = [state.value for state in JobState]
    command.add_argument("--state", action="append", choices=states, help=f"{words} state")
    command.add_argument("--task", action="append", metavar="TASK", help=f"{words} task")
    command.add_argument("--label", action="append", metavar="KEY=VALUE", default=[], help=f"{words} label")


def _jobs(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    where = JobFilter(states=arguments.state, tasks=arguments.task, labels=labels_of(arguments.label))
    page = operator.list_jobs(where, limit=arguments.limit, cursor=arguments.page)
    times = {record.name: _next(operator, record) for record in page.items}
    total = operator.count_jobs(where)
    if screen.as_json:
        screen.document(paged([of_job(record, times[record.name]) for record in page.items], page.cursor, total))
        return OK
    columns = (
        Column("JOB", least=20),
        Column("STATE"),
        Column(f"NEXT ({screen.zone_name})", least=11),
        Column("", rank=2),
        Column("SCHEDULE", least=20, rank=1),
        Column("TASK", least=8, rank=3),
        Column("QUEUE", least=7, rank=4),
    )
    rows = [_row(record, times[record.name], screen) for record in page.items]
    screen.lines([*screen.table(columns, rows), "", *page_hint(len(rows), total, page.cursor, "job")])
    return OK


def _next(operator: Operator, record: JobRecord) -> Instant | None:
    return next((to_instant(at) for at in operator.upcoming(record, 1)), None)


def _row(record: JobRecord, following: Instant | None, screen: Screen) -> list[Cell]:
    state = record.state.value
    return [
        record.name,
        (state, STATE_COLOURS[state]),
        screen.time(following) or _no_time(record),
        screen.away(following),
        record.schedule.describe() if record.schedule else "none: run-now runs it",
        record.job.work.task,
        record.job.work.queue,
    ]


def _no_time(record: JobRecord) -> str:
    if record.state is not JobState.ACTIVE or record.schedule is None:
        return "-"
    return {"completion": "after a run", "reboot": "at a start"}.get(record.schedule.driven_by, "-")


# ---- one job


def add_job(add: AddCommand) -> None:
    """`clepsydra job`."""
    command = add_store_command(
        add, "job", _job, "show a job: its definition, its next times, and what became of its last ones"
    )
    command.add_argument("name", metavar="JOB")


def _job(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    record = job_of(operator, arguments.name)
    times = operator.upcoming(record, _LAST)
    verdicts = operator.last_verdicts(record.name, _LAST)
    ids = [verdict.execution_id for verdict in verdicts if verdict.execution_id]
    rows = {row.id: row for row in operator.executions(ExecutionFilter(ids=ids)).items} if ids else {}
    if screen.as_json:
        screen.document(
            {
                "job": of_job(record, to_instant(times[0]) if times else None),
                "next_times": [iso(at) for at in times],
                "last_times": [
                    of_verdict(each) | {"execution": _document(rows.get(each.execution_id or ""))} for each in verdicts
                ],
            }
        )
        return OK
    upcoming = [[screen.moment(to_instant(at)), screen.away(to_instant(at))] for at in times]
    told = [
        *_definition(record, screen),
        "",
        *(
            screen.table((Column(f"NEXT TIMES ({screen.zone_name})"), Column("")), upcoming)
            if times
            else ["no next times"]
        ),
        "",
        *_past(verdicts, rows, screen),
    ]
    screen.lines(told)
    return OK


def job_of(operator: Operator, name: str) -> JobRecord:
    """The job of this name. Raises `JobNotFound`, with the name that was probably meant."""
    record = operator.find_job(name)
    if record is None:
        names = [one.name for one in operator.list_jobs(limit=_NAMES_AT_MOST).items]
        error = JobNotFound(name, names)
        if suggestion := did_you_mean(name, names):
            error.args = (f"no job is called {name!r}{suggestion}",)
        raise error
    return record


def _document(row: Execution | None) -> dict[str, Any] | None:
    return None if row is None else of_execution(row)


def _definition(record: JobRecord, screen: Screen) -> list[str]:
    said = of_definition(record.job)
    said.pop("schedule", None)
    because = f" ({record.reason})" if record.reason else ""
    state = screen.paint(STATE_COLOURS[record.state.value], record.state.value)
    rows = [
        ("state", f"{state}{because}"),
        ("schedule", record.schedule.describe() if record.schedule else "none"),
        *((name, _said(value)) for name, value in said.items()),
        ("declared", "by code" if record.declared else "no: added at run time"),
        ("generation", f"{record.generation}, since {screen.moment(record.updated_at)}"),
        ("created", screen.moment(record.created_at)),
        ("id", record.id),
    ]
    return [screen.paint("bold", record.name), *described(rows)]


def described(rows: Sequence[tuple[str, str]], indent: str = "  ") -> Iterator[str]:
    """Names and what they are, a line each and aligned."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        first, *more = value.splitlines() or [""]
        yield f"{indent}{name.ljust(width)}  {first}"
        yield from (f"{indent}{' ' * width}  {line}" for line in more)


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_said(part)}" for name, part in value.items()) or "none"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return ", ".join(map(_said, value))  # pyright: ignore[reportUnknownArgumentType]
    return "\n".join(harmless(value)) if isinstance(value, str) else json.dumps(value)


def _past(verdicts: Sequence[Verdict], rows: dict[str, Execution], screen: Screen) -> Iterator[str]:
    """A strip of signs, what they mean, and a line for each time."""
    if not verdicts:
        yield "no time of it has passed yet"
        return
    words = [_word(each, rows) for each in verdicts]
    strip = " ".join(screen.paint(colour, sign) for sign, colour in map(sign_of, words))
    meant = ", ".join(f"{sign_of(word)[0]} {word.replace('_', ' ')}" for word in dict.fromkeys(words))
    yield f"{strip}   {meant}"
    yield ""
    columns = (
        Column(f"LAST TIMES ({screen.zone_name})"),
        Column("BECAME"),
        Column("LATE", rank=4, right=True),
        Column("TOOK", rank=1, right=True),
        Column("EXECUTION", rank=3),
        Column("REASON", least=8, rank=2),
    )
    table = [_time_row(each, word, rows, screen) for each, word in zip(verdicts, words, strict=True)]
    yield from screen.table(columns, reversed(table))


def _word(verdict: Verdict, rows: dict[str, Execution]) -> str:
    """What became of a nominal time: how its execution stands, if it has one that was started."""
    row = rows.get(verdict.execution_id or "")
    if row is not None and (verdict.kind is None or verdict.kind.value == "fired"):
        return row.state.value
    return verdict.kind.value if verdict.kind else "open"


def sign_of(word: str) -> tuple[str, str | None]:
    """The sign of a verdict, or of how an execution stands, and its colour."""
    return _SIGNS.get(word, _OPEN)


def _time_row(verdict: Verdict, word: str, rows: dict[str, Execution], screen: Screen) -> list[Cell]:
    row = rows.get(verdict.execution_id or "")
    late, ran = (late_by(row), took(row)) if row is not None else (None, None)
    return [
        screen.moment(to_instant(verdict.nominal)),
        (word.replace("_", " "), sign_of(word)[1]),
        "" if late is None else length(late),
        "" if ran is None else length(ran),
        verdict.execution_id or "",
        reason_of(row) if row is not None else verdict.reason or "",
    ]


def reason_of(row: Execution) -> str:
    """Why an execution is as it is, in a line: the last line of its error, or the reason that is recorded."""
    lines = (row.error or "").strip().splitlines()
    if lines and row.state is not State.SUCCEEDED:
        return lines[-1]
    return row.reason or ""


# ---- commands on jobs


def add_pause(add: AddCommand) -> None:
    """`clepsydra pause`."""
    _add_change(
        add, "pause", "stop firing jobs for now; what has not started is settled as paused", Operator.pause_jobs
    )


def add_resume(add: AddCommand) -> None:
    """`clepsydra resume`."""
    _add_change(add, "resume", "fire paused jobs again, from now on", Operator.resume_jobs)


def add_stop(add: AddCommand) -> None:
    """`clepsydra stop`."""
    _add_change(add, "stop", "stop firing jobs for good; they stay, with their history", Operator.stop_jobs, asks=True)


def add_remove(add: AddCommand) -> None:
    """`clepsydra remove`."""
    _add_change(
        add,
        "remove",
        "remove jobs; what has not started is settled as removed, what runs goes on",
        Operator.remove_jobs,
        asks=True,
    )


def _add_change(
    add: AddCommand,
    name: str,
    summary: str,
    change: Callable[[Operator, JobFilter], Sequence[JobRecord]],
    *,
    asks: bool = False,
) -> None:
    def does(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
        where = _which(arguments, operator)
        if asks:
            confirm(f"{name} {_meant(operator, where)}", arguments)
        changed = change(operator, where)
        done = _DONE[name]
        if screen.as_json:
            screen.document({done: [record.name for record in changed]})
            return OK
        for record in changed:
            print(f"{record.name}: {done}")
        if not changed:
            print(f"nothing to {name}: {_as_it_was(operator, where)}")
        return OK

    command = add_store_command(add, name, does, summary)
    command.add_argument("names", metavar="JOB", nargs="*")
    command.add_argument("--all", action="store_true", help="all jobs")
    add_which_jobs(command, "all jobs of this")
    if asks:
        add_yes(command)


_DONE: Final = {"pause": "paused", "resume": "resumed", "stop": "stopped", "remove": "removed"}


def _which(arguments: argparse.Namespace, operator: Operator) -> JobFilter:
    by_filter = arguments.all or arguments.state or arguments.task or arguments.label
    if bool(arguments.names) == bool(by_filter):
        raise UsageError("name one or more jobs, or give --all, --state, --task or --label; one or the other")
    for name in arguments.names:
        job_of(operator, name)
    return JobFilter(
        names=arguments.names or None,
        states=arguments.state,
        tasks=arguments.task,
        labels=labels_of(arguments.label),
    )


def _meant(operator: Operator, where: JobFilter) -> str:
    records = operator.list_jobs(where, limit=4).items
    count = operator.count_jobs(where)
    named = ", ".join(repr(record.name) for record in records[:3])
    if count > 3:
        named += f" and {count - 3} more"
    return f"{plural(count, 'job')}{f' ({named})' if named else ''}"


def _as_it_was(operator: Operator, where: JobFilter) -> str:
    records = operator.list_jobs(where, limit=2).items
    if len(records) == 1:
        return f"{records[0].name} is {records[0].state.value}"
    return "no job that is meant would be changed by it"


# ---- run it now


def add_run_now(add: AddCommand) -> None:
    """`clepsydra run-now`."""
    command = add_store_command(
        add,
        "run-now",
        _run_now,
        "have a job run now, paused or not, beside its schedule",
        "A scheduler at work on the store runs it; where there is none, the next one that comes.",
    )
    command.add_argument("names", metavar="JOB", nargs="+")


def _run_now(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    for name in arguments.names:
        job_of(operator, name)
    runs = {name: operator.run_job(name) for name in arguments.names}
    if screen.as_json:
        screen.document({"executions": [{"job": name, "id": run} for name, run in runs.items()]})
        return OK
    at_work = any(node.alive is not False for node in operator.nodes())
    for name, run in runs.items():
        print(f"{name}: execution {run}{'' if at_work else ', which waits for a scheduler: none is at work'}")
    return OK
