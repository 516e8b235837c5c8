"""What do jobs cost that are not due: memory, CPU, the time to add them and the time to load them?

Claim: jobs that are not due cost no CPU: the event loop is woken up once in each wait cap and for the node's heartbeat,
whatever their number. A million of them, on crons, take at most a fifth of the memory of APScheduler 3.11's, and are
loaded from SQLite in at most five times the time in which the driver reads their rows. The bars below say which part of
that this run bears out. (On a store that is shared it is woken up for the poll, too: each second it looks for what
other processes have put there.)

Memory is the resident set with them less the one just before, so it is told in memory, where their definitions are, and
on a database, where the process holds what it needs of them. No two are due at once, which is the worst case; "crons by
the minute" is the usual one. Each is watched for ten seconds. Databases are filled by a process of its own, and the
limit is another one that reads the rows that we wrote with the driver alone, into a list of tuples. Ours is ready when
the last job is in the timeline, some time after the scheduler is entered. Up to 10,000 jobs the ledger is audited.

    python benchmarks/idle.py [--size 1000000] [--rounds 5] [--group SQLite]
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import databases
import peers
import psycopg
import side_by_side
from contenders import Bar, Contender, Measure, limit, peer
from ledger import audited_while_it_runs
from peer_programs.rest import counted_loop, resident, watched

from clepsydra import Cron, Every, Job, PostgresStorage, Schedule, Scheduler, SQLiteStorage, Storage, Task

AUDITED = 10_000
SIZES = (10_000, 100_000, 1_000_000)
STORES: Mapping[str, Callable[[str], Storage]] = {"PostgreSQL": PostgresStorage, "SQLite": SQLiteStorage}
PLACES: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    "PostgreSQL": databases.postgres_database,
    "SQLite": databases.sqlite_file,
}
READY, READING = "ready with all of them, s", "their rows read by the driver, s"
MEMORY = "memory, bytes a job"
ADDING, CPU, WOKEN = "adding one, microseconds", "CPU, percent of a core", "wake-ups of the event loop, in a minute"


FAR = datetime.now(UTC) + timedelta(days=180)


async def _noop() -> None: ...


noop = Task(_noop, "noop")


def distinct(number: int) -> Schedule:
    """No two at once, the last of them the first that is due, in more than a day."""
    return Every(timedelta(days=2, milliseconds=-number))


def by_the_minute(number: int) -> Schedule:
    """One of the minutes of a day half a year from now."""
    return Cron(f"{number % 60} {number // 60 % 24} {FAR.day} {FAR.month} *")


def jobs(schedule: Callable[[int], Schedule], size: int) -> Iterator[Job]:
    """One after another, so that nothing but the scheduler keeps them."""
    return (Job(f"job {number}", noop, schedule(number)) for number in range(size))


def run(measure: Callable[..., Coroutine[Any, Any, Mapping[str, float]]], *given: object) -> Mapping[str, float]:
    """On an event loop of asyncio whose wake-ups are counted."""
    return anyio.run(measure, *given, backend_options={"loop_factory": counted_loop})


async def in_memory(schedule: Callable[[int], Schedule], size: int) -> Mapping[str, float]:
    """In memory, all defaults."""
    async with Scheduler(tasks=[noop]) as scheduler:
        before, began = resident(), time.perf_counter()
        await scheduler.add_jobs(jobs(schedule, size))
        numbers = {ADDING: (time.perf_counter() - began) / size * 1e6}
        numbers[MEMORY] = (resident() - before) / size
        numbers |= await watched(anyio.sleep, size)
        await audited_up_to(AUDITED, scheduler, size)
        return numbers


async def audited_up_to(most: int, scheduler: Scheduler, size: int) -> None:
    """More would take many minutes, and none of them has run."""
    if size <= most:
        await audited_while_it_runs(scheduler)


async def without_jobs(size: int) -> Mapping[str, float]:
    """The same scheduler, empty."""
    async with Scheduler(tasks=[noop]):
        numbers: Mapping[str, float] = await watched(anyio.sleep, size)
        return numbers


async def fill(storage: Storage, size: int) -> Mapping[str, float]:
    """A database, for another process."""
    async with Scheduler(storage, tasks=[noop]) as scheduler:
        began = time.perf_counter()
        await scheduler.add_jobs(jobs(distinct, size))
        return {ADDING: (time.perf_counter() - began) / size * 1e6}


def filled(store: str, place: str, size: int) -> Mapping[str, float]:
    """In a process of its own, so that what it takes is not in the way here."""
    command = [sys.executable, __file__, "--fill", store, place, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    numbers: Mapping[str, float] = json.loads(done.stdout)
    return numbers


async def loaded(storage: Storage, size: int) -> Mapping[str, float]:
    """Enter a scheduler on what is there."""
    before, began = resident(), time.perf_counter()
    async with Scheduler(storage, tasks=[noop]) as scheduler:
        while [name for _, name in scheduler.next_runs(1)] != [f"job {size - 1}"]:  # noqa: ASYNC110 - nothing tells
            await anyio.sleep(0.005)  # it is entered before the last of them has come to the timeline
        numbers = {READY: time.perf_counter() - began}
        numbers[MEMORY] = (resident() - before) / size
        numbers |= await watched(anyio.sleep, size)
        assert await scheduler.count_jobs() == size
        await audited_up_to(AUDITED, scheduler, size)
        return numbers


def on_disk(store: str, size: int) -> Mapping[str, float]:
    """All defaults."""
    with PLACES[store]() as place:
        numbers = filled(store, place, size)
        return {**numbers, READING: read_by_the_driver(store, place, size), **run(loaded, STORES[store](place), size)}


def read_by_the_driver(store: str, place: str, size: int) -> float:
    """Seconds of a process of its own, for all columns of all rows."""
    command = [sys.executable, __file__, "--read", store, place]
    rows, seconds = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    if rows != size:
        raise SystemExit(f"the driver has read {rows} rows of {size}")
    return float(seconds)


def read(store: str, place: str) -> tuple[int, float]:
    """Into a list of tuples: how many, and the seconds."""
    began = time.perf_counter()
    rows = rows_on_sqlite(place) if store == "SQLite" else rows_on_postgres(place)
    return len(rows), time.perf_counter() - began


def rows_on_sqlite(path: str) -> list[object]:
    """By the standard library's driver."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM jobs").fetchall()


def rows_on_postgres(dsn: str) -> list[object]:
    """By psycopg."""
    with psycopg.connect(dsn) as connection:
        return list(connection.execute("SELECT * FROM clepsydra.jobs").fetchall())


def of_peer(name: str, store: str, *rest: Any) -> Mapping[str, float]:
    """One of the peers, in its environment; beside the size, what else it is told."""
    *told, size = rest
    numbers: Mapping[str, float]
    if store == "memory":
        numbers = peers.measured(name, "idle", size, store, *told)
        return numbers
    with PLACES[store]() as place:
        numbers = peers.measured(name, "idle", size, place)
        return numbers


def beside(name: str, store: str, most: int, *told: str) -> Contender:
    """A peer, up to the size that it adds in a few minutes."""
    return peer(partial(of_peer, name, store, *told), name, peers.configured(name, "idle"), most=most)


def on_a_database(store: str) -> Mapping[str, Measure]:
    """Those that are measured on a store."""
    return {
        "clepsydra": Contender(partial(on_disk, store), "ours", "All defaults; no two jobs are due at once."),
        "APScheduler 3.11": beside("apscheduler3", store, 10_000),
        "APScheduler 4": beside("apscheduler4", store, 10_000),
    }


DISTINCT = "In memory, all defaults; no two jobs are due at once."
CONTENDERS: Mapping[str, Mapping[str, Measure]] = {
    "memory": {
        "clepsydra": Contender(partial(run, in_memory, distinct), "ours", DISTINCT),
        "clepsydra, crons by the minute": Contender(
            partial(run, in_memory, by_the_minute), "ours", "The same, with 1,440 different crons."
        ),
        "APScheduler 3.11": beside("apscheduler3", "memory", 100_000),
        "APScheduler 3.11, crons by the minute": beside("apscheduler3", "memory", 1_000_000, "crons"),
        "APScheduler 4": beside("apscheduler4", "memory", 100_000),
        "clepsydra without jobs": limit(partial(run, without_jobs), "The same scheduler, empty."),
    },
    "SQLite": on_a_database("SQLite"),
    "PostgreSQL": on_a_database("PostgreSQL"),
}
ONE = 60 / 10
"""A single one in the ten seconds, told for a minute."""
HEARTBEATS = 2 * 60 / 5
"""Every five seconds, and two wake-ups each: that it is time, and that the store has answered."""
BARS = [
    Bar(measure=WOKEN, at_most=ONE, group="memory"),
    *(Bar(measure=WOKEN, at_most=ONE + HEARTBEATS, group=store) for store in STORES),
    Bar(
        measure=MEMORY,
        of="clepsydra, crons by the minute",
        at_most=1 / 5,
        beside="APScheduler 3.11, crons by the minute",
        group="memory",
    ),
    Bar(measure=MEMORY, of="clepsydra, crons by the minute", at_most=3700 / 5, group="memory"),
    Bar(measure=MEMORY, at_most=3700 / 5, group="SQLite"),
    Bar(measure=READY, at_most=5, than=READING, group="SQLite"),
]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        _, _, chosen, where, many = sys.argv
        print(json.dumps(dict(anyio.run(fill, STORES[chosen](where), int(many)))))
        sys.exit()
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read(*sys.argv[2:])))
        sys.exit()
    side_by_side.groups(
        "jobs that are not due",
        CONTENDERS,
        size=SIZES,
        bars=BARS,
        around={"PostgreSQL": databases.postgres_server},
        plotted=(ADDING, READY, MEMORY),
        patience=1800,
    )
