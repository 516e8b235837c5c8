"""A process with a scheduler, to be killed: `worker_program.py PLACE EFFECTS NAME [OPTIONS]`.

PLACE is a SQLite file, or with `--schema` a connection string of PostgreSQL. Every effect of its tasks is a line that
is appended to EFFECTS in one write, so that what a killed process has done stays known; so is every change of its
health. It ends at SIGTERM, or kills itself where `--die-in fire:inside:3` says: at the third `fire` of the store,
`inside` its transaction or when that is `committed`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import cycle
from random import Random
from typing import Any

import anyio

from clepsydra import (
    Call,
    ClepsydraError,
    Every,
    ExecutorSettings,
    Job,
    Misfire,
    Overlap,
    Recovery,
    Retry,
    Scheduler,
    SQLiteStorage,
    Stages,
    Task,
    current_execution,
)
from clepsydra.model.events import OutcomeRefused, TelemetryEvent
from clepsydra.pipeline.settings import BroadcasterSettings
from clepsydra.storage.postgres import PostgresStorage
from clepsydra.storage.protocol import Storage

LOOK = 0.02
BULK = 10_000
FOR_EVER = Recovery.REQUEUE
ALL = Misfire(take="all")
PERSISTENT = Retry(attempts=1000, backoff=0.1, factor=1)


class Diary:
    """The file of effects."""

    def __init__(self, path: str, process: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._process = process

    def write(self, what: str, **facts: object) -> None:
        """One line, in one write: it is there or it is not."""
        line = {"what": what, "at": time.time_ns(), "process": self._process, **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def tell(self, what: str) -> None:
        """An effect of the run that this is called in."""
        run = current_execution()
        self.write(
            what,
            execution=run.id,
            lease=run.attempt_id,
            attempt=run.attempt,
            job=run.claim.job_name,
            job_id=run.claim.job_id,
            nominal=run.claim.nominal,
            task=run.claim.work.task,
        )

    @contextmanager
    def run(self) -> Generator[None]:
        """The beginning and the end of a run."""
        self.tell("begun")
        try:
            yield
        except BaseException:
            self.tell("failed")
            raise
        self.tell("ended")


class Death:
    """The end of the process, planned for a call of its store."""

    def __init__(self, storage: SQLiteStorage | PostgresStorage, plan: str) -> None:
        method, self._instant, number = plan.split(":")
        self._calls_left = int(number)
        self._depth = 0
        planned = partial(self._call, getattr(storage, method))
        for name, instead in ((method, planned), ("transaction", partial(self._transact, storage.transaction))):
            setattr(storage, name, instead)

    def _call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        batch = (kwargs.get("items") or kwargs.get("free")) if isinstance(args[0], str) else args[0]
        if batch:  # else there is nothing to do
            self._calls_left -= 1
        answer = method(*args, **kwargs)
        self._die_if("inside")
        return answer

    @contextmanager
    def _transact(self, transaction: Callable[[], AbstractContextManager[None]]) -> Generator[None]:
        """As ever, and then perhaps the end."""
        self._depth += 1
        try:
            with transaction():
                yield
        finally:
            self._depth -= 1
        if not self._depth:
            self._die_if("committed")

    def _die_if(self, instant: str) -> None:
        if self._calls_left <= 0 and instant == self._instant:
            os.kill(os.getpid(), signal.SIGKILL)


def storage_for(options: argparse.Namespace) -> Storage:
    """Where the command line says, with a death where it is planned."""
    storage: SQLiteStorage | PostgresStorage
    if options.schema is None:
        storage = SQLiteStorage(options.place)
    else:
        limits = {"connect_timeout": options.timeout, "statement_timeout": options.timeout}
        storage = PostgresStorage(options.place, schema=options.schema, **limits)
    if options.die_in:
        Death(storage, options.die_in)
    return storage


def settings_for(options: argparse.Namespace) -> Stages:
    """Quick, so that tests are."""
    return Stages(
        execution_broadcaster=BroadcasterSettings(poll=0.1),
        executor=ExecutorSettings(concurrency=32),
        lease=options.lease,
        heartbeat=options.lease / 3,
        call_deadline=options.timeout,
        grace=5,
        sweep=1,
    )


class Worker:
    """The scheduler with its tasks and jobs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.diary = Diary(options.effects, options.name)
        self.release = anyio.Path(options.effects + ".release")
        self.restless: bool = options.restless
        self.run: list[str] = options.run
        self.scheduler = Scheduler(
            storage_for(options),
            name=options.name,
            stages=settings_for(options),
            tasks=[Task(getattr(self, name), name) for name in TASKS],
            jobs=[job for job in JOBS if job.name in options.jobs.split(",")],
        )
        self.scheduler.attach(self._hear)

    # ---- tasks

    async def quick(self) -> None:
        """Ends at once."""
        with self.diary.run():
            pass

    async def slow(self, seconds: float) -> None:
        """Takes a while."""
        with self.diary.run():
            await anyio.sleep(seconds)

    async def bulky(self, load: str) -> None:
        """Ends at once; what it was given fills the disk."""
        with self.diary.run():
            assert len(load) == 2 * BULK

    def threaded(self) -> None:
        """In a thread."""
        with self.diary.run():
            time.sleep(0.01)

    async def fails_first(self) -> None:
        """Succeeds at the second attempt."""
        with self.diary.run():
            await anyio.sleep(0.005)
            if current_execution().attempt == 1:
                raise ValueError("the first attempt fails")

    async def parent(self) -> None:
        """Enqueues two calls and writes down that the store has them."""
        with self.diary.run():
            calls = [Call("quick", "{}"), Call("slow", '{"seconds": 0.02}')]
            children = await self.scheduler.enqueue(calls, recovery=FOR_EVER)
            self.diary.write("acknowledged", executions=[child.id for child in children])

    async def until(self) -> None:
        """Ends when it is released, in whichever process it runs."""
        with self.diary.run():
            while not await self.release.exists():  # noqa: ASYNC110 - another process makes the file
                await anyio.sleep(LOOK)

    # ---- the life of the process

    async def live(self) -> None:
        """Until SIGTERM."""
        async with anyio.create_task_group() as group:
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                self.diary.write("opening")
                async with self.scheduler:
                    self.diary.write("entered")
                    if self.restless:
                        group.start_soon(self._change_jobs)
                    else:
                        await self.scheduler.remove_job("moving", missing_ok=True)
                        self.diary.write("quiet")
                    group.start_soon(self._watch_health)
                    for job in self.run:
                        await self.scheduler.run_job(job)
                    async for _ in signals:
                        break
                    group.cancel_scope.cancel()
        self.diary.write("left")

    def _hear(self, event: TelemetryEvent) -> None:
        if isinstance(event, OutcomeRefused):
            self.diary.write("refused", job=event.job, attempt_id=event.attempt_id)

    async def _watch_health(self) -> None:
        """Tell of every change. This is the host app: if it stood still, nothing would be told."""
        known = "ok"
        while True:
            health = self.scheduler.health()
            if health.status != known:
                known = health.status
                self.diary.write(known, reasons=list(health.reasons))
            await anyio.sleep(LOOK)

    async def _change_jobs(self) -> None:
        """Add, replace, pause, resume, run and remove jobs, without end."""
        scheduler = self.scheduler
        intervals = cycle((0.05, 0.07, 0.11))

        def moving() -> Job:
            return Job("moving", "quick", Every(next(intervals)), misfire=ALL, recovery=FOR_EVER)

        while True:
            for change in (
                lambda: scheduler.add_job(moving()),
                lambda: scheduler.pause_job("all"),
                lambda: scheduler.run_job("skip"),
                lambda: scheduler.resume_job("all"),
                lambda: scheduler.run_job("moving"),
                lambda: scheduler.remove_job("moving"),
            ):
                with suppress(ClepsydraError):  # a second process may be faster, or it ends
                    await change()
                await anyio.sleep(0.03)


TASKS = ("quick", "slow", "threaded", "fails_first", "parent", "until", "bulky")
JOBS = (
    Job("allow", "quick", Every(0.05), overlap=Overlap.ALLOW, misfire=ALL, recovery=FOR_EVER),
    Job("all", "quick", Every(0.1), misfire=ALL, recovery=FOR_EVER),
    Job("skip", "slow", Every(0.05), args={"seconds": 0.08}, misfire=ALL, recovery=FOR_EVER),
    Job("latest", "threaded", Every(0.05), recovery=FOR_EVER),
    Job("buffer", "slow", Every(0.15), args={"seconds": 0.1}, overlap=Overlap.BUFFER_ONE, recovery=FOR_EVER),
    Job("cancel", "slow", Every(0.2), args={"seconds": 0.15}, overlap=Overlap.CANCEL_RUNNING, recovery=FOR_EVER),
    Job("retry", "fails_first", Every(0.2), retry=Retry(attempts=3, backoff=0.02), recovery=FOR_EVER),
    Job("parent", "parent", Every(0.1), overlap=Overlap.ALLOW, retry=PERSISTENT, recovery=FOR_EVER),
    Job("bulky", "bulky", Every(0.1), args={"load": Random(7).randbytes(BULK).hex()}, recovery=FOR_EVER),
    Job("until", "until", recovery=FOR_EVER),
    Job("strict", "until", on_lease_lost="cancel", recovery=FOR_EVER),
)


def main() -> None:
    """Read the command line and live."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place")
    parser.add_argument("effects")
    parser.add_argument("name")
    parser.add_argument("--jobs", default="", help="names of declared jobs, with commas")
    parser.add_argument("--restless", action="store_true", help="change jobs all the time")
    parser.add_argument("--schema")
    parser.add_argument("--run", nargs="*", default=[], help="run these jobs at once")
    parser.add_argument("--lease", type=float, default=1.5, help="in seconds")
    parser.add_argument("--timeout", type=float, default=30, help="seconds after which the store is taken for hung")
    parser.add_argument("--die-in", default="", help="method:inside|committed:number")
    parser.add_argument("--backend", default="asyncio")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    anyio.run(Worker(options).live, backend=options.backend)


if __name__ == "__main__":
    main()
