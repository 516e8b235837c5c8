"""APScheduler 4.0.0a6, measured: `with_apscheduler4.py QUESTION SIZE ...`, in an environment where it is installed.

    drain|pick_up|scheduled SIZE PLACE      PLACE is a file of SQLite or the address of a PostgreSQL server
    steady RATE SECONDS one|spread          in memory
    growth JOBS BURSTS                      in memory

Its asyncio scheduler with the local event broker, which suits one process best; on a database its SQLAlchemy data store
with asyncpg, or with aiosqlite, a write-ahead log and synchronous FULL. Its task may run any number of times at once
(by default one), its schedules make up for all that is late (by default the latest), and the rest are its defaults:
100 jobs at once, and no result is kept. It has no bulk insert.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import sqlite3
import sys
import time
from array import array
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import Any

ENOUGH = 1000
"""It drains some hundreds a second: so many say what more would."""
SAMPLES = 100
BURST = 1000
apscheduler: Any = importlib.import_module("apscheduler")  # of an environment of its own, not of the checks
interval: Any = importlib.import_module("apscheduler.triggers.interval").IntervalTrigger
ALL = apscheduler.CoalescePolicy.all


class Noop:
    """What runs, counted; and what has been recorded."""

    def __init__(self) -> None:
        self.starts = array("d")
        self.recorded = 0
        self.wanted = 0
        self.started = asyncio.Event()
        self.reached = asyncio.Event()

    async def run(self) -> None:
        """One more, now."""
        self.starts.append(time.time())
        self.started.set()

    def released(self, _: object) -> None:
        """One more outcome is in the store."""
        self.recorded += 1
        if self.recorded == self.wanted:
            self.reached.set()


runs = Noop()


async def noop() -> None:
    """By its name."""
    await runs.run()


@asynccontextmanager
async def made(place: str | None = None) -> AsyncGenerator[Any]:
    """A scheduler, in memory or on a database, that has not been started."""
    if place is None:
        async with apscheduler.AsyncScheduler() as scheduler:
            await prepare(scheduler)
            yield scheduler
        return
    engine = importlib.import_module("sqlalchemy.ext.asyncio").create_async_engine(url(place))
    store = importlib.import_module("apscheduler.datastores.sqlalchemy").SQLAlchemyDataStore(engine)
    async with apscheduler.AsyncScheduler(store) as scheduler:
        await prepare(scheduler)
        yield scheduler
    await engine.dispose()


async def prepare(scheduler: Any) -> None:
    """Its task, and who counts what is recorded."""
    await scheduler.configure_task("noop", func=noop, max_running_jobs=None)
    scheduler.subscribe(runs.released, {apscheduler.JobReleased})


def url(place: str) -> str:
    """As SQLAlchemy writes it."""
    if place.startswith("postgresql:"):
        return place.replace("postgresql:", "postgresql+asyncpg:", 1)
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite+aiosqlite:///{place}"


async def drain(size: int, place: str) -> dict[str, float]:
    """Enqueue, then run all of it."""
    size = min(size, ENOUGH)
    runs.wanted = size
    async with made(place) as scheduler:
        began = time.perf_counter()
        for _ in range(size):
            await scheduler.add_job("noop")
        numbers = {"enqueued one by one, per second": size / (time.perf_counter() - began)}
        began, used = time.perf_counter(), time.process_time()
        await scheduler.start_in_background()
        await runs.reached.wait()
        numbers["run and recorded, per second"] = size / (time.perf_counter() - began)
        numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / size * 1e6
    return numbers


async def pick_up(size: int, place: str) -> list[tuple[float, float]]:
    """Enqueue one after another: seconds from each call, and from its return, to the start."""
    late: list[tuple[float, float]] = []
    async with made(place) as scheduler:
        await scheduler.start_in_background()
        await asyncio.sleep(1)
        for _ in range(size):
            runs.started = asyncio.Event()
            called = time.time()
            await scheduler.add_job("noop")
            returned = time.time()
            await runs.started.wait()
            late.append((runs.starts[-1] - called, runs.starts[-1] - returned))
            await asyncio.sleep(0.02)
    return late


async def scheduled(size: int, place: str) -> dict[str, float]:
    """Recurring jobs due at one instant: first, median and last start after it, and when all was recorded."""
    runs.wanted = size
    async with made(place) as scheduler:
        await scheduler.start_in_background()
        began = time.time()
        samples = [await scheduler.add_schedule("noop", interval(days=1, start_time=day(1))) for _ in range(20)]
        pace = (time.time() - began) / 20
        for sample in samples:
            await scheduler.remove_schedule(sample)
        due = math.ceil(time.time() + 3 + 2 * pace * size)
        start = datetime.fromtimestamp(due, UTC)
        for _ in range(size):
            await scheduler.add_schedule("noop", interval(days=1, start_time=start))
        if time.time() > due:
            raise SystemExit(f"the jobs were due before all {size} were added")
        used = time.process_time()
        await runs.reached.wait()
        done = time.time()
        used = time.process_time() - used
    late = sorted((start - due) * 1000 for start in runs.starts)
    return {
        "first start, ms": late[0],
        "median start, ms": late[size // 2],
        "last start, ms": late[-1],
        "all recorded, ms": (done - due) * 1000,
        "CPU of the process, microseconds a run": used / size * 1e6,
    }


def day(later: int) -> datetime:
    """So many days from now."""
    return datetime.now(UTC) + timedelta(days=later)


async def steady(rate: int, seconds: str, how: str) -> dict[str, float]:
    """So many jobs each second: what was due, what of it began by a second after the last, lateness, CPU."""
    span, late = int(seconds), array("d")
    async with made() as scheduler:
        begin = math.ceil(time.time() + 2 + rate * await pace(scheduler))
    end = begin + span

    async def run() -> None:
        due = apscheduler.current_job.get().scheduled_fire_time.timestamp()
        if due < end - 1e-4:
            late.append(time.time() - due)

    async with made() as scheduler:
        await scheduler.configure_task("run", func=run, max_running_jobs=None)
        await scheduler.start_in_background()
        for number in range(rate):
            start = datetime.fromtimestamp(begin, UTC) + timedelta(seconds=number / rate if how == "spread" else 0)
            await scheduler.add_schedule("run", interval(seconds=1, start_time=start), coalesce=ALL)
        if time.time() > begin:
            raise SystemExit(f"the jobs were due before all {rate} were added")
        await asyncio.sleep(begin - time.time() - 0.1)
        used, since = time.process_time(), time.time()
        await asyncio.sleep(end + (how == "spread") - time.time())
        done, used, took = len(late), time.process_time() - used, time.time() - since
    numbers = {"due": float(rate * span), "done": float(done), "cpu": used, "took": took}
    if done:
        ranked = sorted(1000 * each for each in late[:done])
        numbers |= {"median": ranked[done // 2], "p99": ranked[done * 99 // 100]}
    return numbers


async def pace(scheduler: Any) -> float:
    """Seconds to add a schedule here and now, with something to spare."""
    began = time.perf_counter()
    for _ in range(SAMPLES):
        await scheduler.add_schedule("noop", interval(days=1))
    return 2 * (time.perf_counter() - began) / SAMPLES


async def growth(jobs: int, bursts: str) -> dict[str, float]:
    """Bursts of so many at most, a second apart, beside jobs that are due later: CPU of a fire, and its last start."""
    count, burst = int(bursts), min(jobs, BURST)
    groups = max(1, min(count, jobs // BURST))
    runs.wanted = count * burst
    async with made() as scheduler:
        await scheduler.start_in_background()
        later = datetime.now(UTC) + timedelta(minutes=30)
        for number in range(jobs - groups * burst):
            start = later + timedelta(seconds=number % 1000)
            await scheduler.add_schedule("noop", interval(hours=1, start_time=start), coalesce=ALL)
        begin = math.ceil(time.time() + 2 + groups * burst / 500)
        for number in range(groups * burst):
            start = datetime.fromtimestamp(begin + number % groups, UTC)
            await scheduler.add_schedule("noop", interval(seconds=groups, start_time=start), coalesce=ALL)
        if time.time() > begin:
            raise SystemExit(f"the first jobs were due before all {jobs} were added")
        await asyncio.sleep(begin - 0.1 - time.time())
        used = time.process_time()
        await runs.reached.wait()
        used = time.process_time() - used
    lasts = sorted(runs.starts[(number + 1) * burst - 1] - begin - number for number in range(count))
    return {"cpu": used / runs.wanted, "wall": lasts[count // 2] / burst}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    questions: dict[str, Any] = {
        "drain": drain,
        "pick_up": pick_up,
        "scheduled": scheduled,
        "steady": steady,
        "growth": growth,
    }
    print(json.dumps(asyncio.run(questions[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:]))))
