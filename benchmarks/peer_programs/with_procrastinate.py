"""procrastinate, measured: `with_procrastinate.py drain|pick_up SIZE DSN`, in an environment where it is installed.

One worker, psycopg, a concurrency of 30 when it drains and 10 otherwise; the rest are its defaults.
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
ENOUGH = 1000
"""It runs some hundreds a second: so many say what more would."""
procrastinate: Any = importlib.import_module("procrastinate")  # of an environment of its own, not of the checks


async def drain(size: int, dsn: str) -> dict[str, float]:
    """Enqueue, then run all of it."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
    size, ran = min(size, ENOUGH), 0

    async def noop() -> None:
        nonlocal ran
        ran += 1

    task = app.task(name="noop")(noop)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began = time.perf_counter()
        for start in range(0, size, 1000):
            await task.batch_defer_async(*({} for _ in range(min(1000, size - start))))
        numbers = {"enqueued in bulk, per second": size / (time.perf_counter() - began)}
        singly = max(1, size // 20)
        began = time.perf_counter()
        for _ in range(singly):
            await task.defer_async()
        numbers["enqueued one by one, per second"] = singly / (time.perf_counter() - began)
        began, used = time.perf_counter(), time.process_time()
        await app.run_worker_async(wait=False, concurrency=CONCURRENCY, install_signal_handlers=False)
        numbers["run and recorded, per second"] = ran / (time.perf_counter() - began)
        numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / ran * 1e6
    assert ran == size + singly, f"{ran} ran of {size + singly}"
    return numbers


async def pick_up(size: int, dsn: str) -> list[tuple[float, float]]:
    """Enqueue one after another on another connection of its pool: seconds from call and return to start."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
    began = asyncio.Event()
    started = 0.0

    async def noop() -> None:
        nonlocal started
        started = time.perf_counter()
        began.set()

    task = app.task(name="noop")(noop)
    late: list[tuple[float, float]] = []
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(concurrency=10, install_signal_handlers=False))
        await asyncio.sleep(1)
        for _ in range(size):
            called = time.perf_counter()
            await task.defer_async()
            returned = time.perf_counter()
            await began.wait()
            began.clear()
            late.append((started - called, started - returned))
            await asyncio.sleep(0.02)
        worker.cancel()
        await asyncio.wait([worker])
    return late


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run({"drain": drain, "pick_up": pick_up}[sys.argv[1]](int(sys.argv[2]), sys.argv[3]))))
