"""How much memory do queued executions take in the process?

Claim: the work that waits is in the store and not in the process: with a million queued executions, of which the first
are run, the process peaks at about the memory that it has with an empty store. They are enqueued by a process
of their own, in lists of 1,000. Up to 10,000 of them the ledger is audited.

    python benchmarks/queued_memory.py [--size 1000000] [--rounds 1]
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial

import anyio
import databases
import side_by_side
from drain import AT_ONCE, Counter, hold_nothing, that_does_not_run
from ledger import audited

from clepsydra import PostgresStorage, Scheduler, SQLiteStorage, Storage

RUN = 1000
"""So many of them are run, so that whatever the chain would load is loaded."""
AUDITED = 10_000
WATCHED = 5.0
"""Seconds in which it does nothing but hold them, where there are fewer than that."""

STORES: Mapping[str, Callable[[str], Storage]] = {"PostgreSQL": PostgresStorage, "SQLite": SQLiteStorage}


async def fill(storage: Storage, size: int) -> None:
    """Enqueue, and run nothing."""
    counter = Counter()
    async with that_does_not_run(storage, counter) as scheduler:
        for start in range(0, size, AT_ONCE):
            await scheduler.enqueue([counter.noop.call()] * min(AT_ONCE, size - start))


async def hold(storage: Storage, size: int) -> Mapping[str, float]:
    """Enter a scheduler, and run some if there are any."""
    counter = Counter()
    counter.wanted = min(RUN, size)
    async with Scheduler(storage, tasks=[counter.noop, hold_nothing]):
        if counter.wanted:
            await counter.reached.wait()
        else:
            await anyio.sleep(WATCHED)
    numbers = {"peak resident memory, MB": _peak()}
    if 0 < size <= AUDITED:
        audited(storage, at_least=size)
    return numbers


def _peak() -> float:
    """In megabytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def measured(store: str, full: bool, size: int) -> Mapping[str, float]:
    """With so many queued, or with none."""
    with databases.sqlite_file() if store == "SQLite" else databases.postgres_database() as place:
        if full:
            subprocess.run([sys.executable, __file__, "--fill", store, place, str(size)], check=True)
        return anyio.run(hold, STORES[store](place), size if full else 0)


CONTENDERS = {
    store: {"clepsydra": partial(measured, store, True), "an empty store": partial(measured, store, False)}
    for store in STORES
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        _, _, chosen, where, many = sys.argv
        anyio.run(fill, STORES[chosen](where), int(many))
        sys.exit()
    side_by_side.groups(
        "peak memory with executions queued",
        CONTENDERS,
        size=1_000_000,
        rounds=1,
        around={"PostgreSQL": databases.postgres_server},
    )
