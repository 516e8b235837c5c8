"""How late do jobs start that are all due at one instant, and for how long do they hold the event loop?

Claim: of 10,000 recurring no-op async jobs in memory, due at one instant, the last one starts in at most a tenth of the
time that APScheduler 3.11 takes, a thirtieth of APScheduler 4's and ten times that of the bare loop; up to 100,000 jobs
nothing of ours holds the event loop for more than 10 ms, the collector's own pauses apart. Every run is recorded with
its verdict, and the ledger is audited afterwards. The bars below say which part of that this run bears out.

The bare loop is the least program that gives the same answer: a heap, a pool of workers fed in lists, and dicts that
record an id, a verdict and an outcome for each run. Starts are counted from the instant. A hold is what the thread
computes between two turns of a ticker that wants to run each millisecond, so it can be told up to 1 ms too long.

    python benchmarks/fan_out.py [--size 10000] [--rounds 5] [--group trio]
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import anyio
import peers
import side_by_side
from contenders import Bar, Contender, Measure, limit, peer
from peer_programs.watch import Watch, a_whole_second

from clepsydra import Cron, Job, Scheduler

SIZES = (1, 100, 1000, 10_000, 100_000)
A_DAY = 86_400.0
OURS_PACE = 0.0001
"""Seconds to add a job of ours, generously; one that is late is noticed."""


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

    async with scheduler, anyio.create_task_group() as tasks:
        due = a_whole_second(OURS_PACE, size)
        at = datetime.fromtimestamp(due, UTC)
        schedule = Cron(f"{at.second} {at.minute} {at.hour} * * *")
        await scheduler.add_jobs(Job(f"job {number}", noop, schedule) for number in range(size))
        if time.time() > due:
            raise SystemExit(f"the jobs were due before all {size} were added")
        tasks.start_soon(watch.tick, anyio.sleep, due)
        await reached.wait()
        report = await scheduler.verify()
        if not report.ok:
            raise SystemExit(f"the ledger does not balance: {report}")
    return watch.numbers(due)


async def bare(size: int) -> Mapping[str, float]:
    """A heap of all jobs, which are due again a day later, and a pool of workers; nothing is spawned for a run."""
    reached = anyio.Event()
    watch = Watch(size, reached.set)
    due = a_whole_second(0, size)
    heap = [(due, f"job {number}") for number in range(size)]
    heapq.heapify(heap)
    send, receive = anyio.create_memory_object_stream[list[tuple[float, str]]](2)
    books = Books()

    async def noop() -> None:
        watch.started()

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(books.work, receive, noop)
        tasks.start_soon(watch.tick, anyio.sleep, due)
        while (left := due - time.time()) > 0:
            await anyio.sleep(max(left, 0.001))  # uvloop counts whole milliseconds
        async with send:
            while heap[0][0] <= due:
                await send.send([next_due(heap) for _ in range(64) if heap[0][0] <= due])
    assert len(books.verdicts) == len(books.outcomes) == size
    return watch.numbers(due)


def next_due(heap: list[tuple[float, str]]) -> tuple[float, str]:
    """Taken, and put back for the next day."""
    nominal, name = heap[0]
    heapq.heapreplace(heap, (nominal + A_DAY, name))
    return nominal, name


class Books:
    """What the bare loop records: by job and nominal time the verdict and the run, by run the outcome."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, float], tuple[str, int]] = {}
        self.outcomes: dict[int, str] = {}
        self._ids = count()

    async def work(self, batches: Any, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what comes, as one of the workers."""
        async for batch in batches:
            for nominal, name in batch:
                number = next(self._ids)
                self.verdicts[name, nominal] = ("fired", number)
                await task()
                self.outcomes[number] = "succeeded"


APSCHEDULER_3 = (
    "Its asyncio scheduler, memory job store and cron triggers; told not to drop runs that are more than a second late "
    "(`misfire_grace_time=None`; by default it drops them). The rest is default. It keeps no record of what ran."
)
APSCHEDULER_4 = (
    "Its memory data store, local event broker and cron triggers; its task may run any number of times at once "
    "(`max_running_jobs=None`; by default once). The rest is default, 100 jobs at once among it."
)
AIOCRON = "A crontab for each job, all defaults: a timer and a task for each run. It keeps no record of what ran."
TASKIQ = (
    "Its scheduler with the label source and the in-memory broker, all defaults. Its crons have whole minutes, so these "
    "are one-shot jobs (`time`), which it looks at each second."
)
BARE = "A heap of recurring jobs, four long-lived workers fed in lists of 64, two dicts for verdicts and outcomes."


def of_peer(name: str, loop: str, size: int) -> Mapping[str, float]:
    """One of the peers, in its environment."""
    numbers: Mapping[str, float] = peers.measured(name, "fan_out", size, loop)
    return numbers


def contenders(loop: str) -> Mapping[str, Measure]:
    """Those that run on that loop."""
    peer_on = partial(partial, of_peer)
    everywhere: dict[str, Measure] = {
        "clepsydra": Contender(partial(on, loop, ours), "ours", "In memory, all defaults, retention among them."),
        "APScheduler 4": peer(peer_on("apscheduler4", loop), "apscheduler4", APSCHEDULER_4, most=10_000),
        "bare loop": limit(partial(on, loop, bare), BARE),
    }
    if loop == "trio":
        return everywhere
    return {
        **everywhere,
        "APScheduler 3.11": peer(peer_on("apscheduler3", loop), "apscheduler3", APSCHEDULER_3),
        "aiocron": peer(peer_on("aiocron", loop), "aiocron", AIOCRON, most=10_000),
        "taskiq": peer(peer_on("taskiq", loop), "taskiq", TASKIQ, most=10_000),
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
