"""How soon does work start that is enqueued while little goes on?

Claim: at low load, one call in 20 ms or so, a task's first line is reached much sooner after its durable enqueue than
with huey on SQLite; its start is committed before. On PostgreSQL it is not sooner than with procrastinate and pgqueuer.
Counted from the call of enqueue, and from its return: what starts before its enqueue has returned counts less than
nothing. "elsewhere" is work that another process enqueues, so that all depends on how it is noticed.

    python benchmarks/pick_up.py [--size 300] [--rounds 5] [--group PostgreSQL]
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import databases
import peers
import psycopg
import side_by_side

from clepsydra import PostgresStorage, Scheduler, SQLiteStorage, Storage, Task

PAUSE = 0.02
"""Seconds between the start of one and the next call."""
SETTLE = 1.0

Late = Sequence[Sequence[float]]


def percentiles(late: Late) -> Mapping[str, float]:
    """Of pairs of seconds: from the call, and from its return."""
    numbers: dict[str, float] = {}
    for side, since in enumerate(("the call", "its return")):
        sides = sorted(1000 * one[side] for one in late)
        numbers[f"from {since}, p50 ms"] = sides[len(sides) // 2]
        numbers[f"from {since}, p99 ms"] = sides[min(len(sides) - 1, len(sides) * 99 // 100)]
    return numbers


class Starts:
    """A task that says when it has begun."""

    def __init__(self) -> None:
        self._began = anyio.Event()
        self._at = 0.0
        self.noop = Task(self._noop, "noop")

    async def _noop(self) -> None:
        self._at = time.perf_counter()
        self._began.set()

    async def after(self, enqueue: Callable[[], Awaitable[object]], size: int) -> Mapping[str, float]:
        """Enqueue one after another."""
        late: list[tuple[float, float]] = []
        await anyio.sleep(SETTLE)
        for _ in range(size):
            self._began = anyio.Event()
            called = time.perf_counter()
            await enqueue()
            returned = time.perf_counter()
            await self._began.wait()
            late.append((self._at - called, self._at - returned))
            await anyio.sleep(PAUSE)
        return percentiles(late)


async def here(storage: Storage, size: int) -> Mapping[str, float]:
    """Enqueued by the process that runs it."""
    starts = Starts()
    async with Scheduler(storage, tasks=[starts.noop]) as scheduler:
        return await starts.after(lambda: scheduler.enqueue(starts.noop.call()), size)


async def elsewhere(storage: Storage, same: Storage, connect: Callable[[], Any], size: int) -> Mapping[str, float]:
    """Enqueued by a scheduler that does not run, on a connection of its own; as another process does it."""
    starts = Starts()
    other = Scheduler(same, tasks=[starts.noop])

    def enqueue(connection: Any) -> None:
        other.enqueue_in(connection, starts.noop.call())
        connection.commit()

    async with Scheduler(storage, tasks=[starts.noop]):
        connection = connect()
        try:
            return await starts.after(lambda: anyio.to_thread.run_sync(enqueue, connection), size)
        finally:
            connection.close()


def ours_on_postgres(size: int) -> Mapping[str, float]:
    """All defaults."""
    with databases.postgres_database() as dsn:
        return anyio.run(here, PostgresStorage(dsn), size)


def ours_on_postgres_elsewhere(size: int) -> Mapping[str, float]:
    """All defaults."""
    with databases.postgres_database() as dsn:
        connect = partial(psycopg.connect, dsn)
        return anyio.run(elsewhere, PostgresStorage(dsn), PostgresStorage(dsn), connect, size)


def ours_on_sqlite(size: int) -> Mapping[str, float]:
    """All defaults: synchronous FULL among them."""
    with databases.sqlite_file() as path:
        return anyio.run(here, SQLiteStorage(path), size)


def ours_on_sqlite_elsewhere(size: int) -> Mapping[str, float]:
    """All defaults; a tenth of the size, because it waits for the poll."""
    with databases.sqlite_file() as path:
        connect = partial(sqlite3.connect, path, check_same_thread=False)
        return anyio.run(elsewhere, SQLiteStorage(path), SQLiteStorage(path), connect, max(1, size // 10))


def on_postgres(name: str, size: int) -> Mapping[str, float]:
    """One of the peers."""
    with databases.postgres_database() as dsn:
        return percentiles(peers.measured(name, "pick_up", size, dsn))


def huey(size: int) -> Mapping[str, float]:
    """It polls."""
    with databases.sqlite_file() as path:
        return percentiles(peers.measured("huey", "pick_up", size, path))


CONTENDERS = {
    "SQLite": {"clepsydra": ours_on_sqlite, "clepsydra, elsewhere": ours_on_sqlite_elsewhere, "huey": huey},
    "PostgreSQL": {
        "clepsydra": ours_on_postgres,
        "clepsydra, elsewhere": ours_on_postgres_elsewhere,
        "pgqueuer": partial(on_postgres, "pgqueuer"),
        "procrastinate": partial(on_postgres, "procrastinate"),
    },
}

if __name__ == "__main__":
    side_by_side.groups(
        "from enqueue to the task's first line, durable, at low load",
        CONTENDERS,
        size=300,
        around={"PostgreSQL": databases.postgres_server},
    )
