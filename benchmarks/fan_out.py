"""How late do jobs start that are all due at one instant?

Claim: of 10,000 recurring no-op async jobs in memory, due at one instant, the last one starts in at most a fifth of
the time that APScheduler 3.11 takes, on asyncio; every run is recorded with its verdict. APScheduler is told not to
drop late runs (by default it drops all that are more than a second late) and keeps its memory job store.

    python benchmarks/fan_out.py [--size 10000] [--rounds 5]
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import side_by_side

from clepsydra import Cron, Job, Scheduler


def lateness(starts: list[float], due: datetime) -> Mapping[str, float]:
    """First, median and last start, in milliseconds after the instant."""
    late = sorted((start - due.timestamp()) * 1000 for start in starts)
    return {"first start, ms": late[0], "median start, ms": late[len(late) // 2], "last start, ms": late[-1]}


def soon(size: int) -> datetime:
    """A whole second that leaves time to add the jobs."""
    return (datetime.now(UTC) + timedelta(seconds=3 + size / 2500)).replace(microsecond=0)


class Finish:
    """Set by the last of so many starts."""

    def __init__(self, size: int) -> None:
        self.starts: list[float] = []
        self.reached = anyio.Event()
        self._size = size

    def started(self) -> None:
        """One more, now."""
        self.starts.append(time.time())
        if len(self.starts) == self._size:
            self.reached.set()


def ours(size: int) -> Mapping[str, float]:
    """Clepsydra, in memory, all defaults."""

    async def measure() -> Mapping[str, float]:
        scheduler, finish = Scheduler(), Finish(size)

        @scheduler.task(name="noop")
        async def noop() -> None:
            finish.started()

        async with scheduler:
            due = soon(size)
            schedule = Cron(f"{due.second} {due.minute} {due.hour} * * *")
            await scheduler.add_jobs(Job(f"job {number}", noop, schedule) for number in range(size))
            await finish.reached.wait()
        return lateness(finish.starts, due)

    return anyio.run(measure)


def apscheduler(size: int) -> Mapping[str, float]:
    """APScheduler 3.11, asyncio, memory job store."""
    peer: Any = importlib.import_module("apscheduler.schedulers.asyncio")  # of the bench group, not of the checks

    async def measure() -> Mapping[str, float]:
        scheduler, finish = peer.AsyncIOScheduler(timezone=UTC), Finish(size)

        async def noop() -> None:
            finish.started()

        due = soon(size)
        for _ in range(size):
            scheduler.add_job(
                noop, "cron", hour=due.hour, minute=due.minute, second=due.second, misfire_grace_time=None
            )
        scheduler.start()
        await finish.reached.wait()
        scheduler.shutdown(wait=False)
        return lateness(finish.starts, due)

    return asyncio.run(measure())


if __name__ == "__main__":
    side_by_side.main(
        "fan-out: recurring jobs due at one instant, in memory",
        {"clepsydra": ours, "APScheduler 3.11": apscheduler},
        size=10_000,
    )
