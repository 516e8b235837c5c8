"""How does the cost of a fire grow: with jobs, with history, with nodes?

Claim: what it costs to fire, run and record one execution less than doubles from 1,000 to 1,000,000 jobs in memory, and
stays within 20 % from 100,000 to 10,000,000 rows of history on SQLite and on PostgreSQL. With nodes it does grow: each
of them would fire every time, and all but one find that they came second. There is no limit beside: the bar is flat.
The bars below say which part of that this run bears out.

With jobs, in memory: bursts of 1,000 no-op runs, a second apart, ten of them, beside jobs that are due later; from a
thousandth of the size up to the size, by factors of ten, APScheduler 3.11 up to 100,000 jobs and 4 up to 10,000.

With history: 500 jobs that are due every two seconds, ten times, and that have run before: after a tenth of the size in
rows, and after ten times the size. The rows are written in bulk, 100,000 by a statement, as the library would have
written them one by one: an execution that has succeeded for each time of each job, the cursors moved to the last, the
statistics made. Up to a million rows all of it is audited afterwards.

With nodes: 200 jobs that are due each second, ten times, in a store that 1, 2, 4 and 8 schedulers share, each in a
process of its own with its own connections. Each time is fired by one of them; the CPU is that of all.

The wall time of a fire is that until the last start of a burst, divided by its runs, at the median of the bursts.

    python benchmarks/growth.py [--size 1000000] [--rounds 5] [--group "history, SQLite"]     the size is a scale
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import databases
import filled
import peers
import side_by_side
from attrs import define, field
from contenders import Bar, Contender, Measure, peer
from ledger import audited

from clepsydra import Cron, Job, PostgresStorage, Scheduler, SQLiteStorage, Storage, Task, current_execution

BURST = 1000
BURSTS = 10
PEERS_REACH = {"apscheduler3": 100_000, "apscheduler4": 10_000}
AUDITED = 1_000_000
LEAD = 0.1
"""Seconds before the first burst from which the CPU is counted."""
WITH_HISTORY = 500
SHARED = 200
NODES = (1, 2, 4, 8)

STORES: Mapping[str, Callable[[str], Storage]] = {"SQLite": SQLiteStorage, "PostgreSQL": PostgresStorage}

Cost = Mapping[str, float]
"""Seconds of CPU, and of the clock on the wall, for one fire."""


def curve(cost: Callable[[int], Cost], sizes: Sequence[int], of: str) -> Mapping[str, float]:
    """The costs at each size, in microseconds, and how much they have grown from the first to the last."""
    numbers: dict[str, float] = {}
    costs = {size: cost(size) for size in sizes}
    for kind in ("CPU", "wall"):
        for size, one in costs.items():
            numbers[f"{kind} of a fire at {size:,} {of}, us"] = one[kind.lower()] * 1e6
        first, last = (costs[size][kind.lower()] for size in (sizes[0], sizes[-1]))
        numbers[f"{kind} of a fire, last to first size"] = last / first
    return numbers


@define
class Bursts:
    """The starts of no-op runs, by the time for which they were."""

    starts: dict[float, list[float]] = field(factory=lambda: defaultdict[float, list[float]](list))

    def task(self) -> Task[[], Any]:
        """One that notes its starts here."""

        async def noop() -> None:
            nominal = current_execution().nominal
            assert nominal is not None
            self.starts[nominal.timestamp()].append(time.time())

        return Task(noop, "noop")

    async def watch(self, times: Sequence[float], burst: int) -> Cost:
        """Until all runs of these times have begun."""
        if time.time() > times[0] - LEAD:
            raise SystemExit("the first burst was due before all was ready")
        await anyio.sleep(times[0] - LEAD - time.time())
        used = time.process_time()
        await anyio.sleep(max(0.0, times[-1] - time.time()))  # and nothing of ours goes on meanwhile
        while len(self.starts[times[-1]]) < burst:  # noqa: ASYNC110 - the task does nothing but note its start
            await anyio.sleep(0.01)
        await anyio.sleep(0.1)  # for the last outcomes
        used = time.process_time() - used
        last = statistics.median(max(self.starts[at]) - at for at in times)
        return {"cpu": used / (burst * len(times)), "wall": last / burst}


# ---- with jobs


def with_jobs(size: int) -> Mapping[str, float]:
    """All defaults, in memory."""
    return curve(
        lambda jobs: anyio.run(beside_jobs, jobs), [max(1, size // part) for part in (1000, 100, 10, 1)], "jobs"
    )


async def beside_jobs(jobs: int) -> Cost:
    """Bursts, beside jobs that are due in half an hour."""
    bursts, scheduler, burst = Bursts(), Scheduler(), min(jobs, BURST)
    groups = max(1, min(BURSTS, jobs // BURST))
    noop = bursts.task()
    async with scheduler:
        scheduler.task(noop)
        later = (datetime.now(UTC).minute + 30) % 60
        await scheduler.add_jobs(
            Job(f"bystander {number}", noop, Cron(f"{number % 60} {(later + number // 60 % 20) % 60} * * * *"))
            for number in range(jobs - groups * burst)
        )
        begin = math.ceil(time.time() + 1 + groups * burst / 2000)
        for group in range(groups):
            seconds = sorted((begin + at) % 60 for at in range(group, BURSTS, groups))
            schedule = Cron(f"{','.join(map(str, seconds))} * * * * *")
            await scheduler.add_jobs(Job(f"job {group}.{number}", noop, schedule) for number in range(burst))
        cost = await bursts.watch([float(begin + number) for number in range(BURSTS)], burst)
    audited(scheduler.storage)
    return cost


def of_peer(name: str, size: int) -> Mapping[str, float]:
    """In its own environment."""
    sizes = [max(1, size // part) for part in (1000, 100, 10, 1)]
    reached = [each for each in sizes if each <= PEERS_REACH[name]]
    return curve(lambda jobs: peers.measured(name, "growth", jobs, str(BURSTS)), reached, "jobs")


# ---- with history


def with_history(store: str, size: int) -> Mapping[str, float]:
    """All defaults."""
    rows = [max(1, size // 10), 10 * size]
    return curve(partial(after_history, store), rows, "rows")


def after_history(store: str, rows: int) -> Cost:
    """Bursts of jobs that have run so many times together."""
    bursts = Bursts()
    noop, past = bursts.task(), filled.Past(min(rows, WITH_HISTORY), max(1, rows // WITH_HISTORY))
    with databases.sqlite_file() if store == "SQLite" else databases.postgres_database() as place:
        anyio.run(filled.add, STORES[store](place), noop, past)
        (filled.on_sqlite if store == "SQLite" else filled.on_postgres)(place, past)
        storage = STORES[store](place)
        cost = anyio.run(fired, storage, noop, bursts, past.jobs)
        if rows <= AUDITED:
            audited(storage, at_least=past.jobs * past.times)
    return cost


async def fired(storage: Storage, noop: Task[[], Any], bursts: Bursts, jobs: int) -> Cost:
    """After what was due in the meantime, whose latest time is made up for at once."""
    async with Scheduler(storage, tasks=[noop]) as scheduler:
        anchor = scheduler.jobs[0].anchor / 1e6
        while sum(map(len, bursts.starts.values())) < jobs:  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)
        periods = math.ceil((time.time() + 1 - anchor) / filled.PERIOD)
        return await bursts.watch([anchor + filled.PERIOD * (periods + number) for number in range(BURSTS)], jobs)


# ---- with nodes


def with_nodes(store: str, size: int) -> Mapping[str, float]:
    """All defaults."""
    return curve(partial(shared, store), NODES if size >= 1000 else NODES[:2], "nodes")


def shared(store: str, nodes: int) -> Cost:
    """Bursts of jobs that each of so many nodes would fire."""
    with databases.sqlite_file() if store == "SQLite" else databases.postgres_database() as place:
        anyio.run(add_shared, STORES[store](place))
        command = [sys.executable, __file__, "--node", store, place]
        started = [_process(command) for _ in range(nodes)]
        for process in started:
            _heard(process)
        begin = math.ceil(time.time() + 1)
        for process in started:
            _tell(process, begin)
        told = [json.loads(process.communicate()[0]) for process in started]
        audited(STORES[store](place), at_least=SHARED * BURSTS)
    starts: dict[str, list[float]] = {}
    for one in told:
        for nominal, times in one["starts"].items():
            starts.setdefault(nominal, []).extend(times)
    if any(len(times) != SHARED for times in starts.values()) or len(starts) != BURSTS:
        raise SystemExit(f"the nodes did not keep up: {sum(map(len, starts.values()))} runs of {SHARED * BURSTS}")
    last = statistics.median(max(times) - float(nominal) for nominal, times in starts.items())
    return {"cpu": sum(one["cpu"] for one in told) / (SHARED * BURSTS), "wall": last / SHARED}


def _process(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _tell(process: subprocess.Popen[str], begin: int) -> None:
    """When the first burst is due."""
    assert process.stdin is not None
    process.stdin.write(f"{begin}\n")
    process.stdin.flush()


def _heard(process: subprocess.Popen[str]) -> None:
    """It has said that it is ready."""
    assert process.stdout is not None
    if not process.stdout.readline():
        raise SystemExit("a node has ended before the bursts began; what it said stands above")


async def add_shared(storage: Storage) -> None:
    """Jobs that are due each second; nothing is due while they are added."""
    noop = Bursts().task()
    async with Scheduler(storage, tasks=[noop]) as scheduler:
        await scheduler.add_jobs(Job(f"job {number}", noop, Cron("* * * * * *")) for number in range(SHARED))


async def node(storage: Storage) -> None:
    """One of them: its CPU while the bursts last, and its starts."""
    bursts = Bursts()
    async with Scheduler(storage, tasks=[bursts.task()]):
        print("ready", flush=True)
        begin = int(await anyio.to_thread.run_sync(sys.stdin.readline))
        times = [float(begin + number) for number in range(BURSTS)]
        await anyio.sleep(max(0.0, begin - LEAD - time.time()))
        used = time.process_time()
        await anyio.sleep(times[-1] + 1 - LEAD - time.time())
        used = time.process_time() - used
    print(json.dumps({"cpu": used, "starts": {at: bursts.starts[at] for at in times if at in bursts.starts}}))


def apscheduler(key: str) -> Contender:
    """One of the two."""
    return peer(partial(of_peer, key), key, peers.configured(key))


GROUPS: Mapping[str, Mapping[str, Measure]] = {
    "jobs, memory": {
        "clepsydra": with_jobs,
        "APScheduler 3.11": apscheduler("apscheduler3"),
        "APScheduler 4": apscheduler("apscheduler4"),
    },
    **{f"history, {store}": {"clepsydra": partial(with_history, store)} for store in STORES},
    **{f"nodes, {store}": {"clepsydra": partial(with_nodes, store)} for store in STORES},
}
BARS = (
    Bar(measure="CPU of a fire, last to first size", at_most=2, group="jobs, memory"),
    *(
        Bar(measure=f"{kind} of a fire, last to first size", at_most=1.2, group=f"history, {store}")
        for store in STORES
        for kind in ("CPU", "wall")
    ),
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--node"]:
        _, _, chosen, where = sys.argv
        anyio.run(node, STORES[chosen](where))
        sys.exit()
    side_by_side.groups(
        "the cost of a fire, with jobs, history and nodes",
        GROUPS,
        size=1_000_000,
        around={f"{kind}, PostgreSQL": databases.postgres_server for kind in ("history", "nodes")},
        bars=BARS,
        patience=3600,
    )
