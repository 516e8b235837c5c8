"""SAQ on PostgreSQL, measured: `with_saq.py drain|pick_up SIZE DSN`, in an environment where it is installed.

Its PostgreSQL queue on a pool of 4 to 20 connections, one worker; a concurrency of 30 when it drains and 10, its
default, otherwise (more did not make it faster). It has no bulk insert on PostgreSQL. It keeps a job for ten minutes
after its end, as it does by default.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import time
from typing import Any

CONCURRENCY = 30
CALLERS = 100
ENOUGH = 2000
"""It runs about a thousand a second: so many say what more would."""
saq: Any = importlib.import_module("saq")  # of an environment of its own, not of the checks


async def drain(size: int, dsn: str) -> dict[str, float]:
    """Enqueue, then run all of it."""
    queue = saq.Queue.from_url(dsn)
    await queue.connect()
    size, singly = min(size, ENOUGH), max(1, min(size, ENOUGH) // 20)
    ran, finished = 0, asyncio.Event()

    async def enqueue(count: int) -> None:
        for _ in range(count):
            await queue.enqueue("noop")

    began = time.perf_counter()
    await asyncio.gather(*(enqueue(len(range(number, size, CALLERS))) for number in range(CALLERS)))
    numbers = {f"enqueued by {CALLERS} callers, per second": size / (time.perf_counter() - began)}
    began = time.perf_counter()
    await enqueue(singly)
    numbers["enqueued one by one, per second"] = singly / (time.perf_counter() - began)

    async def noop(_: object) -> None: ...

    async def recorded(_: object) -> None:
        nonlocal ran
        ran += 1
        if ran == size + singly:
            finished.set()

    functions = [("noop", noop)]
    worker = saq.Worker(queue, functions, concurrency=CONCURRENCY, after_process=recorded)
    began, used = time.perf_counter(), time.process_time()
    running = asyncio.create_task(worker.start())
    await finished.wait()
    numbers["run and recorded, per second"] = ran / (time.perf_counter() - began)
    numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / ran * 1e6
    await worker.stop()
    await running
    await queue.disconnect()
    return numbers


async def pick_up(size: int, dsn: str) -> list[tuple[float, float]]:
    """Enqueue one after another through another pool: seconds from each call, and from its return, to the start."""
    queue, other = saq.Queue.from_url(dsn), saq.Queue.from_url(dsn)
    await queue.connect()
    await other.connect()
    began = asyncio.Event()
    started = 0.0

    async def noop(_: object) -> None:
        nonlocal started
        started = time.perf_counter()
        began.set()

    worker = saq.Worker(queue, [("noop", noop)])
    running = asyncio.create_task(worker.start())
    await asyncio.sleep(1)
    late: list[tuple[float, float]] = []
    for _ in range(size):
        called = time.perf_counter()
        await other.enqueue("noop")
        returned = time.perf_counter()
        await began.wait()
        began.clear()
        late.append((started - called, started - returned))
        await asyncio.sleep(0.02)
    await worker.stop()
    await running
    await queue.disconnect()
    await other.disconnect()
    return late


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run({"drain": drain, "pick_up": pick_up}[sys.argv[1]](int(sys.argv[2]), sys.argv[3]))))
