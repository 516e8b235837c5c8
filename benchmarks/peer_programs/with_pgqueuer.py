"""pgqueuer, measured: `with_pgqueuer.py drain|pick_up SIZE DSN`, in an environment where it is installed.

The asyncpg driver on one connection. To drain, batches of 1,000, with which it was fastest when we looked into it; 10,
its default, where single calls are picked up. Its tables are logged ones, as they are by default.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from datetime import timedelta
from typing import Any

BATCH = 1000
CALLERS = 100
pgqueuer: Any = importlib.import_module("pgqueuer")  # of an environment of its own, not of the checks
asyncpg: Any = importlib.import_module("asyncpg")


async def drain(size: int, dsn: str) -> dict[str, float]:
    """Enqueue, then run all of it."""
    connection = await asyncpg.connect(dsn)
    queries = pgqueuer.Queries(pgqueuer.AsyncpgDriver(connection))
    await queries.install()
    began = time.perf_counter()
    for start in range(0, size, 1000):
        count = min(1000, size - start)
        await queries.enqueue(["noop"] * count, [None] * count, [0] * count)
    numbers = {"enqueued in bulk, per second": size / (time.perf_counter() - began)}
    singly = max(1, size // 20)
    began = time.perf_counter()
    for _ in range(singly):
        await queries.enqueue("noop", None)
    numbers["enqueued one by one, per second"] = singly / (time.perf_counter() - began)
    manager = pgqueuer.PgQueuer(pgqueuer.AsyncpgDriver(connection))
    ran = 0

    async def noop(job: object) -> None:
        nonlocal ran
        ran += 1

    manager.entrypoint("noop")(noop)
    began, used = time.perf_counter(), time.process_time()
    drained = importlib.import_module("pgqueuer.types").QueueExecutionMode.drain
    await manager.qm.run(batch_size=BATCH, mode=drained)
    numbers["run and recorded, per second"] = ran / (time.perf_counter() - began)
    numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / ran * 1e6
    assert ran == size + singly, f"{ran} ran of {size + singly}"
    return numbers


async def pick_up(size: int, dsn: str) -> list[tuple[float, float]]:
    """Enqueue one after another on another connection: seconds from each call, and from its return, to the start."""
    connection, other = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    queries = pgqueuer.Queries(pgqueuer.AsyncpgDriver(other))
    await queries.install()
    manager = pgqueuer.PgQueuer(pgqueuer.AsyncpgDriver(connection))
    began = asyncio.Event()
    started = 0.0

    async def noop(job: object) -> None:
        nonlocal started
        started = time.perf_counter()
        began.set()

    manager.entrypoint("noop")(noop)
    worker = asyncio.create_task(manager.qm.run(batch_size=10, dequeue_timeout=timedelta(seconds=5)))
    await asyncio.sleep(1)
    late: list[tuple[float, float]] = []
    for _ in range(size):
        called = time.perf_counter()
        await queries.enqueue("noop", None)
        returned = time.perf_counter()
        await began.wait()
        began.clear()
        late.append((started - called, started - returned))
        await asyncio.sleep(0.02)
    manager.shutdown.set()
    await worker
    return late


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"drain": drain, "pick_up": pick_up}[sys.argv[1]](int(sys.argv[2]), sys.argv[3]))))
