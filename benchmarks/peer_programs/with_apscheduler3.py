"""APScheduler 3.11, measured: `with_apscheduler3.py QUESTION SIZE ...`, in an environment where it is installed.

    drain|pick_up|scheduled SIZE PLACE      PLACE is a file of SQLite or the address of a PostgreSQL server
    steady RATE SECONDS one|spread          in memory
    growth JOBS BURSTS                      in memory

Its asyncio scheduler; on a database its SQLAlchemy job store, with psycopg on PostgreSQL, and on SQLite with a
write-ahead log and synchronous FULL, which suits it better than the journal that is the default there. It is told not
to drop what is more than a second late; the rest are its defaults. A job that has no further time is deleted before it
runs, outcomes are not recorded, and there is no bulk insert.
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
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

ENOUGH = 1000
"""It drains some hundreds a second: so many say what more would."""
SAMPLES = 100
BURST = 1000
asyncio_scheduler: Any = importlib.import_module("apscheduler.schedulers.asyncio")  # of an environment of its own


def made(place: str | None = None) -> Any:
    """A scheduler, in memory or on a database."""
    stores = {}
    if place is not None:
        sqlalchemy: Any = importlib.import_module("apscheduler.jobstores.sqlalchemy")
        stores = {"default": sqlalchemy.SQLAlchemyJobStore(url=url(place))}
    late = {"misfire_grace_time": None}
    return asyncio_scheduler.AsyncIOScheduler(jobstores=stores, job_defaults=late, timezone=UTC)


def url(place: str) -> str:
    """As SQLAlchemy writes it."""
    if place.startswith("postgresql:"):
        return place.replace("postgresql:", "postgresql+psycopg:", 1)
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite:///{place}"


class Noop:
    """What runs, counted. Its scheduler's store keeps the name of a function, so there is one of it in the module."""

    def __init__(self) -> None:
        self.starts = array("d")
        self.wanted = 0
        self.reached = asyncio.Event()

    def started(self) -> None:
        """One more, now."""
        self.starts.append(time.time())
        if len(self.starts) == self.wanted:
            self.reached.set()


runs = Noop()


async def noop() -> None:
    """By its name."""
    runs.started()


async def drain(size: int, place: str) -> dict[str, float]:
    """Enqueue, then run all of it."""
    scheduler, size = made(place), min(size, ENOUGH)
    scheduler.start(paused=True)
    runs.wanted = size
    began = time.perf_counter()
    for _ in range(size):
        scheduler.add_job(noop)
    numbers = {"enqueued one by one, per second": size / (time.perf_counter() - began)}
    began, used = time.perf_counter(), time.process_time()
    scheduler.resume()
    await runs.reached.wait()
    numbers["run and recorded, per second"] = size / (time.perf_counter() - began)
    numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / size * 1e6
    scheduler.shutdown()
    return numbers


async def pick_up(size: int, place: str) -> list[tuple[float, float]]:
    """Enqueue one after another: seconds from each call, and from its return, to the start."""
    scheduler = made(place)
    scheduler.start()
    await asyncio.sleep(1)
    late: list[tuple[float, float]] = []
    for number in range(size):
        runs.wanted, runs.reached = number + 1, asyncio.Event()
        called = time.time()
        scheduler.add_job(noop)
        returned = time.time()
        await runs.reached.wait()
        late.append((runs.starts[-1] - called, runs.starts[-1] - returned))
        await asyncio.sleep(0.02)
    scheduler.shutdown()
    return late


async def scheduled(size: int, place: str) -> dict[str, float]:
    """Recurring jobs due at one instant: first, median and last start after it, and when all was done."""
    scheduler = made(place)
    scheduler.start()
    began = time.time()
    for _ in range(20):
        scheduler.add_job(noop, "interval", days=1)
    pace = (time.time() - began) / 20
    scheduler.remove_all_jobs()
    due = math.ceil(time.time() + 3 + 2 * pace * size)
    for _ in range(size):
        scheduler.add_job(noop, "interval", days=1, start_date=datetime.fromtimestamp(due, UTC))
    if time.time() > due:
        raise SystemExit(f"the jobs were due before all {size} were added")
    runs.wanted = size
    used = time.process_time()
    await runs.reached.wait()
    done = time.time()
    late = sorted((start - due) * 1000 for start in runs.starts)
    scheduler.shutdown()
    return {
        "first start, ms": late[0],
        "median start, ms": late[size // 2],
        "last start, ms": late[-1],
        "all recorded, ms": (done - due) * 1000,
        "CPU of the process, microseconds a run": (time.process_time() - used) / size * 1e6,
    }


async def steady(rate: int, seconds: str, how: str) -> dict[str, float]:
    """So many jobs each second: what was due, what of it began by a second after the last, lateness, CPU."""
    span, scheduler = int(seconds), made()
    counts, late = array("q", bytes(8 * rate)), array("d")
    scheduler.start()
    begin = math.ceil(time.time() + 2 + rate * pace(scheduler))
    shift = 1 / rate if how == "spread" else 0.0

    async def run(number: int) -> None:
        nth = counts[number]
        counts[number] += 1
        if nth < span:
            late.append(time.time() - (begin + nth + number * shift))

    for number in range(rate):
        start = datetime.fromtimestamp(begin, UTC) + timedelta(seconds=number * shift)
        scheduler.add_job(run, "interval", seconds=1, start_date=start, args=(number,))
    if time.time() > begin:
        raise SystemExit(f"the jobs were due before all {rate} were added")
    await asyncio.sleep(begin - time.time() - 0.1)
    used, since = time.process_time(), time.time()
    await asyncio.sleep(begin + span + (how == "spread") - time.time())
    done, used, took = len(late), time.process_time() - used, time.time() - since
    scheduler.shutdown(wait=False)
    numbers = {"due": float(rate * span), "done": float(done), "cpu": used, "took": took}
    if done:
        ranked = sorted(1000 * each for each in late[:done])
        numbers |= {"median": ranked[done // 2], "p99": ranked[done * 99 // 100]}
    return numbers


def pace(scheduler: Any) -> float:
    """Seconds to add a job here and now, with something to spare."""
    began = time.perf_counter()
    for _ in range(SAMPLES):
        scheduler.add_job(noop, "interval", days=1)
    took = time.perf_counter() - began
    scheduler.remove_all_jobs()
    return 2 * took / SAMPLES


async def growth(jobs: int, bursts: str) -> dict[str, float]:
    """Bursts of so many at most, a second apart, beside jobs that are due later: CPU of a fire, and its last start."""
    count, scheduler, burst = int(bursts), made(), min(jobs, BURST)
    groups = max(1, min(count, jobs // BURST))
    scheduler.start()
    later = datetime.now(UTC) + timedelta(minutes=30)
    for number in range(jobs - groups * burst):
        scheduler.add_job(noop, "interval", hours=1, start_date=later + timedelta(seconds=number % 1000))
    begin = math.ceil(time.time() + 2 + groups * burst / 1000)
    for number in range(groups * burst):
        start = datetime.fromtimestamp(begin + number % groups, UTC)
        scheduler.add_job(noop, "interval", seconds=groups, start_date=start)
    if time.time() > begin:
        raise SystemExit(f"the first jobs were due before all {jobs} were added")
    await asyncio.sleep(begin - 0.1 - time.time())
    used, runs.wanted = time.process_time(), count * burst
    await runs.reached.wait()
    used = time.process_time() - used
    lasts = sorted(runs.starts[(number + 1) * burst - 1] - begin - number for number in range(count))
    scheduler.shutdown(wait=False)
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
