"""Do memory and lateness stay flat while it works for long?

Claim: at half of the highest rate that holds, neither the resident memory nor the lateness of the starts grows, in
memory and on SQLite and PostgreSQL; and an hour on the virtual clock leaves as much memory as it found. There is nobody
beside: the bar is flat. The bars below say which part of that this run bears out.

In real time the highest rate is searched for first, in short windows; then jobs that are due each second run at half of
it for so many seconds as the size says. Each second the resident memory and the median lateness of the starts are
noted; the first fifth, in which caches, the bounded history and the pools fill, is left out. Told are the slope of a
straight line through the rest, and the medians of its first and of its last third. In virtual time 100 jobs are due
each second, for six times as long, as fast as the machine can.

    python benchmarks/soak.py [--size 600] [--rounds 1] [--group memory]     the size is in seconds
"""

from __future__ import annotations

import gc
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import anyio
import databases
import side_by_side
from attrs import define, field
from contenders import Bar
from ledger import audited

from clepsydra import Cron, Job, PostgresStorage, Scheduler, SQLiteStorage, Storage, current_execution
from clepsydra.testing import VirtualClock

PLACES: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    "memory": lambda: nullcontext(""),
    "SQLite": databases.sqlite_file,
    "PostgreSQL": databases.postgres_database,
}
STORES: Mapping[str, Callable[[str], Storage | None]] = {
    "memory": lambda _: None,
    "SQLite": SQLiteStorage,
    "PostgreSQL": PostgresStorage,
}
LEFT_OUT = 5
"""One in so many of the samples, from the first."""
TRIAL = 4
"""Seconds of a window of the search, where it goes on for a while."""
LOWEST, CLOSE = 200, 1.1
VIRTUAL_JOBS = 100


def resident() -> float:
    """Megabytes of memory that the process has now; where the system does not say, the most that it has had."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@define
class Watch:
    """What was seen of a run: each sample is when, the memory and the median lateness of the starts since the last."""

    begin: float = math.inf
    end: float = math.inf
    """Starts for times before the one and from the other on do not count."""
    samples: list[tuple[float, float, float]] = field(factory=list[tuple[float, float, float]])
    late: list[float] = field(factory=list[float])
    runs: int = 0

    def started(self) -> None:
        """A run begins now."""
        nominal = current_execution().nominal
        assert nominal is not None
        due = nominal.timestamp()
        if self.begin <= due < self.end:
            self.runs += 1
            self.late.append(time.time() - due)

    def sample(self, at: float) -> None:
        """Now."""
        late, self.late = self.late, []
        if late:
            self.samples.append((at, resident(), 1000 * statistics.median(late)))

    def figures(self) -> Mapping[str, float]:
        """Slopes by the minute, and the first and the last third."""
        kept = self.samples[len(self.samples) // LEFT_OUT :]
        if len(kept) < 3:
            raise SystemExit(f"{len(kept)} samples say nothing: give it more time")
        numbers: dict[str, float] = {"runs": float(self.runs)}
        for column, what in ((1, "memory, MB"), (2, "lateness, ms")):
            line = statistics.linear_regression([one[0] / 60 for one in kept], [one[column] for one in kept])
            numbers[f"{what} more in a minute"] = line.slope
            for place, third in (("first", kept[: len(kept) // 3]), ("last", kept[-(len(kept) // 3) :])):
                numbers[f"{what}, {place} third"] = statistics.median(one[column] for one in third)
        return numbers


async def soaked(storage: Storage | None, rate: int, seconds: int) -> tuple[Watch, int]:
    """So many jobs each second; what was seen from a second after the last was added, and how many starts were due."""
    watch, scheduler = Watch(), Scheduler(storage)

    @scheduler.task(name="noop")
    async def noop() -> None:
        watch.started()

    async with scheduler:
        await scheduler.add_jobs(Job(f"job {number}", noop, Cron("* * * * * *")) for number in range(rate))
        begin = math.ceil(time.time() + 1)
        watch.begin, watch.end = begin, begin + seconds
        for at in range(begin + 1, watch.end + 1):
            await anyio.sleep(max(0.0, at - 0.05 - time.time()))
            watch.sample(at - begin)
    audited(scheduler.storage)
    return watch, rate * seconds


# ---- real time


def highest(store: str, size: int) -> int:
    """The highest rate that holds, about."""
    seconds = min(TRIAL, max(1, size // 10))
    held, failed, rate = 0, 0, LOWEST
    while not failed or failed > CLOSE * max(held, LOWEST / 2):
        with PLACES[store]() as place:
            watch, due = anyio.run(soaked, STORES[store](place), rate, seconds)
        gc.collect()
        if watch.runs >= due:
            held = rate
        else:
            failed = rate
        rate = 2 * held if not failed else (held + failed) // 2
    if not held:
        raise SystemExit(f"not even {rate} jobs a second hold here: the machine is too busy to say anything")
    return held


def real(store: str, size: int) -> Mapping[str, float]:
    """All defaults, at half of the highest rate, which is searched for by a process of its own."""
    command = [sys.executable, __file__, "--highest", store, str(size)]
    rate = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) // 2
    with PLACES[store]() as place:
        watch, due = anyio.run(soaked, STORES[store](place), rate, size)
    return {"runs due each second": float(rate), "done of due, percent": 100 * watch.runs / due, **watch.figures()}


# ---- virtual time


async def compressed(seconds: int) -> Mapping[str, float]:
    """All defaults, in memory, on the virtual clock; looked at sixty times."""
    step = max(1, seconds // 60)
    clock, memory, runs = VirtualClock(), list[float](), 0
    scheduler = Scheduler(clock=clock)

    @scheduler.task(name="noop")
    async def noop() -> None:
        nonlocal runs
        runs += 1

    began = time.perf_counter()
    async with scheduler:
        await scheduler.add_jobs(Job(f"job {number}", noop, Cron("* * * * * *")) for number in range(VIRTUAL_JOBS))
        for _ in range(seconds // step):
            await clock.advance(step)
            memory.append(resident())
    audited(scheduler.storage)
    kept = memory[len(memory) // LEFT_OUT :]
    passed = seconds // step * step
    if runs != VIRTUAL_JOBS * passed:
        raise SystemExit(f"{runs} runs of {VIRTUAL_JOBS * passed}: the virtual clock leaves none out")
    return {
        "virtual seconds per second": passed / (time.perf_counter() - began),
        "runs": float(runs),
        "memory, MB more in a minute": statistics.linear_regression(range(len(kept)), kept).slope * 60 / step,
        "memory, MB, first third": statistics.median(kept[: len(kept) // 3]),
        "memory, MB, last third": statistics.median(kept[-(len(kept) // 3) :]),
    }


def virtual(size: int) -> Mapping[str, float]:
    """All defaults, in memory, on the virtual clock."""
    return anyio.run(compressed, 6 * size)


BARS = (
    *(
        Bar(measure=f"{what}, last third", at_most=most, than=f"{what}, first third")
        for what, most in (("memory, MB", 1.02), ("lateness, ms", 1.2))
    ),
    Bar(measure="done of due, percent", at_least=100),
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--highest"]:
        print(highest(sys.argv[2], int(sys.argv[3])))
        sys.exit()
    side_by_side.groups(
        "half of the highest rate for minutes, and an hour on the virtual clock",
        {
            "virtual time": {"clepsydra": virtual},
            **{store: {"clepsydra": partial(real, store)} for store in STORES},
        },
        size=600,
        rounds=1,
        around={"PostgreSQL": databases.postgres_server},
        bars=BARS,
        patience=1800,
        more_is_better=["done of due, percent", "runs"],
    )
