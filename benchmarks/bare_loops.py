"""The least programs that give the same answers: what the interpreter, the disk and the database allow.

In memory: a heap of due times, a pool of workers fed from a queue, and of each run its id, its verdict and its outcome
in dicts. Where the question is durable, plain tables and the driver alone: what has ended is finished, and what is next
is claimed, in one transaction for each batch, the log synced; the tasks are awaited in place between two. No attempts,
leases, fences, retries, events or results, and nobody else may be there.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from heapq import heappop, heappush
from typing import Protocol, Self

import anyio
import psycopg
from anyio.lowlevel import checkpoint

WORKERS = 64
IN_A_TURN = 64
"""Runs between two turns of the event loop: what keeps it free for others."""
KEPT = 10_000
"""Runs that are remembered, as many as our store in memory keeps."""

Task = Callable[[int, float], Awaitable[object]]
"""A run of a job: its number, and when it was due."""


class InMemory:
    """Jobs that are due every so many seconds, run by workers that live as long as it does."""

    def __init__(self, task: Task) -> None:
        self.runs: dict[int, tuple[int, float]] = {}
        self.verdicts: dict[int, str] = {}
        self.outcomes: dict[int, str] = {}
        self._task = task
        self._heap: list[tuple[float, float, list[int]]] = []
        self._ready: deque[tuple[int, int, float]] = deque()
        self._woken = anyio.Event()
        self._made = 0

    def add(self, due: float, every: float, jobs: list[int]) -> None:
        """Jobs, by their numbers, that share their times."""
        heappush(self._heap, (due, every, jobs))

    async def run(self) -> None:
        """Until it is cancelled."""
        async with anyio.create_task_group() as workers:
            for _ in range(WORKERS):
                workers.start_soon(self._work)
            while self._heap:
                await anyio.sleep(max(0.0, self._heap[0][0] - time.time()))
                while self._heap[0][0] <= time.time():
                    self._fire(*heappop(self._heap))

    def _fire(self, due: float, every: float, jobs: list[int]) -> None:
        for number in jobs:
            self._made += 1
            self.runs[self._made] = (number, due)
            self._ready.append((self._made, number, due))
        self.add(due + every, every, jobs)
        woken, self._woken = self._woken, anyio.Event()
        woken.set()

    async def _work(self) -> None:
        ready, task, verdicts, outcomes = self._ready, self._task, self.verdicts, self.outcomes
        while True:
            for _ in range(min(IN_A_TURN, len(ready))):
                made, number, due = ready.popleft()
                verdicts[made] = "fired"
                await task(number, due)
                outcomes[made] = "succeeded"
                for kept in (self.runs, verdicts, outcomes):
                    kept.pop(made - KEPT, None)
            if ready:
                await checkpoint()
            else:
                await self._woken.wait()


# ---- on a database


class Tables(Protocol):
    """Work in a plain table. Each call is one transaction, and synced."""

    def enqueue(self, ids: Sequence[int]) -> None:
        """Add work."""
        ...

    def turn(self, ended: Sequence[int], most: int) -> Sequence[int]:
        """Finish what has ended, and claim what is next."""
        ...

    def add_jobs(self, ids: Sequence[int]) -> None:
        """Add jobs, with a cursor each."""
        ...

    def fire(self, ended: Sequence[int], ids: Sequence[int], nominal: int) -> None:
        """Finish what has ended; move the cursors of some jobs, and claim a run of each, its verdict noted."""
        ...


async def noop() -> None:
    """The task."""


async def drain(tables: Tables, batch: int) -> int:
    """Run all the work there is; how much it was."""
    ran, claimed = 0, tables.turn((), batch)
    while claimed:
        for _ in claimed:
            await noop()
        ran += len(claimed)
        claimed = tables.turn(claimed, batch)
    return ran


_TABLES = """
CREATE TABLE work (id BIGINT PRIMARY KEY, task TEXT, args TEXT, state TEXT, node TEXT, started BIGINT, ended BIGINT);
CREATE INDEX ready ON work (id) WHERE state = 'pending';
CREATE TABLE jobs (id BIGINT PRIMARY KEY, task TEXT, args TEXT, next BIGINT);
CREATE TABLE runs (job BIGINT, nominal BIGINT, state TEXT, verdict TEXT, node TEXT, started BIGINT, ended BIGINT,
    PRIMARY KEY (job, nominal));
"""
_CLAIM = """
UPDATE work SET state = 'running', node = 'here', started = {0} WHERE id IN (SELECT id FROM work
WHERE state = 'pending' ORDER BY id LIMIT {0}{1}) RETURNING id, task, args"""


class OnSQLite:
    """The standard library's driver, a write-ahead log, synchronous FULL."""

    _CLAIM = _CLAIM.format("?", "")

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._nominal = 0
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_TABLES.replace("BIGINT PRIMARY", "INTEGER PRIMARY"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def enqueue(self, ids: Sequence[int]) -> None:
        rows = [(number, "noop", "{}", "pending") for number in ids]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO work (id, task, args, state) VALUES (?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def turn(self, ended: Sequence[int], most: int) -> Sequence[int]:
        finish = "UPDATE work SET state = 'succeeded', ended = ? WHERE id = ? AND state = 'running'"
        now = time.time_ns()
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(finish, [(now, number) for number in ended])
        claimed = [row[0] for row in self._connection.execute(self._CLAIM, (now, most)).fetchall()]
        self._connection.execute("COMMIT")
        return claimed

    def add_jobs(self, ids: Sequence[int]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO jobs VALUES (?, 'noop', '{}', 0)", [(number,) for number in ids])
        self._connection.execute("COMMIT")

    def fire(self, ended: Sequence[int], ids: Sequence[int], nominal: int) -> None:
        now, run = time.time_ns(), self._connection.executemany
        self._connection.execute("BEGIN IMMEDIATE")
        finish = "UPDATE runs SET state = 'succeeded', ended = ? WHERE job = ? AND nominal = ? AND state = 'running'"
        run(finish, [(now, number, nominal) for number in ended])
        run("UPDATE jobs SET next = ? WHERE id = ?", [(nominal + 1, number) for number in ids])
        columns = "job, nominal, state, verdict, node, started"
        claim = f"INSERT INTO runs ({columns}) VALUES (?, ?, 'running', 'fired', 'here', ?)"
        run(claim, [(number, nominal, now) for number in ids])
        self._connection.execute("COMMIT")


class OnPostgres:
    """psycopg, a statement for each half of a batch."""

    _CLAIM = _CLAIM.format("%s", " FOR UPDATE SKIP LOCKED").encode()

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn)
        self._connection.execute(_TABLES.encode())
        self._connection.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def enqueue(self, ids: Sequence[int]) -> None:
        self._connection.execute("INSERT INTO work SELECT unnest(%s::int[]), 'noop', '{}', 'pending'", (list(ids),))
        self._connection.commit()

    def turn(self, ended: Sequence[int], most: int) -> Sequence[int]:
        now = time.time_ns()
        if ended:
            finish = "UPDATE work SET state = 'succeeded', ended = %s WHERE id = ANY (%s::int[]) AND state = 'running'"
            self._connection.execute(finish, (now, list(ended)))
        claimed = [row[0] for row in self._connection.execute(self._CLAIM, (now, most)).fetchall()]
        self._connection.commit()
        return claimed

    def add_jobs(self, ids: Sequence[int]) -> None:
        self._connection.execute("INSERT INTO jobs SELECT unnest(%s::int[]), 'noop', '{}', 0", (list(ids),))
        self._connection.commit()

    def fire(self, ended: Sequence[int], ids: Sequence[int], nominal: int) -> None:
        now, run = time.time_ns(), self._connection.execute
        if ended:
            run(
                "UPDATE runs SET state = 'succeeded', ended = %s WHERE job = ANY (%s::int[]) AND nominal = %s "
                "AND state = 'running'",
                (now, list(ended), nominal),
            )
        run("UPDATE jobs SET next = %s WHERE id = ANY (%s::int[])", (nominal + 1, list(ids)))
        run(
            "INSERT INTO runs SELECT unnest(%s::int[]), %s, 'running', 'fired', 'here', %s",
            (list(ids), nominal, now),
        )
        self._connection.commit()


async def fire_all(tables: Tables, jobs: int, nominal: int, batch: int, started: Callable[[], None]) -> None:
    """Run each of so many jobs once, which are due at one instant."""
    ended: Sequence[int] = ()
    for first in range(0, jobs, batch):
        claimed = range(first, min(first + batch, jobs))
        tables.fire(ended, claimed, nominal)
        for _ in claimed:
            started()
            await noop()
        ended = claimed
    tables.fire(ended, (), nominal)
