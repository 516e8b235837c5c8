"""How soon does work start that is enqueued while little goes on?

Claim: at low load, one call in 20 ms or so, a task's first line is reached sooner after its durable enqueue than with
huey or either APScheduler on SQLite, and than with pgqueuer, procrastinate, SAQ, oban-py or either APScheduler on
PostgreSQL; its start is in the store before, which another connection sees in that line. Counted from the call of
enqueue, and from its return: what starts before its enqueue has returned counts less than nothing. "elsewhere" is work
that another process enqueues, so that all depends on how it is noticed. The bare loop commits twice, once to enqueue
and once to claim, which ours does at once; one commit alone, and a NOTIFY from one connection to another, say what no
program can be faster than. The peers run as their programs in `peer_programs/` say.

The size is the number of calls of ours and of the bare loop. The others, of which only the median is compared, are
asked a part of it, so that all of it takes a minute and a half a round: their 99th percentile is that of few calls.

    python benchmarks/pick_up.py [--size 200] [--rounds 5] [--group PostgreSQL]
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

import anyio
import bare_loops
import databases
import peers
import psycopg
import side_by_side
from contenders import Bar, Contender, Measure, peer
from ledger import audited

from clepsydra import PostgresStorage, Scheduler, SQLiteStorage, Storage, Task, current_execution

PAUSE = 0.02
"""Seconds between the start of one and the next call."""
SETTLE = 0.5
PART = 5
"""Of those of whom only the median is compared, one call in so many: some look only ten times in a second."""
FEW = 25
"""The same of those that look once in a second."""

DURABLE = "starts in the store before the first line, percent"

Late = Sequence[Sequence[float]]
Look = Callable[[str], object]
"""The state of an execution, as another connection sees it."""


def percentiles(late: Late) -> Mapping[str, float]:
    """Of pairs of seconds, from the call and from its return; or of the first alone."""
    numbers: dict[str, float] = {}
    for side, since in enumerate(("the call", "its return")[: len(late[0])]):
        sides = sorted(1000 * one[side] for one in late)
        numbers[f"from {since}, p50 ms"] = sides[len(sides) // 2]
        numbers[f"from {since}, p99 ms"] = sides[min(len(sides) - 1, len(sides) * 99 // 100)]
    return numbers


def part(size: int, of: int = PART) -> int:
    """One in so many, and at least one."""
    return max(1, size // of)


class Starts:
    """A task that says when it has begun, and then sees in the store, from outside, whether its start is there."""

    def __init__(self, state_of: Callable[[str], object]) -> None:
        self._began = anyio.Event()
        self._at = 0.0
        self._durable = 0
        self._state_of = state_of
        self.noop = Task(self._noop, "noop")

    async def _noop(self) -> None:
        self._at = time.perf_counter()
        self._durable += self._state_of(current_execution().id) == "running"
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
        return {**percentiles(late), DURABLE: 100 * self._durable / size}


@contextmanager
def looking_on_sqlite(path: str) -> Generator[Callable[[str], object]]:
    """The state of an execution, as another connection sees it."""
    with closing(sqlite3.connect(path)) as connection:
        yield lambda id: connection.execute("SELECT state FROM executions WHERE id = ?", (id,)).fetchall()[0][0]


@contextmanager
def looking_on_postgres(dsn: str) -> Generator[Callable[[str], object]]:
    """The same."""
    asked = b"SELECT state FROM clepsydra.executions WHERE id = %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield lambda id: connection.execute(asked, (id,)).fetchall()[0][0]


async def here(storage: Storage, look: Look, size: int) -> Mapping[str, float]:
    """Enqueued by the process that runs it."""
    starts = Starts(look)
    async with Scheduler(storage, tasks=[starts.noop]) as scheduler:
        numbers = await starts.after(lambda: scheduler.enqueue(starts.noop.call()), size)
    audited(storage, at_least=size)
    return numbers


async def elsewhere(
    storage: Storage, same: Storage, connect: Callable[[], Any], look: Look, size: int
) -> Mapping[str, float]:
    """Enqueued by a scheduler that does not run, on a connection of its own; as another process does it."""
    starts = Starts(look)
    other = Scheduler(same, tasks=[starts.noop])

    def enqueue(connection: Any) -> None:
        other.enqueue_in(connection, starts.noop.call())
        connection.commit()

    async with Scheduler(storage, tasks=[starts.noop]):
        connection = connect()
        try:
            numbers = await starts.after(lambda: anyio.to_thread.run_sync(enqueue, connection), size)
        finally:
            connection.close()
    audited(storage, at_least=size)
    return numbers


def ours_on_postgres(size: int) -> Mapping[str, float]:
    """All defaults."""
    with databases.postgres_database() as dsn, looking_on_postgres(dsn) as look:
        return anyio.run(here, PostgresStorage(dsn), look, size)


def ours_on_postgres_elsewhere(size: int) -> Mapping[str, float]:
    """All defaults; a fifth of the calls."""
    with databases.postgres_database() as dsn, looking_on_postgres(dsn) as look:
        connect = partial(psycopg.connect, dsn)
        return anyio.run(elsewhere, PostgresStorage(dsn), PostgresStorage(dsn), connect, look, part(size))


def ours_on_sqlite(size: int) -> Mapping[str, float]:
    """All defaults: synchronous FULL among them."""
    with databases.sqlite_file() as path, looking_on_sqlite(path) as look:
        return anyio.run(here, SQLiteStorage(path), look, size)


def ours_on_sqlite_elsewhere(size: int) -> Mapping[str, float]:
    """All defaults; one call in 25, because each waits for the poll."""
    with databases.sqlite_file() as path, looking_on_sqlite(path) as look:
        connect = partial(sqlite3.connect, path, check_same_thread=False)
        return anyio.run(elsewhere, SQLiteStorage(path), SQLiteStorage(path), connect, look, part(size, FEW))


def on_postgres(name: str) -> Contender:
    """One of the peers."""
    return peer(partial(peer_on_postgres, name), name, f"{peers.configured(name)} A fifth of the calls.")


def peer_on_postgres(name: str, size: int) -> Mapping[str, float]:
    """In its own environment."""
    with databases.postgres_database() as dsn:
        return percentiles(peers.measured(name, "pick_up", part(size), dsn))


def on_sqlite(name: str) -> Contender:
    """One of the peers."""
    return peer(partial(peer_on_sqlite, name), name, f"{peers.configured(name)} A fifth of the calls.")


def peer_on_sqlite(name: str, size: int) -> Mapping[str, float]:
    """In its own environment."""
    with databases.sqlite_file() as path:
        return percentiles(peers.measured(name, "pick_up", part(size), path))


# ---- what the disk and the server allow


def bare(tables: bare_loops.Tables, size: int) -> Mapping[str, float]:
    """One commit that enqueues and one that claims; after each the next run finishes the last."""
    late: list[tuple[float, float]] = []
    ended: Sequence[int] = ()
    for number in range(size):
        called = time.perf_counter()
        tables.enqueue((number,))
        returned = time.perf_counter()
        ended = tables.turn((), 1)
        begun = time.perf_counter()
        late.append((begun - called, begun - returned))
        tables.turn(ended, 0)
        time.sleep(PAUSE)
    return percentiles(late)


def bare_on_sqlite(size: int) -> Mapping[str, float]:
    """The standard library's driver, synchronous FULL: a commit that enqueues, and one that claims."""
    with databases.sqlite_file() as path, bare_loops.OnSQLite(path) as tables:
        return bare(tables, size)


def bare_on_postgres(size: int) -> Mapping[str, float]:
    """psycopg, synchronous commit on: a commit that enqueues, and one that claims."""
    with databases.postgres_database() as dsn, bare_loops.OnPostgres(dsn) as tables:
        return bare(tables, size)


def one_commit(tables: bare_loops.Tables, size: int) -> Mapping[str, float]:
    """A row inserted, and no more."""
    took: list[tuple[float]] = []
    for number in range(size):
        called = time.perf_counter()
        tables.enqueue((number,))
        took.append((time.perf_counter() - called,))
        time.sleep(PAUSE)
    return percentiles(took)


def commit_on_sqlite(size: int) -> Mapping[str, float]:
    """The standard library's driver, synchronous FULL; a fifth of the calls."""
    with databases.sqlite_file() as path, bare_loops.OnSQLite(path) as tables:
        return one_commit(tables, part(size))


def commit_on_postgres(size: int) -> Mapping[str, float]:
    """psycopg, synchronous commit on; a fifth of the calls."""
    with databases.postgres_database() as dsn, bare_loops.OnPostgres(dsn) as tables:
        return one_commit(tables, part(size))


def notify_round_trip(size: int) -> Mapping[str, float]:
    """psycopg: NOTIFY on one connection, until the thread that listens on another has it; a fifth of the calls."""
    size = part(size)
    heard: SimpleQueue[float] = SimpleQueue()
    took: list[tuple[float]] = []

    def listen(listener: psycopg.Connection) -> None:
        for _ in listener.notifies(stop_after=size):
            heard.put(time.perf_counter())

    with databases.postgres_database() as dsn, psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN work")
        thread = threading.Thread(target=listen, args=(listener,))
        thread.start()
        with psycopg.connect(dsn, autocommit=True) as caller:
            for number in range(size):
                called = time.perf_counter()
                caller.execute(f"NOTIFY work, '{number}'".encode())
                took.append((heard.get() - called,))
                time.sleep(PAUSE)
        thread.join()
    return percentiles(took)


CONTENDERS: Mapping[str, Mapping[str, Measure]] = {
    "SQLite": {
        "clepsydra": ours_on_sqlite,
        "clepsydra, elsewhere": ours_on_sqlite_elsewhere,
        "huey": on_sqlite("huey"),
        "APScheduler 3.11": on_sqlite("apscheduler3"),
        "APScheduler 4": on_sqlite("apscheduler4"),
        "bare loop": bare_on_sqlite,
        "bare: one commit": commit_on_sqlite,
    },
    "PostgreSQL": {
        "clepsydra": ours_on_postgres,
        "clepsydra, elsewhere": ours_on_postgres_elsewhere,
        "pgqueuer": on_postgres("pgqueuer"),
        "procrastinate": on_postgres("procrastinate"),
        "SAQ": on_postgres("saq"),
        "oban-py": on_postgres("oban"),
        "APScheduler 3.11": on_postgres("apscheduler3"),
        "APScheduler 4": on_postgres("apscheduler4"),
        "bare loop": bare_on_postgres,
        "bare: one commit": commit_on_postgres,
        "bare: NOTIFY round trip": notify_round_trip,
    },
}

P50, P99 = "from the call, p50 ms", "from the call, p99 ms"
BARS = [
    Bar(measure=P50, at_most=2, beside="bare loop"),
    *(
        Bar(measure=P50, at_most=1, beside=name, group="PostgreSQL")
        for name in ("procrastinate", "pgqueuer", "SAQ", "oban-py")
    ),
    Bar(measure=P99, at_most=5, than=P50),
    Bar(measure=DURABLE, at_least=100),
]

if __name__ == "__main__":
    side_by_side.groups(
        "from enqueue to the task's first line, durable, at low load",
        CONTENDERS,
        size=200,
        around={"PostgreSQL": databases.postgres_server},
        bars=BARS,
        more_is_better=[DURABLE],
        plotted=(P50, P99),
    )
