"""oban-py on PostgreSQL, measured: `with_oban.py drain|pick_up SIZE DSN`, in an environment where it is installed.

One queue; a limit of 100 when it drains and 10 otherwise; its pool of up to 10 connections, its PostgreSQL notifier and
the rest of its defaults (its debounce of 5 ms, with which it gathers what has ended, among them). It needs Python 3.12.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import time
from typing import Any

LIMIT = 100
AT_ONCE = 1000
ENOUGH = 10_000
oban: Any = importlib.import_module("oban")  # of an environment of its own, not of the checks


async def installed(dsn: str) -> Any:
    """A pool, and its tables in the database."""
    pool = await oban.Oban.create_pool(dsn)
    async with pool.connection() as connection:
        await connection.execute(importlib.import_module("oban.schema").install_sql())
    return pool


async def drain(size: int, dsn: str) -> dict[str, float]:
    """Enqueue, then run all of it; until the last outcome is in the database."""
    pool = await installed(dsn)
    size, singly = min(size, ENOUGH), max(1, min(size, ENOUGH) // 20)
    ran, finished = 0, asyncio.Event()

    async def run() -> None:
        nonlocal ran
        ran += 1
        if ran == size + singly:
            finished.set()

    noop = oban.job()(run)
    async with oban.Oban(pool=pool) as client:
        began = time.perf_counter()
        for start in range(0, size, AT_ONCE):
            await client.enqueue_many([noop.new() for _ in range(min(AT_ONCE, size - start))])
        numbers = {"enqueued in bulk, per second": size / (time.perf_counter() - began)}
        began = time.perf_counter()
        for _ in range(singly):
            await client.enqueue(noop.new())
        numbers["enqueued one by one, per second"] = singly / (time.perf_counter() - began)
    began, used = time.perf_counter(), time.process_time()
    async with oban.Oban(pool=pool, queues={"default": LIMIT}):
        await finished.wait()
        await all_recorded(pool, size + singly)
        numbers["run and recorded, per second"] = ran / (time.perf_counter() - began)
        numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / ran * 1e6
    await pool.close()
    assert ran == size + singly, f"{ran} ran of {size + singly}"
    return numbers


async def all_recorded(pool: Any, size: int) -> None:
    """The last few are acknowledged together, a little after they have ended."""
    async with pool.connection() as connection:
        while True:
            rows = await connection.execute("SELECT count(*) FROM oban_jobs WHERE state = 'completed'")
            if (await rows.fetchone())[0] == size:
                return
            await asyncio.sleep(0.001)


async def pick_up(size: int, dsn: str) -> list[tuple[float, float]]:
    """Enqueue one after another: seconds from each call, and from its return, to the start."""
    pool = await installed(dsn)
    began = asyncio.Event()
    started = 0.0

    async def run() -> None:
        nonlocal started
        started = time.perf_counter()
        began.set()

    noop = oban.job()(run)
    late: list[tuple[float, float]] = []
    async with oban.Oban(pool=pool, queues={"default": 10}) as client:
        await asyncio.sleep(1)
        for _ in range(size):
            called = time.perf_counter()
            await client.enqueue(noop.new())
            returned = time.perf_counter()
            await began.wait()
            began.clear()
            late.append((started - called, started - returned))
            await asyncio.sleep(0.02)
    await pool.close()
    return late


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run({"drain": drain, "pick_up": pick_up}[sys.argv[1]](int(sys.argv[2]), sys.argv[3]))))
