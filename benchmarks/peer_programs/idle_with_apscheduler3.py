"""APScheduler 3.11 at rest: `idle_with_apscheduler3.py idle|fill SIZE memory|FILE|DSN [crons]`.

Its asyncio scheduler with interval triggers, or with crons where that is said; in memory, or its SQLAlchemy job store
on a database, with psycopg on PostgreSQL, and on SQLite with a write-ahead log and synchronous FULL. The rest is
default. It has no bulk insert, and it does not load its jobs: it asks the table for what is due at each wake-up.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from rest import counted_loop, resident, watched

AsyncIOScheduler: Any = importlib.import_module("apscheduler.schedulers.asyncio").AsyncIOScheduler  # not of the checks


async def noop() -> None:
    """By its name."""


def made(place: str) -> Any:
    """A scheduler, in memory or on a database."""
    stores: dict[str, Any] = {}
    if place != "memory":
        store = importlib.import_module("apscheduler.jobstores.sqlalchemy").SQLAlchemyJobStore
        stores = {"default": store(url=url(place))}
    return AsyncIOScheduler(jobstores=stores, timezone=UTC)


def url(place: str) -> str:
    """As SQLAlchemy writes it."""
    if place.startswith("postgresql:"):
        return place.replace("postgresql:", "postgresql+psycopg:", 1)
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite:///{place}"


def added(scheduler: Any, size: int, shape: str = "") -> float:
    """Microseconds for each: the first is due in a day, and no two at once; or to the minutes of a day."""
    began = time.perf_counter()
    if shape == "crons":
        far = datetime.now(UTC) + timedelta(days=180)
        for number in range(size):
            when = {"minute": number % 60, "hour": number // 60 % 24, "day": far.day, "month": far.month}
            scheduler.add_job(noop, "cron", **when)
        return (time.perf_counter() - began) / size * 1e6
    start = datetime.now(UTC) + timedelta(days=1)
    for number in range(size):
        later = timedelta(milliseconds=number + 1)
        scheduler.add_job(noop, "interval", days=1, seconds=later.total_seconds(), start_date=start + later)
    return (time.perf_counter() - began) / size * 1e6


async def fill(size: int, place: str) -> dict[str, float]:
    """A database, for another process."""
    scheduler = made(place)
    scheduler.start(paused=True)
    pace = added(scheduler, size)
    scheduler.shutdown()
    return {"adding one, microseconds": pace}


async def idle(size: int, place: str, shape: str = "") -> dict[str, float]:
    """With so many jobs."""
    numbers: dict[str, float] = {}
    if place != "memory":
        command = [sys.executable, __file__, "fill", str(size), place]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        numbers |= json.loads(done.stdout)
    scheduler, before, began = made(place), resident(), time.perf_counter()
    scheduler.start()
    await asyncio.sleep(0)
    if place == "memory":
        numbers["adding one, microseconds"] = added(scheduler, size, shape)
    else:
        numbers["ready with all of them, s"] = time.perf_counter() - began
    numbers["memory, bytes a job"] = (resident() - before) / size
    numbers |= await watched(asyncio.sleep, size)
    scheduler.shutdown(wait=False)
    return numbers


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    questions: dict[str, Any] = {"idle": idle, "fill": fill}
    with asyncio.Runner(loop_factory=counted_loop) as runner:
        print(json.dumps(runner.run(questions[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:]))))
