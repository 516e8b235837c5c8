"""Stores with a long past: jobs that have run so many times, as the library would have written it, in bulk SQL.

The jobs are added with a clock that stands in the past, so that they have a life there; then every time of theirs gets
its finished execution, and their cursors are moved to the last. What `verify` says of such a store is what it says of
one that has lived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from attrs import frozen

from clepsydra import Every, Job, Scheduler, Storage, Task
from clepsydra.testing import VirtualClock

PERIOD = 2
"""Seconds from one time of a job to the next."""
AT_ONCE = 200
"""Times of all jobs that are written in one transaction."""

_COLUMNS = (
    "id, attempt_id, task, cause, created_at, due_at, not_before, nominal, first_started_at, started_at, finished_at, "
    'state, verdict, generation, node, job_id, job_name, "open"'
)
_VALUES = """
    {id}, {id}, 'noop', 'schedule', {at}, {at}, {at}, {at}, {at} + 900, {at} + 900, {at} + 1400,
    'succeeded', 'fired', 1, '00000000-0000-7000-8000-000000000000', jobs.id, jobs.name, 0"""
_AT = f"(jobs.anchor + {PERIOD * 1_000_000} * time)"
_MS = f"({_AT} / 1000)"


@frozen
class Past:
    """So many jobs, all due at the same times, and how often each of them has run."""

    jobs: int
    times: int

    @property
    def began(self) -> datetime:
        """So that the last time lies a few seconds back."""
        return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=PERIOD * self.times + 5)


async def add(storage: Storage, noop: Task[[], Any], past: Past) -> None:
    """The jobs, in the past."""
    async with Scheduler(storage, tasks=[noop], clock=VirtualClock(past.began)) as scheduler:
        await scheduler.add_jobs(Job(f"job {number}", noop, Every(PERIOD)) for number in range(past.jobs))


def on_sqlite(path: str, past: Past) -> None:
    """Write their runs."""
    made = f"printf('%08x-%04x-7%03x-8000-%012x', {_MS} >> 16, {_MS} & 65535, jobs.rowid % 4096, jobs.rowid)"
    runs = (
        f"INSERT INTO executions ({_COLUMNS}) WITH RECURSIVE times (time) AS "
        "(VALUES (?) UNION ALL SELECT time + 1 FROM times WHERE time < ?) "
        f"SELECT {_VALUES.format(id=made, at=_AT)} FROM times CROSS JOIN jobs"
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # of this connection alone
        for first, last in _portions(past.times):
            connection.execute(runs, (first, last))
        connection.execute(f"UPDATE jobs SET cursor = anchor + {PERIOD * 1_000_000} * ?, fired = ?", (past.times,) * 2)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def on_postgres(dsn: str, past: Past) -> None:
    """Write their runs."""
    made = (
        f"lpad(to_hex({_MS} >> 16), 8, '0') || '-' || lpad(to_hex({_MS} & 65535), 4, '0') || '-7' || "
        "lpad(to_hex(mod(number, 4096)), 3, '0') || '-8000-' || lpad(to_hex(number), 12, '0')"
    )
    runs = (
        f"INSERT INTO executions ({_COLUMNS}) SELECT {_VALUES.format(id=made, at=_AT)} "
        "FROM generate_series(%s::bigint, %s) time, (SELECT *, row_number() OVER (ORDER BY id) number FROM jobs) jobs"
    )
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=clepsydra") as connection:
        connection.execute("SET synchronous_commit = off")  # of this connection alone
        for first, last in _portions(past.times):
            connection.execute(runs.encode(), (first, last))
        moved = f"UPDATE jobs SET cursor = anchor + {PERIOD * 1_000_000} * %s::bigint, fired = %s"
        connection.execute(moved.encode(), (past.times, past.times))
        # As autovacuum would have done while such a past went by.
        statements: Sequence[Any] = (b"VACUUM ANALYZE executions", b"VACUUM ANALYZE jobs", b"CHECKPOINT")
        for statement in statements:
            connection.execute(statement)


def _portions(times: int) -> list[tuple[int, int]]:
    return [(first, min(first + AT_ONCE - 1, times)) for first in range(1, times + 1, AT_ONCE)]
