"""What do jobs cost that are not due?

Claim: 100,000 jobs that are not due cost no measurable CPU: the process uses the same share of a core with them as
without.

    python benchmarks/idle.py [--size 100000] [--rounds 3]
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from datetime import timedelta

import anyio
import side_by_side

from clepsydra import Every, Job, Scheduler

WATCHED = 10.0
"""Seconds."""


def with_jobs(size: int) -> Mapping[str, float]:
    """So many jobs, the first of them due in a day, at distinct instants."""

    async def measure() -> Mapping[str, float]:
        scheduler = Scheduler()

        @scheduler.task(name="noop")
        async def noop() -> None: ...

        async with scheduler:
            jobs = (Job(f"job {n}", noop, Every(timedelta(days=1, milliseconds=n + 1))) for n in range(size))
            began = time.perf_counter()
            await scheduler.add_jobs(jobs)
            added = time.perf_counter() - began
            await anyio.sleep(1)
            return {**await _watch(), "adding one, microseconds": added / size * 1e6 if size else 0.0}

    return anyio.run(measure)


def without_jobs(size: int) -> Mapping[str, float]:
    """The same scheduler, empty."""
    return {"CPU, percent of a core": with_jobs(0)["CPU, percent of a core"]}


async def _watch() -> Mapping[str, float]:
    before = _cpu()
    await anyio.sleep(WATCHED)
    return {"CPU, percent of a core": (_cpu() - before) / WATCHED * 100}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    side_by_side.main(
        "jobs that are not due", {"clepsydra": with_jobs, "no jobs at all": without_jobs}, size=100_000, rounds=3
    )
