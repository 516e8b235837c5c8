"""How many durable no-op executions are enqueued and run in a second?

Claim: with every commit synced to disk, ledger, fences and history on, one process runs many times more executions a
second than procrastinate on PostgreSQL and than huey on SQLite. Than pgqueuer, whose batches are 15 times as large, it
does not run more yet. The bare loop claims and finishes rows of one plain table with the driver alone, once in the
batches that we use and once in large ones: no attempts, leases, verdicts, retries, events or results.

    python benchmarks/drain.py [--size 10000] [--rounds 5] [--group PostgreSQL]
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial

import anyio
import databases
import peers
import psycopg
import side_by_side

from clepsydra import Call, ExecutorSettings, PostgresStorage, Scheduler, SQLiteStorage, Stages, Storage, Task

AT_ONCE = 1000
"""Calls in one bulk enqueue, ours and the peers'."""
CALLERS = 100


class Counter:
    """No-op tasks, counted."""

    def __init__(self) -> None:
        self.ran = 0
        self.wanted = 0
        self.reached = anyio.Event()
        self.noop = Task(self._noop, "noop")

    async def _noop(self) -> None:
        self.ran += 1
        if self.ran == self.wanted:
            self.reached.set()


async def drained(storage: Storage, size: int) -> Mapping[str, float]:
    """Enqueue in three ways, then run all of it."""
    numbers: dict[str, float] = {}
    counter, singly, together = Counter(), max(1, size // 20), max(1, size // 10)
    call = counter.noop.call()
    async with that_does_not_run(storage, counter) as scheduler:
        with timed(numbers, "enqueued in bulk, per second", size):
            for start in range(0, size, AT_ONCE):
                await scheduler.enqueue([call] * min(AT_ONCE, size - start))
        with timed(numbers, "enqueued one by one, per second", singly):
            await enqueue_singly(scheduler, call, singly)
        with timed(numbers, f"enqueued by {CALLERS} callers, per second", together):
            async with anyio.create_task_group() as callers:
                for number in range(CALLERS):
                    mine = len(range(number, together, CALLERS))
                    callers.start_soon(enqueue_singly, scheduler, call, mine)
    counter.wanted = size + singly + together
    used = time.process_time()
    with timed(numbers, "run and recorded, per second", counter.wanted):
        async with Scheduler(storage, tasks=[counter.noop, hold_nothing]):
            await counter.reached.wait()
    numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / counter.wanted * 1e6
    return numbers


async def enqueue_singly(scheduler: Scheduler, call: Call, size: int) -> None:
    """One after another, each durable before the next."""
    for _ in range(size):
        await scheduler.enqueue(call)


@asynccontextmanager
async def that_does_not_run(storage: Storage, counter: Counter) -> AsyncGenerator[Scheduler]:
    """A scheduler that only takes work: its one slot is held."""
    holds = anyio.Event()

    async def hold() -> None:
        holds.set()
        await anyio.sleep_forever()

    stages = Stages(executor=ExecutorSettings(limit=1), grace=0)
    held = Task(hold, "hold")
    async with Scheduler(storage, stages=stages, tasks=[counter.noop, held]) as scheduler:
        await scheduler.enqueue(held.call(), queue="held")
        await holds.wait()
        yield scheduler
    assert counter.ran == 0


async def _hold_nothing() -> None: ...


hold_nothing = Task(_hold_nothing, "hold")
"""What was cut off is run again where the work is done: it is over at once there."""


@contextmanager
def timed(numbers: dict[str, float], measure: str, size: int) -> Generator[None]:
    """Note how many a second were done of so many."""
    began = time.perf_counter()
    yield
    numbers[measure] = size / (time.perf_counter() - began)


def ours_on_postgres(size: int) -> Mapping[str, float]:
    """All defaults."""
    with databases.postgres_database() as dsn:
        return anyio.run(drained, PostgresStorage(dsn), size)


def ours_on_sqlite(size: int) -> Mapping[str, float]:
    """All defaults: synchronous FULL among them."""
    with databases.sqlite_file() as path:
        return anyio.run(drained, SQLiteStorage(path), size)


def peer_on_postgres(name: str, size: int) -> Mapping[str, float]:
    """One of the peers."""
    with databases.postgres_database() as dsn:
        numbers: Mapping[str, float] = peers.measured(name, "drain", size, dsn)
        return numbers


def huey(size: int) -> Mapping[str, float]:
    """With fsync."""
    with databases.sqlite_file() as path:
        numbers: Mapping[str, float] = peers.measured("huey", "drain", size, path)
        return numbers


# ---- the bare loops

_TABLE = """
CREATE TABLE work (id INTEGER PRIMARY KEY, task TEXT, args TEXT, state TEXT, node TEXT, started BIGINT, ended BIGINT);
CREATE INDEX ready ON work (id) WHERE state = 'pending';"""


def bare_postgres(batch: int, size: int) -> Mapping[str, float]:
    """Psycopg: what is finished and what is claimed next in one transaction, three round trips."""
    numbers: dict[str, float] = {}
    claim = (
        "UPDATE work SET state = 'running', node = 'here', started = %s WHERE id IN (SELECT id FROM work "
        "WHERE state = 'pending' ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id, task, args"
    )
    finish = "UPDATE work SET state = 'succeeded', ended = %s WHERE id = ANY (%s::int[]) AND state = 'running'"
    rows = "INSERT INTO work SELECT unnest(%s::int[]), 'noop', '{}', 'pending'"
    with databases.postgres_database() as dsn, psycopg.connect(dsn) as connection:
        connection.execute(_TABLE.encode())
        connection.commit()
        with timed(numbers, "enqueued in bulk, per second", size):
            for start in range(0, size, AT_ONCE):
                connection.execute(rows, (list(range(start, min(start + AT_ONCE, size))),))
                connection.commit()
        ran, claimed = 0, [-1]
        with timed(numbers, "run and recorded, per second", size):
            while claimed:
                connection.execute(finish, (time.time_ns(), claimed))
                claimed = [row[0] for row in connection.execute(claim, (time.time_ns(), batch)).fetchall()]
                connection.commit()
                ran += len(claimed)
        assert ran == size
    return numbers


def bare_sqlite(batch: int, size: int) -> Mapping[str, float]:
    """The standard library's driver, write-ahead log, synchronous FULL, each batch one transaction."""
    numbers: dict[str, float] = {}
    claim = (
        "UPDATE work SET state = 'running', node = 'here', started = ? WHERE id IN (SELECT id FROM work "
        "WHERE state = 'pending' ORDER BY id LIMIT ?) RETURNING id, task, args"
    )
    finish = "UPDATE work SET state = 'succeeded', ended = ? WHERE id = ? AND state = 'running'"
    with databases.sqlite_file() as path, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_TABLE)
        with timed(numbers, "enqueued in bulk, per second", size):
            for start in range(0, size, AT_ONCE):
                rows = [(number, "noop", "{}", "pending") for number in range(start, min(start + AT_ONCE, size))]
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO work (id, task, args, state) VALUES (?, ?, ?, ?)", rows)
                connection.execute("COMMIT")
        ran, claimed = 0, [-1]
        with timed(numbers, "run and recorded, per second", size):
            while claimed:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(finish, [(time.time_ns(), number) for number in claimed])
                claimed = [row[0] for row in connection.execute(claim, (time.time_ns(), batch)).fetchall()]
                connection.execute("COMMIT")
                ran += len(claimed)
        assert ran == size
    return numbers


CONTENDERS = {
    "SQLite": {
        "clepsydra": ours_on_sqlite,
        "huey": huey,
        "bare loop, batches of 64": partial(bare_sqlite, 64),
        "bare loop, batches of 1000": partial(bare_sqlite, 1000),
    },
    "PostgreSQL": {
        "clepsydra": ours_on_postgres,
        "pgqueuer": partial(peer_on_postgres, "pgqueuer"),
        "procrastinate": partial(peer_on_postgres, "procrastinate"),
        "bare loop, batches of 64": partial(bare_postgres, 64),
        "bare loop, batches of 1000": partial(bare_postgres, 1000),
    },
}

if __name__ == "__main__":
    side_by_side.groups(
        "no-op executions, durable: every commit is synced",
        CONTENDERS,
        size=10_000,
        around={"PostgreSQL": databases.postgres_server},
    )
