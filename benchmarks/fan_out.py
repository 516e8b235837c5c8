"""How late do jobs start that are all due at one instant, and for how long do they hold the event loop?

Claim: of 10,000 recurring no-op async jobs in memory, due at one instant, the last one starts in at most a tenth of the
time that APScheduler 3.11 takes, a thirtieth of APScheduler 4's and ten times that of the bare loop; up to 100,000 jobs
nothing of ours holds the event loop for more than 10 ms, the collector's own pauses apart. Every run is recorded with
its verdict, and the ledger is audited afterwards. The bars below say which part of that this run bears out.

The bare loop is the least program that gives the same answer: a heap, a pool of workers, and dicts that record an id, a
verdict and an outcome for each run. Starts are counted from the instant. A hold is what the thread
computes between two turns of a ticker that wants to run each millisecond, so it can be told up to 1 ms too long.

    python benchmarks/fan_out.py [--size 10000] [--rounds 5] [--group trio]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import bare_loops
import peers
import side_by_side
from contenders import Bar, Contender, Measure, limit, peer
from ledger import audited_while_it_runs
from peer_programs.watch import Watch, a_whole_second

from clepsydra import Cron, Job, Scheduler, Task

SIZES = (1, 100, 1000, 10_000, 100_000)
A_DAY = 86_400.0
SAMPLES = 500
"""Jobs that are added to see how long that takes here and now."""


def on(loop: str, measure: Callable[[int], Coroutine[Any, Any, Mapping[str, float]]], size: int) -> Mapping[str, float]:
    """Run it on that event loop."""
    if loop == "trio":
        return anyio.run(measure, size, backend="trio")
    return anyio.run(measure, size, backend_options={"use_uvloop": loop == "uvloop"})


async def ours(size: int) -> Mapping[str, float]:
    """In memory, all defaults."""
    scheduler, reached = Scheduler(), anyio.Event()
    watch = Watch(size, reached.set)

    @scheduler.task(name="noop")
    async def noop() -> None:
        watch.started()

    due: float = a_whole_second(await pace(), size)
    at = datetime.fromtimestamp(due, UTC)
    schedule = Cron(f"{at.second} {at.minute} {at.hour} * * *")
    async with scheduler, anyio.create_task_group() as tasks:
        await scheduler.add_jobs(Job(f"job {number}", noop, schedule) for number in range(size))
        if time.time() > due:
            raise SystemExit(f"the jobs were due before all {size} were added")
        tasks.start_soon(watch.tick, anyio.sleep, due)
        await reached.wait()
        await audited_while_it_runs(scheduler)
    numbers: Mapping[str, float] = watch.numbers(due)
    return numbers


async def pace() -> float:
    """Seconds to add a job of ours, with something to spare."""
    noop = Task(_noop, "noop")
    async with Scheduler(tasks=[noop]) as scheduler:
        began = time.perf_counter()
        await scheduler.add_jobs(Job(f"sample {number}", noop, Cron("0 0 29 2 *")) for number in range(SAMPLES))
        return 1.5 * (time.perf_counter() - began) / SAMPLES


async def _noop() -> None: ...


async def bare(size: int) -> Mapping[str, float]:
    """All jobs under one time of its heap; nothing is spawned for a run."""
    watch = Watch(size, lambda: None)

    async def noop(_number: int, _due: float) -> None:
        watch.started()

    due = a_whole_second(0, size)
    loop = bare_loops.InMemory(noop)
    loop.add(due, A_DAY, list(range(size)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run)
        await watch.tick(anyio.sleep, due)
        tasks.cancel_scope.cancel()
    numbers: Mapping[str, float] = watch.numbers(due)
    return numbers


BARE = "A heap of recurring jobs, long-lived workers, dicts for the runs, their verdicts and their outcomes."


def of_peer(name: str, loop: str, size: int) -> Mapping[str, float]:
    """One of the peers, in its environment."""
    numbers: Mapping[str, float] = peers.measured(name, "fan_out", size, loop)
    return numbers


def beside(name: str, loop: str, most: int | None = None) -> Contender:
    """A peer, up to that size."""
    return peer(partial(of_peer, name, loop), name, peers.configured(name, "fan_out"), most=most)


def contenders(loop: str) -> Mapping[str, Measure]:
    """Those that run on that loop."""
    everywhere: dict[str, Measure] = {
        "clepsydra": Contender(partial(on, loop, ours), "ours", "In memory, all defaults, retention among them."),
        "APScheduler 4": beside("apscheduler4", loop, 10_000),
        "bare loop": limit(partial(on, loop, bare), BARE),
    }
    if loop == "trio":
        return everywhere
    return {
        **everywhere,
        "APScheduler 3.11": beside("apscheduler3", loop),
        "aiocron": beside("aiocron", loop, 10_000),
        "taskiq": beside("taskiq", loop, 10_000),
    }


LAST, HOLD = "last start, ms", "longest hold of the loop, ms of CPU"
BARS = [
    Bar(measure=LAST, at_most=1 / 10, beside="APScheduler 3.11", group="asyncio", size=10_000),
    Bar(measure=LAST, at_most=1 / 30, beside="APScheduler 4", group="asyncio", size=10_000),
    Bar(measure=LAST, at_most=10, beside="bare loop", group="asyncio", size=10_000),
    *(Bar(measure=HOLD, at_most=10, group=loop) for loop in ("asyncio", "uvloop", "trio")),
]

if __name__ == "__main__":
    side_by_side.groups(
        "fan-out: recurring jobs due at one instant, in memory",
        {loop: contenders(loop) for loop in ("asyncio", "uvloop", "trio")},
        size=SIZES,
        bars=BARS,
        plotted=("first start, ms", LAST, HOLD),
    )
