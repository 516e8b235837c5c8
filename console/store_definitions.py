"""`clepsydra export`, `import`: the definitions of jobs as TOML or JSON, out of a store and into one.

A file has a table of jobs by name, as docs/reference/settings.md describes it. What code declares is code's: the next
start of it would undo what a file says, so such jobs are exported and never changed by an import.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeGuard

from attrs import frozen

from .. import (
    ClepsydraError,
    InvalidArgument,
    Job,
    JobFilter,
    JobRecord,
    JobState,
    Operator,
    ScheduleError,
    UnknownTask,
    job_from_data,
    job_to_data,
)
from .arguments import AddCommand
from .errors import OK, CommandError, UsageError
from .screen import Screen, confirm, iso
from .stores import add_store_command, add_yes
from .tables import Column
from .toml import NoWord, tables
from .words import plural

Form: TypeAlias = Literal["toml", "json"]
_FORMS: Final = ("toml", "json")
_STDIN: Final = "-"


# ---- export


def add_export(add: AddCommand) -> None:
    """`clepsydra export`."""
    command = add_store_command(
        add,
        "export",
        _export,
        "print the definitions of jobs as TOML or JSON",
        "Jobs that are paused are exported as paused; those that have stopped are left out, unless they are named.",
    )
    command.add_argument("names", metavar="JOB", nargs="*", help="default: all")
    command.add_argument("--format", choices=_FORMS, help="default: toml, and with --json json")
    command.add_argument("-o", "--output", metavar="FILE", help="write it there; its ending says which format")


def _export(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    form = _form(arguments, "json" if screen.as_json else "toml")
    records = list(operator.all_jobs(JobFilter(names=arguments.names or None)))
    if missing := sorted(set(arguments.names) - {record.name for record in records}):
        operator.get_job(missing[0])
    chosen = [record for record in records if arguments.names or record.state is not JobState.STOPPED]
    text = written({record.name: _definition(record) for record in chosen}, form)
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        try:
            with open(arguments.output, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise CommandError(f"{arguments.output!r} cannot be written: {error.strerror}") from error
        print(f"{arguments.output}: {plural(len(chosen), 'job')}")
    if len(chosen) < len(records):
        left_out = plural(len(records) - len(chosen), "job")
        print(f"clepsydra: {left_out} left out, stopped for good; name them to export them", file=sys.stderr)
    return OK


def _definition(record: JobRecord) -> dict[str, Any]:
    """As it stands: paused where the job is, whatever it was when it was added."""
    data = job_to_data(record.job)
    data.pop("paused", None)
    return data | ({"paused": True} if record.state is JobState.PAUSED else {})


def written(jobs: Mapping[str, Mapping[str, Any]], form: Form) -> str:
    """The text of a file with these jobs."""
    if form == "json":
        return json.dumps({"jobs": jobs}, ensure_ascii=False, indent=2, default=iso) + "\n"
    try:
        return "\n".join(tables("jobs", jobs)) + "\n"
    except NoWord as error:
        raise CommandError(f"{error}, and a job has it among its arguments; use --format json") from error


# ---- import


@frozen
class _Change:
    """What an import would do with a job."""

    name: str
    does: str
    """`add`, `change`, `same` or `declared`."""
    job: Job


def add_import(add: AddCommand) -> None:
    """`clepsydra import`."""
    command = add_store_command(
        add,
        "import",
        _import,
        "add the jobs of a TOML or JSON file, or change those that are there",
        "Jobs that the file does not name stay as they are. Those that code declares are never changed.",
    )
    command.add_argument("file", metavar="FILE", help="- is standard input")
    command.add_argument("--format", choices=_FORMS, help="default: what the file's name ends with, else toml")
    command.add_argument("--dry-run", action="store_true", help="only say what would change")
    command.add_argument("--any-task", action="store_true", help="also jobs whose task no scheduler has registered yet")
    add_yes(command)


def _import(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    jobs = read(arguments.file, _form(arguments, "toml"))
    known = {record.name: record for record in operator.all_jobs(JobFilter(names=[job.name for job in jobs]))}
    changes = [_change(job, known.get(job.name)) for job in jobs]
    wanted = [change for change in changes if change.does in ("add", "change")]
    replaced = sum(change.does == "change" for change in changes)
    if not arguments.dry_run:
        if replaced:
            confirm(f"change {plural(replaced, 'job')} ({_names(changes, 'change')})", arguments)
        try:
            operator.add_jobs([change.job for change in wanted], check_task=not arguments.any_task)
        except (UnknownTask, InvalidArgument) as error:
            raise CommandError(f"{error}; --any-task adds it all the same, nothing was changed") from error
        except ScheduleError as error:
            raise CommandError(f"{error}; nothing was changed") from error
    if screen.as_json:
        document: dict[str, Any] = {
            said: [change.name for change in changes if change.does == does] for does, (said, _) in _WORDS.items()
        }
        screen.document(document | {"done": not arguments.dry_run})
        return OK
    tense = 1 if arguments.dry_run else 0
    rows = [[change.name, _WORDS[change.does][tense]] for change in changes if change.does != "same"]
    same = len(changes) - len(rows)
    screen.lines(
        [
            *(screen.table((Column("JOB", least=10), Column("")), rows) if rows else []),
            *([f"{plural(same, 'job')} {_WORDS['same'][tense]}"] if same or not changes else []),
        ]
    )
    return OK


_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "add": ("added", "would be added"),
    "change": ("changed", "would be changed"),
    "same": ("unchanged", "like this already"),
    "declared": ("declared by code, left alone", "is declared by code, and would be left alone"),
}


def _change(job: Job, record: JobRecord | None) -> _Change:
    if record is None:
        return _Change(job.name, "add", job)
    if job_from_data(job.name, _definition(record)) == job and record.state is not JobState.STOPPED:
        return _Change(job.name, "same", job)
    return _Change(job.name, "declared" if record.declared else "change", job)


def _names(changes: Iterable[_Change], does: str) -> str:
    names = [repr(change.name) for change in changes if change.does == does]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def read(path: str, form: Form) -> Sequence[Job]:
    """The jobs of a file. Raises `UsageError` with the file, the place in it, and what would be right."""
    shown = "standard input" if path == _STDIN else repr(path)
    try:
        data = sys.stdin.buffer.read() if path == _STDIN else Path(path).read_bytes()
        parsed: Any = json.loads(data) if form == "json" else tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{shown} is no {form.upper()}: {error}") from error
    jobs = parsed.get("jobs") if _is_table(parsed) else None
    if not _is_table(jobs):
        raise UsageError(
            f"{shown} has no jobs; write a table for each, such as [jobs.feeds] with task = 'feeds.refresh'"
        )
    try:
        return [job_from_data(name, said, f"jobs.{name}") for name, said in jobs.items()]
    except ClepsydraError as error:
        raise UsageError(f"{shown}: {error}") from error


def _is_table(said: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(said, dict)


def _form(arguments: argparse.Namespace, otherwise: Form) -> Form:
    """What is said; or what the name of the file says."""
    if arguments.format:
        form: Form = arguments.format
        return form
    path = vars(arguments).get("file") or vars(arguments).get("output") or ""
    ending = os.path.splitext(path)[1].removeprefix(".")
    if ending in _FORMS:
        return "json" if ending == "json" else "toml"
    return otherwise
