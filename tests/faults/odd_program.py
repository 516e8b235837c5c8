"""Hosts in trouble, each in a process of its own: `odd_program.py WHAT DATABASE BACKEND`. They say it aloud."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from clepsydra import ClepsydraError, Every, Misfire, Scheduler, SQLiteStorage, Stages
from clepsydra.model.events import StoreDegraded, StoreRecovered, TelemetryEvent

NOBODY = 65534
QUICK_END = Stages(grace=0.1)


def say(what: str) -> None:
    """One line, at once."""
    os.write(1, f"{what}\n".encode())


async def hung_thread(database: Path) -> None:
    """Ends while a plain function of its hangs for ever."""
    scheduler = Scheduler(SQLiteStorage(database), stages=QUICK_END)
    hangs = threading.Event()

    @scheduler.task(name="hang")
    def hang() -> None:
        hangs.set()
        threading.Event().wait()

    async with scheduler:
        await scheduler.enqueue(hang.call())
        await until(hangs.is_set)
    say("left")


async def interrupted(database: Path) -> None:
    """Is interrupted from the keyboard while tasks of both sorts run."""
    scheduler = Scheduler(SQLiteStorage(database), stages=QUICK_END)
    hangs = threading.Event()

    @scheduler.task(name="hang")
    def hang() -> None:
        hangs.set()
        threading.Event().wait()

    @scheduler.task(name="sleep")
    async def sleep() -> None:
        await anyio.sleep_forever()

    async with scheduler:
        await scheduler.enqueue([hang.call(), sleep.call()])
        await until(hangs.is_set)
        say("running")
        await anyio.sleep_forever()


async def read_only(database: Path) -> None:
    """May not write the file."""
    if os.getuid() == 0:
        os.setuid(NOBODY)
    await tell_error(database)


async def tell_error(database: Path) -> None:
    """Says why the store cannot be opened; the app goes on."""
    try:
        async with Scheduler(SQLiteStorage(database)):
            say("entered")
    except ClepsydraError as error:
        say(f"{type(error).__name__}: {error}")
    say("the app is up")


async def full_disk(database: Path) -> None:
    """Files cannot grow for a while."""
    scheduler = Scheduler(SQLiteStorage(database))
    runs: list[int] = []
    degraded, recovered = anyio.Event(), anyio.Event()

    def hear(event: TelemetryEvent) -> None:
        if isinstance(event, StoreDegraded):
            degraded.set()
        elif isinstance(event, StoreRecovered):
            recovered.set()

    @scheduler.job(Every(0.02), name="all", misfire=Misfire(take="all"))
    async def note() -> None:
        runs.append(1)

    scheduler.attach(hear)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with scheduler:
        await until(lambda: len(runs) > 3)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_of_log(database), most))
        await degraded.wait()
        say(f"degraded: {scheduler.health().reasons[0]}")
        before = len(runs)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        await recovered.wait()
        await until(lambda: len(runs) > before + 20)
        say("caught up")


def size_of_log(database: Path) -> int:
    """What has been written and not checkpointed yet."""
    return os.path.getsize(f"{database}-wal")


async def until(fact: Callable[[], bool]) -> None:
    """Wait for it."""
    while not fact():  # noqa: ASYNC110 - whatever makes it true sets no event
        await anyio.sleep(0.01)


TROUBLES: dict[str, Callable[[Path], Awaitable[None]]] = {
    trouble.__name__: trouble for trouble in (hung_thread, interrupted, read_only, full_disk)
}


if __name__ == "__main__":
    anyio.run(TROUBLES[sys.argv[1]], Path(sys.argv[2]), backend=sys.argv[3])
