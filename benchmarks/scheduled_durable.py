"""How late are jobs with durable books that are all due at one instant, and when is all of it recorded?

Claim: 10,000 recurring no-op jobs due at one instant are fired, started and finished on SQLite (synchronous FULL) and
on PostgreSQL (synchronous commit on) many times sooner than by either APScheduler, though each has a verdict, a start
that is durable before the task's first line, an outcome and a history, which they do not keep. The bare loop does the
same with plain rows and the driver alone: a run is claimed with its verdict, and its job's cursor moved, in the
transaction that finishes the batch before, once in batches of 64 and once in large ones.

    python benchmarks/scheduled_durable.py [--size 10000] [--rounds 5] [--group PostgreSQL]
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import anyio
import bare_loops
import databases
import peers
import side_by_side
from contenders import Contender, Measure, peer
from ledger import audited

from clepsydra import Cron, Job, PostgresStorage, Scheduler, SQLiteStorage, State, Storage
from clepsydra import ExecutionFilter as Where

LOOK = 0.002
"""Seconds between two looks at what is not finished yet."""


def figures(starts: list[float], due: float, done: float, used: float) -> Mapping[str, float]:
    """Milliseconds after the instant."""
    late = sorted((start - due) * 1000 for start in starts)
    return {
        "first start, ms": late[0],
        "median start, ms": late[len(late) // 2],
        "last start, ms": late[-1],
        "all recorded, ms": (done - due) * 1000,
        "CPU of the process, microseconds a run": used / len(late) * 1e6,
    }


async def ours(storage: Storage, size: int) -> Mapping[str, float]:
    """All defaults."""
    scheduler, starts, reached = Scheduler(storage), list[float](), anyio.Event()

    @scheduler.task(name="noop")
    async def noop() -> None:
        starts.append(time.time())
        if len(starts) == size:
            reached.set()

    async with scheduler:
        due = math.ceil(time.time() + 3 + size / 1000)
        at = datetime.fromtimestamp(due, UTC)
        schedule = Cron(f"{at.second} {at.minute} {at.hour} * * *")
        await scheduler.add_jobs(Job(f"job {number}", noop, schedule) for number in range(size))
        if time.time() > due:
            raise SystemExit(f"the jobs were due before all {size} were added")
        await anyio.sleep(due - 0.1 - time.time())
        used = time.process_time()
        await reached.wait()
        while any((await scheduler.stats(Where(states=[State.PENDING, State.RUNNING]))).values()):  # noqa: ASYNC110 (the store is asked)
            await anyio.sleep(LOOK)
        done, used = time.time(), time.process_time() - used
    audited(storage, at_least=size)
    return figures(starts, due, done, used)


def ours_on_sqlite(size: int) -> Mapping[str, float]:
    """All defaults: synchronous FULL among them."""
    with databases.sqlite_file() as path:
        return anyio.run(ours, SQLiteStorage(path), size)


def ours_on_postgres(size: int) -> Mapping[str, float]:
    """All defaults."""
    with databases.postgres_database() as dsn:
        return anyio.run(ours, PostgresStorage(dsn), size)


def of_peer(store: str, name: str, size: int) -> Mapping[str, float]:
    """In its own environment."""
    with databases.sqlite_file() if store == "SQLite" else databases.postgres_database() as place:
        numbers: Mapping[str, float] = peers.measured(name, "scheduled", size, place)
        return numbers


async def bare(tables: bare_loops.Tables, batch: int, size: int) -> Mapping[str, float]:
    """As soon as the instant has come."""
    starts: list[float] = []
    for start in range(0, size, 1000):
        tables.add_jobs(range(start, min(start + 1000, size)))
    due = math.ceil(time.time() + 0.5)
    await anyio.sleep(due - time.time())
    used = time.process_time()
    await bare_loops.fire_all(tables, size, due, batch, lambda: starts.append(time.time()))
    return figures(starts, due, time.time(), time.process_time() - used)


def bare_on_sqlite(batch: int, size: int) -> Mapping[str, float]:
    """The standard library's driver, synchronous FULL."""
    with databases.sqlite_file() as path, bare_loops.OnSQLite(path) as tables:
        return anyio.run(bare, tables, batch, size)


def bare_on_postgres(batch: int, size: int) -> Mapping[str, float]:
    """psycopg, synchronous commit on."""
    with databases.postgres_database() as dsn, bare_loops.OnPostgres(dsn) as tables:
        return anyio.run(bare, tables, batch, size)


def apschedulers(store: str) -> Mapping[str, Contender]:
    """On a store."""
    return {
        name: peer(partial(of_peer, store, key), key, peers.configured(key))
        for name, key in (("APScheduler 3.11", "apscheduler3"), ("APScheduler 4", "apscheduler4"))
    }


CONTENDERS: Mapping[str, Mapping[str, Measure]] = {
    "SQLite": {
        "clepsydra": ours_on_sqlite,
        **apschedulers("SQLite"),
        "bare loop, batches of 1000": partial(bare_on_sqlite, 1000),
        "bare loop, batches of 64": partial(bare_on_sqlite, 64),
    },
    "PostgreSQL": {
        "clepsydra": ours_on_postgres,
        **apschedulers("PostgreSQL"),
        "bare loop, batches of 1000": partial(bare_on_postgres, 1000),
        "bare loop, batches of 64": partial(bare_on_postgres, 64),
    },
}

if __name__ == "__main__":
    side_by_side.groups(
        "recurring no-op jobs due at one instant, durable: every commit is synced",
        CONTENDERS,
        size=10_000,
        around={"PostgreSQL": databases.postgres_server},
    )
