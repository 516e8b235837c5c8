"""APScheduler 4.0.0a6 at rest: `idle_with_apscheduler4.py idle|fill SIZE memory|FILE|DSN`.

Its scheduler on asyncio with interval triggers and the local event broker; in memory, or its SQLAlchemy data store on a
database, with asyncpg, or with aiosqlite, a write-ahead log and synchronous FULL. The rest is default. It has no bulk
insert, and it does not load its schedules: it asks the table for what is due at each wake-up.
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

apscheduler: Any = importlib.import_module("apscheduler")  # of an environment of its own, not of the checks
interval: Any = importlib.import_module("apscheduler.triggers.interval").IntervalTrigger


async def noop() -> None:
    """By its name."""


def made(place: str) -> Any:
    """A scheduler, in memory or on a database."""
    if place == "memory":
        return apscheduler.AsyncScheduler()
    engine = importlib.import_module("sqlalchemy.ext.asyncio").create_async_engine(url(place))
    return apscheduler.AsyncScheduler(
        importlib.import_module("apscheduler.datastores.sqlalchemy").SQLAlchemyDataStore(engine)
    )


def url(place: str) -> str:
    """As SQLAlchemy writes it."""
    if place.startswith("postgresql:"):
        return place.replace("postgresql:", "postgresql+asyncpg:", 1)
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite+aiosqlite:///{place}"


async def added(scheduler: Any, size: int) -> float:
    """Microseconds for each: the first is due in a day, and no two at once."""
    began = time.perf_counter()
    start = datetime.now(UTC) + timedelta(days=1)
    for number in range(size):
        later = timedelta(milliseconds=number + 1)
        trigger = interval(days=1, microseconds=1000 * (number + 1), start_time=start + later)
        await scheduler.add_schedule(noop, trigger)
    return (time.perf_counter() - began) / size * 1e6


async def fill(size: int, place: str) -> dict[str, float]:
    """A database, for another process."""
    async with made(place) as scheduler:
        return {"adding one, microseconds": await added(scheduler, size)}


async def idle(size: int, place: str) -> dict[str, float]:
    """With so many schedules."""
    numbers: dict[str, float] = {}
    if place != "memory":
        command = [sys.executable, __file__, "fill", str(size), place]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        numbers |= json.loads(done.stdout)
    before, began = resident(), time.perf_counter()
    async with made(place) as scheduler:
        await scheduler.start_in_background()
        if place == "memory":
            numbers["adding one, microseconds"] = await added(scheduler, size)
        else:
            numbers["ready with all of them, s"] = time.perf_counter() - began
        numbers["memory, bytes a job"] = (resident() - before) / size
        numbers |= await watched(asyncio.sleep, size)
    return numbers


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    questions: dict[str, Any] = {"idle": idle, "fill": fill}
    with asyncio.Runner(loop_factory=counted_loop) as runner:
        print(json.dumps(runner.run(questions[sys.argv[1]](int(sys.argv[2]), sys.argv[3]))))
