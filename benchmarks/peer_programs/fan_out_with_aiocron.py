"""aiocron, its fan-out measured: `fan_out_with_aiocron.py fan_out SIZE asyncio|uvloop`.

A crontab for each job, all defaults: a timer of the event loop and a task for each run, and no record of what ran.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from watch import Watch, a_whole_second

aiocron: Any = importlib.import_module("aiocron")  # of an environment of its own, not of the checks


async def fan_out(size: int) -> dict[str, float]:
    """Add them, and wait for all."""
    reached = asyncio.Event()
    watch = Watch(size, reached.set)

    async def noop() -> None:
        watch.started()

    began = time.time()
    for _ in range(20):
        aiocron.crontab("0 0 1 1 *", noop, tz=UTC).stop()
    await asyncio.sleep(0)
    due: float = a_whole_second((time.time() - began) / 20, size)
    at = datetime.fromtimestamp(due, UTC)
    spec = f"{at.second} {at.minute} {at.hour} * * *"
    jobs = [aiocron.crontab(spec, noop, tz=UTC) for _ in range(size)]
    await asyncio.sleep(0)  # they start in the next turn of the loop
    if time.time() > due:
        raise SystemExit(f"the jobs were due before all {size} were added")
    ticking = asyncio.create_task(watch.tick(asyncio.sleep, due))
    await reached.wait()
    await ticking
    for job in jobs:
        job.stop()
    numbers: dict[str, float] = watch.numbers(due)
    return numbers


if __name__ == "__main__":
    loop: Any = importlib.import_module("uvloop").new_event_loop if sys.argv[3] == "uvloop" else None
    with asyncio.Runner(loop_factory=loop) as runner:
        print(json.dumps(runner.run(fan_out(int(sys.argv[2])))))
