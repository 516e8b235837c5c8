"""How many recurring jobs a second can be run, second after second, and how late?

Claim: 10,000 no-op async jobs that are due each second, all at one instant, in memory, are all run, with a lateness of
at most a tenth of APScheduler 3.11's; and the rate that holds on one core is above the 57,000 a second of Quantum on
the BEAM (which was measured elsewhere). Every run has its verdict and its outcome, and retention is on. The bars below
say which part of that this run bears out.

A run counts as done if it has begun by a second after the last instant of the window. "Spread" are jobs whose times are
spread over the second as they were added. The highest rate that holds is searched for by doubling and then by halving
the gap, in windows of a tenth of the size (1 s at least), two of them where the first does not hold: it is the highest
at which every run was done. APScheduler is told to drop nothing and to make up for all; the bare loop is a heap,
workers, and an id, a verdict and an outcome per run in dicts.

    python benchmarks/steady_state.py [--size 30] [--rounds 5] [--group "10,000 a second"]     the size is in seconds
"""

from __future__ import annotations

import gc
import math
import time
from array import array
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import anyio
import bare_loops
import fan_out
import peers
import side_by_side
from attrs import define, field
from contenders import Bar, Contender, Measure, limit, peer
from ledger import audited

from clepsydra import Cron, Every, Job, Schedule, Scheduler, current_execution

RATES = (1_000, 10_000, 50_000)
CLOSE = 1.05
"""The search ends when the lowest rate that did not hold is at most so many times the highest that did."""
MOST = 1_000_000

Numbers = Mapping[str, float]
Steady = Callable[[int, int], Numbers]
"""What a rate and a number of seconds come to: how many runs were due and done, their lateness in ms, CPU and time."""


@define
class Window:
    """The seconds that are watched, and what began in them."""

    rate: int
    span: int
    begin: int
    late: array[float] = field(factory=lambda: array("d"))

    @property
    def end(self) -> int:
        """The first instant that is not watched."""
        return self.begin + self.span

    def started(self, due: float) -> None:
        """A run that was due then begins now."""
        self.late.append(time.time() - due)

    async def watch(self, spread: bool) -> Numbers:
        """Until a second after its last instant."""
        if time.time() > self.begin:
            raise SystemExit(f"the first jobs were due before all {self.rate} were added")
        await anyio.sleep(self.begin - 0.1 - time.time())
        used, since = time.process_time(), time.time()
        await anyio.sleep(self.end + spread - time.time())
        done, used, took = len(self.late), time.process_time() - used, time.time() - since
        numbers = {"due": float(self.rate * self.span), "done": float(done), "cpu": used, "took": took}
        if done:
            ranked = sorted(1000 * each for each in self.late[:done])
            numbers |= {"median": ranked[done // 2], "p99": ranked[done * 99 // 100]}
        return numbers


def ours(rate: int, span: int, *, spread: bool = False) -> Numbers:
    """All defaults, in memory."""

    async def measure() -> Numbers:
        scheduler = Scheduler()
        window = Window(rate, span, math.ceil(time.time() + 1.5 + 2 * await fan_out.pace() * rate))

        @scheduler.task(name="noop")
        async def noop() -> None:
            nominal = current_execution().nominal
            assert nominal is not None
            window.started(nominal.timestamp())

        first, end = (datetime.fromtimestamp(at, UTC) for at in (window.begin, window.end))
        each_second: Schedule = Every(1) if spread else Cron("* * * * * *")
        schedule = each_second.between(first, end)
        async with scheduler:
            await scheduler.add_jobs(Job(f"job {number}", noop, schedule) for number in range(rate))
            numbers = await window.watch(spread)
        audited(scheduler.storage)
        return numbers

    return anyio.run(measure)


def bare(rate: int, span: int, *, spread: bool = False) -> Numbers:
    """A heap and workers on asyncio."""

    async def measure() -> Numbers:
        window = Window(rate, span, math.ceil(time.time() + 1))

        async def noop(_: int, due: float) -> None:
            if due < window.end:
                window.started(due)

        loop, numbers = bare_loops.InMemory(noop), dict[str, float]()
        if spread:
            for number in range(rate):
                loop.add(window.begin + number / rate, 1.0, [number])
        else:
            loop.add(window.begin, 1.0, list(range(rate)))
        async with anyio.create_task_group() as group:
            group.start_soon(loop.run)
            numbers.update(await window.watch(spread))
            group.cancel_scope.cancel()
        return numbers

    return anyio.run(measure)


def of_peer(name: str, rate: int, span: int, *, spread: bool = False) -> Numbers:
    """In its own environment."""
    numbers: Numbers = peers.measured(name, "steady", rate, str(span), "spread" if spread else "one")
    return numbers


# ---- what is told of it


def told(steady: Steady, rate: int, size: int) -> Numbers:
    """Of a rate, for so many seconds."""
    numbers = steady(rate, size)
    figures = {
        "done of due, percent": 100 * numbers["done"] / numbers["due"],
        "CPU, percent of a core": 100 * numbers["cpu"] / numbers["took"],
    }
    if numbers["done"]:
        figures |= {"CPU of the process, microseconds a run": 1e6 * numbers["cpu"] / numbers["done"]}
        figures |= {"lateness, median ms": numbers["median"], "lateness, 99th ms": numbers["p99"]}
    return figures


def highest(steady: Steady, size: int) -> Numbers:
    """By doubling, and then by halving the gap."""
    span, held, failed = max(1, size // 10), 0, 0
    rate = RATES[0]
    while rate <= MOST and (not failed or failed > CLOSE * held):
        if holds(steady, rate, span) or holds(steady, rate, span):  # what others do may spoil one window
            held = rate
        else:
            failed = rate
        rate = 2 * held if not failed else (held + failed) // 2
        if rate < 1:
            break
    return {"highest rate that holds, per second": float(held)}


def holds(steady: Steady, rate: int, span: int) -> bool:
    """Whether every run is done."""
    numbers = steady(rate, span)
    gc.collect()
    return numbers["done"] >= numbers["due"]


def measures(steady: Steady, spread: Steady) -> Mapping[str, Measure]:
    """The measure of each group, with times at one instant and spread ones."""
    return {
        **{f"{rate:,} a second": partial(told, steady, rate) for rate in RATES},
        f"{RATES[1]:,} a second, spread": partial(told, spread, RATES[1]),
        "highest rate": partial(highest, steady),
        "highest rate, spread": partial(highest, spread),
    }


def measures_of(steady: Callable[..., Numbers]) -> Mapping[str, Measure]:
    """The same, of a function that can do both."""
    return measures(steady, partial(steady, spread=True))


def mine(measure: Measure) -> Contender:
    """Ours."""
    return Contender(measure, "ours", "All defaults, in memory, on asyncio.", "clepsydra")


def contenders(group: str) -> Mapping[str, Measure]:
    """Of a group."""
    of = {
        name: peer(measures_of(partial(of_peer, key))[group], key, peers.configured(key))
        for name, key in (("APScheduler 3.11", "apscheduler3"), ("APScheduler 4", "apscheduler4"))
    }
    least = limit(measures_of(bare)[group], "A heap, workers, and an id, a verdict and an outcome per run in dicts.")
    return {"clepsydra": mine(measures_of(ours)[group]), **of, "bare loop": least}


GROUPS = tuple(measures_of(ours))
BARS = (
    Bar(measure="done of due, percent", at_least=100, group="10,000 a second"),
    Bar(measure="lateness, median ms", at_most=0.1, beside="APScheduler 3.11", group="10,000 a second"),
    Bar(measure="lateness, 99th ms", at_most=0.1, beside="APScheduler 3.11", group="10,000 a second"),
    Bar(measure="highest rate that holds, per second", at_least=57_000, group="highest rate"),
)

if __name__ == "__main__":
    side_by_side.groups(
        "recurring no-op jobs, each due once a second, in memory",
        {group: contenders(group) for group in GROUPS},
        size=30,
        bars=BARS,
        more_is_better=["done of due, percent"],
        plotted=["lateness, median ms", "lateness, 99th ms", "highest rate that holds, per second"],
    )
