"""`clepsydra prune`, `migrate`: keeping a store small, and its tables up to date."""

from __future__ import annotations

import argparse
from typing import Any

from .. import ExecutionFilter, Operator, SystemClock, migrate_store, to_instant
from .arguments import AddCommand, add_command
from .errors import OK, PROBLEM, UsageError
from .screen import Screen, confirm, iso
from .stores import StoreFailed, add_store, add_store_command, add_yes, storage_of, url_of
from .times import moment_of
from .words import plural

# ---- prune


def add_prune(add: AddCommand) -> None:
    """`clepsydra prune`."""
    command = add_store_command(
        add,
        "prune",
        _prune,
        "delete the history of what ended before a moment",
        "What has not ended stays. A scheduler does the like by itself, by its retention.",
    )
    command.add_argument("--before", metavar="TIME", required=True, help="30d (so long ago), 2027-03-28, yesterday")
    command.add_argument("--dry-run", action="store_true", help="only say how much that is")
    add_yes(command)


def _prune(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    before = moment_of(arguments.before, screen, "--before")
    if to_instant(before) > screen.now:
        raise UsageError(f"--before {arguments.before!r} is to come; give a moment that has passed, such as 30d")
    count = operator.count_executions(ExecutionFilter(states="finished", finished=(None, before)))
    what = f"{plural(count, 'execution')} that ended before {screen.moment(to_instant(before))}"
    if arguments.dry_run:
        _tell(screen, {"before": iso(before), "executions": count, "deleted": False}, f"would delete {what}")
        return OK
    confirm(f"delete {what}", arguments)
    deleted = operator.prune(before)
    document = {
        "before": iso(before),
        "executions": deleted.executions,
        "ranges": deleted.ranges,
        "jobs": deleted.jobs,
        "deleted": True,
    }
    others = f"{plural(deleted.ranges, 'range')} of times and {plural(deleted.jobs, 'removed job')}"
    _tell(screen, document, f"deleted {plural(deleted.executions, 'execution')}, {others}")
    return OK


def _tell(screen: Screen, document: dict[str, Any], line: str) -> None:
    if screen.as_json:
        screen.document(document)
    else:
        print(line)


# ---- migrate


def add_migrate(add: AddCommand) -> None:
    """`clepsydra migrate`."""
    command = add_command(
        add,
        "migrate",
        _migrate,
        "bring a store's tables up to date, or make them",
        "A scheduler does it when it is entered; this is for doing it before, or by a role that may.",
    )
    add_store(command)
    command.add_argument("--create", action="store_true", help="make the store where there is none")
    command.add_argument("--check", action="store_true", help="change nothing; end with 1 if there is something to do")
    command.add_argument("--sql", action="store_true", help="print what an administrator of PostgreSQL would run")


def _migrate(arguments: argparse.Namespace) -> int:
    screen = Screen(arguments, SystemClock().now())
    storage = storage_of(arguments)
    told = migrate_store(storage, dry_run=True)
    if arguments.sql:
        if not url_of(arguments).startswith("postgres"):
            raise UsageError("--sql is for postgresql:// stores; a file is migrated without an administrator")
        from .. import PostgresStorage  # an extra, which is there if such a store is

        assert isinstance(storage, PostgresStorage)
        print(storage.migration(storage.settings.schema, told.found) if told.needed else "-- nothing to do")
        return OK
    if not arguments.check:
        if not told.found and not arguments.create:
            raise StoreFailed(f"there is no store at {storage!r}; give --create to make one")
        migrate_store(storage)
    document = {"found": told.found, "version": told.version, "needed": told.needed, "done": not arguments.check}
    _tell(screen, document, _in_words(told.found, told.version, arguments.check))
    return PROBLEM if arguments.check and told.needed else OK


def _in_words(found: int, version: int, check: bool) -> str:
    if found == version:
        return f"schema version {version}: up to date"
    if not found:
        return "there is no store yet" if check else f"made, with schema version {version}"
    return f"schema version {found}, {'to be' if check else 'was'} migrated to {version}"
