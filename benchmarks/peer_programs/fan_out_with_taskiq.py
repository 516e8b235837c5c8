"""taskiq, its fan-out measured: `fan_out_with_taskiq.py fan_out SIZE asyncio|uvloop`.

Its scheduler with the label source and the in-memory broker, all defaults. Its crons have whole minutes, so the jobs
are one-shot ones (`time`), which it looks at each second and drops after their run; the broker keeps the last 100
results.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from watch import Watch, a_whole_second

taskiq: Any = importlib.import_module("taskiq")  # of an environment of its own, not of the checks
LabelScheduleSource: Any = importlib.import_module("taskiq.schedule_sources").LabelScheduleSource
SchedulerLoop: Any = importlib.import_module("taskiq.cli.scheduler.run").SchedulerLoop


async def fan_out(size: int) -> dict[str, float]:
    """Add them, and wait for all."""
    reached = asyncio.Event()
    watch, broker = Watch(size, reached.set), taskiq.InMemoryBroker()

    async def noop() -> None:
        watch.started()

    due: float = a_whole_second(0.0001, size)
    schedule = [{"time": datetime.fromtimestamp(due, UTC)} for _ in range(size)]
    broker.task(task_name="noop", schedule=schedule)(noop)
    scheduler = taskiq.TaskiqScheduler(broker, [LabelScheduleSource(broker)])
    for source in scheduler.sources:
        await source.startup()
    await scheduler.startup()
    running = asyncio.create_task(SchedulerLoop(scheduler).run())
    ticking = asyncio.create_task(watch.tick(asyncio.sleep, due))
    await reached.wait()
    await ticking
    running.cancel()
    await asyncio.wait([running])
    await scheduler.shutdown()
    numbers: dict[str, float] = watch.numbers(due)
    return numbers


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    loop: Any = importlib.import_module("uvloop").new_event_loop if sys.argv[3] == "uvloop" else None
    with asyncio.Runner(loop_factory=loop) as runner:
        print(json.dumps(runner.run(fan_out(int(sys.argv[2])))))
