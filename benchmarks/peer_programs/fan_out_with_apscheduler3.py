"""APScheduler 3.11, its fan-out measured: `fan_out_with_apscheduler3.py fan_out SIZE asyncio|uvloop`.

Its asyncio scheduler with the memory job store and cron triggers. It is told not to drop what is more than a second
late, as it does by default; the rest are its defaults. It keeps no record of what ran.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

from watch import Watch, a_whole_second

asyncio_scheduler: Any = importlib.import_module("apscheduler.schedulers.asyncio")  # of an environment of its own


async def fan_out(size: int) -> dict[str, float]:
    """Add them, and wait for all."""
    reached = asyncio.Event()
    watch = Watch(size, reached.set)
    scheduler = asyncio_scheduler.AsyncIOScheduler(timezone=UTC, job_defaults={"misfire_grace_time": None})

    async def noop() -> None:
        watch.started()

    scheduler.start(paused=True)
    due = await added(scheduler, noop, size)
    ticking = asyncio.create_task(watch.tick(asyncio.sleep, due))
    scheduler.resume()
    await reached.wait()
    await ticking
    scheduler.shutdown(wait=False)
    numbers: dict[str, float] = watch.numbers(due)
    return numbers


async def added(scheduler: Any, noop: Any, size: int) -> float:
    """When they are due."""
    began = time.time()
    for number in range(20):
        scheduler.add_job(noop, "cron", hour=number)
    due: float = a_whole_second((time.time() - began) / 20, size)
    scheduler.remove_all_jobs()
    at = datetime.fromtimestamp(due, UTC)
    for _ in range(size):
        scheduler.add_job(noop, "cron", hour=at.hour, minute=at.minute, second=at.second)
    if time.time() > due:
        raise SystemExit(f"the jobs were due before all {size} were added")
    return due


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    loop: Any = importlib.import_module("uvloop").new_event_loop if sys.argv[3] == "uvloop" else None
    with asyncio.Runner(loop_factory=loop) as runner:
        print(json.dumps(runner.run(fan_out(int(sys.argv[2])))))
