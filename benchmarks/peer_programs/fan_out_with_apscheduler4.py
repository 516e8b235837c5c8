"""APScheduler 4.0.0a6, its fan-out measured: `fan_out_with_apscheduler4.py fan_out SIZE asyncio|uvloop|trio`.

Its scheduler with the memory data store, the local event broker and cron triggers. Its task may run any number of times
at once (by default one); the rest are its defaults, 100 jobs at once among them.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

from watch import Watch, a_whole_second

anyio: Any = importlib.import_module("anyio")  # of an environment of its own, not of the checks
apscheduler: Any = importlib.import_module("apscheduler")
cron: Any = importlib.import_module("apscheduler.triggers.cron").CronTrigger


async def fan_out(size: int) -> dict[str, float]:
    """Add them, and wait for all."""
    reached = anyio.Event()
    watch = Watch(size, reached.set)

    async def noop() -> None:
        watch.started()

    async with anyio.create_task_group() as tasks, apscheduler.AsyncScheduler() as scheduler:
        await scheduler.configure_task("noop", func=noop, max_running_jobs=None)
        due = await added(scheduler, size)
        await scheduler.start_in_background()
        tasks.start_soon(watch.tick, anyio.sleep, due)
        await reached.wait()
        await scheduler.stop()
    numbers: dict[str, float] = watch.numbers(due)
    return numbers


async def added(scheduler: Any, size: int) -> float:
    """When they are due."""
    began = time.time()
    samples = [await scheduler.add_schedule("noop", cron(hour=number, timezone=UTC)) for number in range(20)]
    due: float = a_whole_second((time.time() - began) / 20, size)
    for sample in samples:
        await scheduler.remove_schedule(sample)
    at = datetime.fromtimestamp(due, UTC)
    for _ in range(size):
        trigger = cron(hour=at.hour, minute=at.minute, second=at.second, timezone=UTC)
        await scheduler.add_schedule("noop", trigger)
    if time.time() > due:
        raise SystemExit(f"the jobs were due before all {size} were added")
    return due


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    backend = "trio" if sys.argv[3] == "trio" else "asyncio"
    options = {} if backend == "trio" else {"use_uvloop": sys.argv[3] == "uvloop"}
    print(json.dumps(anyio.run(fan_out, int(sys.argv[2]), backend=backend, backend_options=options)))
