"""How many durable no-op executions are enqueued and run in a second?

Claim: with every commit synced to disk, ledger, fences and history on, one process runs many times more executions a
second than procrastinate, SAQ, oban-py and both APSchedulers, and than huey on SQLite. With as many slots as pgqueuer
has jobs in a batch it runs more than that, too; with the default of 64 it claims ahead of them to that end. The bare
loop claims and finishes rows of one plain table with the driver alone and awaits the tasks in place, once in the
batches that we use and once in large ones. Each peer is configured to its best, as its program in `peer_programs/`
says; those that run hundreds a second run a part of the size.

    python benchmarks/drain.py [--size 100000] [--rounds 5] [--group PostgreSQL]
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import bare_loops
import databases
import peers
import side_by_side
from contenders import Bar, Contender, Measure, peer
from ledger import audited

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


async def drained(storage: Storage, size: int, stages: Stages | None = None) -> Mapping[str, float]:
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
        async with Scheduler(storage, stages=stages or Stages(), tasks=[counter.noop, hold_nothing]):
            await counter.reached.wait()
    numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / counter.wanted * 1e6
    audited(storage, at_least=counter.wanted)
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


def ours_on_postgres_with_many_slots(size: int) -> Mapping[str, float]:
    """1,000 slots, so that as many runs share a commit as with pgqueuer; all other defaults."""
    stages = Stages(executor=ExecutorSettings(concurrency=1000))
    with databases.postgres_database() as dsn:
        return anyio.run(drained, PostgresStorage(dsn), size, stages)


def ours_on_sqlite(size: int) -> Mapping[str, float]:
    """All defaults: synchronous FULL among them."""
    with databases.sqlite_file() as path:
        return anyio.run(drained, SQLiteStorage(path), size)


def on_postgres(name: str) -> Contender:
    """One of the peers."""
    return peer(partial(peer_on_postgres, name), name, peers.configured(name))


def peer_on_postgres(name: str, size: int) -> Mapping[str, float]:
    """In its own environment."""
    with databases.postgres_database() as dsn:
        numbers: Mapping[str, float] = peers.measured(name, "drain", size, dsn)
        return numbers


def on_sqlite(name: str) -> Contender:
    """One of the peers."""
    return peer(partial(peer_on_sqlite, name), name, peers.configured(name))


def peer_on_sqlite(name: str, size: int) -> Mapping[str, float]:
    """In its own environment."""
    with databases.sqlite_file() as path:
        numbers: Mapping[str, float] = peers.measured(name, "drain", size, path)
        return numbers


async def bare(tables: bare_loops.Tables, batch: int, size: int) -> Mapping[str, float]:
    """Enqueue in bulk, and run all of it."""
    numbers: dict[str, float] = {}
    with timed(numbers, "enqueued in bulk, per second", size):
        for start in range(0, size, AT_ONCE):
            tables.enqueue(range(start, min(start + AT_ONCE, size)))
    used = time.process_time()
    with timed(numbers, "run and recorded, per second", size):
        ran = await bare_loops.drain(tables, batch)
    numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / size * 1e6
    assert ran == size
    return numbers


def bare_on_sqlite(batch: int, size: int) -> Mapping[str, float]:
    """The standard library's driver, synchronous FULL."""
    with databases.sqlite_file() as path, bare_loops.OnSQLite(path) as tables:
        return anyio.run(bare, tables, batch, size)


def bare_on_postgres(batch: int, size: int) -> Mapping[str, float]:
    """psycopg, synchronous commit on."""
    with databases.postgres_database() as dsn, bare_loops.OnPostgres(dsn) as tables:
        return anyio.run(bare, tables, batch, size)


CONTENDERS: Mapping[str, Mapping[str, Measure]] = {
    "SQLite": {
        "clepsydra": ours_on_sqlite,
        "huey": on_sqlite("huey"),
        "APScheduler 3.11": on_sqlite("apscheduler3"),
        "APScheduler 4": on_sqlite("apscheduler4"),
        "bare loop, batches of 1000": partial(bare_on_sqlite, 1000),
        "bare loop, batches of 64": partial(bare_on_sqlite, 64),
    },
    "PostgreSQL": {
        "clepsydra": ours_on_postgres,
        "clepsydra, 1000 slots": ours_on_postgres_with_many_slots,
        "pgqueuer": on_postgres("pgqueuer"),
        "procrastinate": on_postgres("procrastinate"),
        "SAQ": on_postgres("saq"),
        "oban-py": on_postgres("oban"),
        "APScheduler 3.11": on_postgres("apscheduler3"),
        "APScheduler 4": on_postgres("apscheduler4"),
        "bare loop, batches of 1000": partial(bare_on_postgres, 1000),
        "bare loop, batches of 64": partial(bare_on_postgres, 64),
    },
}

RUN, IN_BULK, SINGLY = "run and recorded, per second", "enqueued in bulk, per second", "enqueued one by one, per second"
TOGETHER = f"enqueued by {CALLERS} callers, per second"
BARS = [
    Bar(measure=RUN, at_least=1.5, beside="pgqueuer", group="PostgreSQL"),
    Bar(measure=RUN, at_least=1.5, beside="pgqueuer", group="PostgreSQL", of="clepsydra, 1000 slots"),
    Bar(measure=RUN, at_least=50, beside="procrastinate", group="PostgreSQL"),
    Bar(measure=RUN, at_least=0.4, beside="bare loop, batches of 1000", group="PostgreSQL"),
    Bar(measure=RUN, at_least=0.4, beside="bare loop, batches of 1000", group="SQLite"),
    Bar(measure=RUN, at_least=10, beside="huey", group="SQLite"),
    Bar(measure=IN_BULK, at_least=0.8, beside="pgqueuer", group="PostgreSQL"),
    Bar(measure=TOGETHER, at_least=10, than=SINGLY),
]

if __name__ == "__main__":
    side_by_side.groups(
        "no-op executions, durable: every commit is synced",
        CONTENDERS,
        size=100_000,
        around={"PostgreSQL": databases.postgres_server},
        bars=BARS,
        plotted=(IN_BULK, SINGLY, TOGETHER, RUN),
    )
