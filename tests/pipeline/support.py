"""What the stories of the chain share: a world with a virtual clock, a store, and tasks that keep a diary.

Everything here is the real thing: the scheduler, the chain, the store. `FaultyStorage` is a store that fails where a
test says so; all else it leaves to the store behind it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, TypeVar, cast

import anyio
from attrs import Factory, define, frozen

from clepsydra import (
    Execution,
    ExecutionFilter,
    ExecutorSettings,
    Job,
    Kind,
    MemoryStorage,
    Schedule,
    Scheduler,
    Stages,
    State,
    Storage,
    Task,
    Verdict,
    current_execution,
)
from clepsydra.model.events import TelemetryEvent
from clepsydra.model.instants import to_datetime, to_instant
from clepsydra.pipeline.runtime import Runtime
from clepsydra.pipeline.wiring import Chain
from clepsydra.storage.audit import Violation, audit
from clepsydra.storage.lane import StorageLane
from clepsydra.testing.clock import START, VirtualClock

T = TypeVar("T")

QUIET = Stages(loop_blocked=None)
"""The defaults without the watchdog's thread, which has nothing to see on a virtual clock."""

FAR = datetime(2200, 1, 1, tzinfo=UTC)


def slots(count: int, **more: Any) -> Stages:
    """Settings with so many slots per queue."""
    return Stages(executor=ExecutorSettings(concurrency=count, **more), loop_blocked=None)


@frozen
class Ran:
    """A task has begun."""

    name: str
    """Of its job, or else of the task."""
    at: float
    """Seconds since the world began, on its wall clock."""
    nominal: datetime | None
    attempt: int
    execution_id: str


@define(eq=False)
class World:
    """A clock, a store, and what has run."""

    start: datetime = START
    storage: Storage = Factory(MemoryStorage)
    stages: Stages = QUIET
    clock: VirtualClock = Factory(lambda self: VirtualClock(self.start, patience=20), takes_self=True)
    ran: list[Ran] = Factory(list[Ran])
    ended: list[str] = Factory(list[str])
    """Names of those that came to their own end, in order."""
    cut: list[str] = Factory(list[str])
    """Names of those that were cancelled."""
    running: int = 0
    most_running: int = 0
    gate: anyio.Event = Factory(anyio.Event)
    tasks: dict[str, Task[..., Any]] = Factory(dict[str, Task[..., Any]])

    def __attrs_post_init__(self) -> None:
        functions: list[Any] = [self.note, self.say, self.work, self.wait, self.fail]
        for function in functions:
            self.tasks[function.__name__] = Task(function, function.__name__)

    # Tasks.

    def _begin(self) -> str:
        run = current_execution()
        at = (self.clock.time - self.start).total_seconds()
        self.ran.append(Ran(run.name, at, run.nominal, run.attempt, run.id))
        return run.name

    async def note(self) -> None:
        """Begin and end."""
        self.ended.append(self._begin())

    async def say(self, text: str) -> str:
        """Give back what it was given."""
        self.ran.append(Ran(text, (self.clock.time - self.start).total_seconds(), None, 1, current_execution().id))
        return text

    async def work(self, seconds: float) -> None:
        """Take so long, on the virtual clock."""
        await self._occupied(lambda: current_execution().sleep(seconds))

    async def wait(self) -> None:
        """Until the test opens the gate."""

        async def at_the_gate() -> None:
            with self.clock.resting():
                await self.gate.wait()

        await self._occupied(at_the_gate)

    async def fail(self) -> None:
        """Raise."""
        self._begin()
        raise ValueError("on purpose")

    async def _occupied(self, way: Callable[[], Any]) -> None:
        name = self._begin()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await way()
            self.ended.append(name)
        except anyio.get_cancelled_exc_class():
            self.cut.append(name)
            raise
        finally:
            self.running -= 1

    def job(self, name: str, schedule: Schedule | None = None, task: str = "note", **options: Any) -> Job:
        """A job of one of these tasks."""
        return Job(name, self.tasks[task], schedule, **options)

    # The scheduler.

    def scheduler(self, *jobs: Job, **options: Any) -> Scheduler:
        """One on this world's clock and store, that declares these jobs."""
        options.setdefault("stages", self.stages)
        options.setdefault("name", "here")
        tasks = [*self.tasks.values(), *options.pop("tasks", ())]
        return Scheduler(options.pop("storage", self.storage), jobs=jobs, tasks=tasks, clock=self.clock, **options)

    @asynccontextmanager
    async def running_with(self, *jobs: Job, **options: Any) -> AsyncGenerator[Scheduler]:
        """A scheduler that runs, to which these jobs have been added at run time."""
        async with self.scheduler(**options) as scheduler:
            await scheduler.add_jobs(jobs)
            yield scheduler

    async def pass_time(self, seconds: float) -> None:
        """Let it pass."""
        await self.clock.advance(seconds)

    async def clock_moves(self, awaitable: Awaitable[T]) -> T:
        """Wait for something that needs time to pass, and let it."""
        result: list[T] = []
        done = anyio.Event()

        async def wait() -> None:
            try:
                result.append(await awaitable)
            finally:
                done.set()

        try:
            with anyio.fail_after(20):  # real seconds: a clock that cannot move must not hang the run
                async with anyio.create_task_group() as group:
                    group.start_soon(wait)
                    await self.clock.pass_until(done)
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise
        return result[0]

    # What has happened.

    def times(self, name: str) -> list[float]:
        """When it ran, in seconds since the beginning."""
        return [ran.at for ran in self.ran if ran.name == name]

    def nominals(self, name: str) -> list[float]:
        """The nominal times that ran, in seconds since the beginning."""
        times = [ran.nominal for ran in self.ran if ran.name == name]
        return [(time - self.start).total_seconds() for time in times if time is not None]

    def names(self) -> list[str]:
        """Who ran, in order."""
        return [ran.name for ran in self.ran]

    def open_gate(self) -> None:
        """Let those who wait go on."""
        self.gate.set()

    def at(self, seconds: float) -> datetime:
        """The time so many seconds after the beginning."""
        return self.start + timedelta(seconds=seconds)


# What a test looks at.


async def verdicts(scheduler: Scheduler, job: str, start: datetime = START, end: datetime = FAR) -> list[Verdict]:
    """All verdicts of a job."""
    return [verdict async for verdict in scheduler.verdicts(job, start, end)]


async def kinds(scheduler: Scheduler, job: str, start: datetime = START) -> list[Kind | None]:
    """The kinds of all its verdicts, in the order of time."""
    return [verdict.kind for verdict in await verdicts(scheduler, job, start)]


async def executions_of(scheduler: Scheduler, job: str) -> list[Execution]:
    """All executions of a job, the oldest first."""
    return list((await scheduler.executions(ExecutionFilter(jobs=[job]), limit=1000)).items)


async def states(scheduler: Scheduler, job: str) -> list[State]:
    """The states of all executions of a job, the oldest first."""
    return [execution.state for execution in await executions_of(scheduler, job)]


async def violations(scheduler: Scheduler, *jobs: str) -> list[Violation]:
    """Where law 1 does not hold, for these jobs or for all that there are."""
    names = jobs or tuple(record.name for record in scheduler.jobs)
    found: list[Violation] = []
    for name in names:
        pages = await lane_of(scheduler).read(
            lambda store, name=name: store.verdicts(name, 0, to_instant(FAR)),  # type: ignore[misc]
            counted=False,
        )
        found += audit(pages)
    return found


def runtime_of(scheduler: Scheduler) -> Runtime:
    """The present, or last, run of a scheduler."""
    runtime = scheduler._runtime  # pyright: ignore[reportPrivateUsage]
    assert runtime is not None
    return runtime


def chain_of(scheduler: Scheduler) -> Chain:
    """The chain of a scheduler that runs."""
    return runtime_of(scheduler).chain


def lane_of(scheduler: Scheduler) -> StorageLane:
    """Its door to the store."""
    return chain_of(scheduler).lane


class Heard:
    """Every event that a scheduler tells."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.events: list[TelemetryEvent] = []
        scheduler.attach(self.events.append)

    def of(self, kind: type[TelemetryEvent]) -> list[Any]:
        """Those of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


# Faults.

When: TypeAlias = Literal["before", "after"]


@define(eq=False)
class Fault:
    """What goes wrong: which calls of an operation, before or after it has taken effect, and with what error."""

    operation: str
    error: Callable[[], BaseException]
    when: When = "before"
    skip: int = 0
    """So many calls are let pass."""
    times: int = 1
    struck: int = 0

    def strikes(self) -> None:
        """Called at each call of the operation; raises when it is the turn."""
        if self.skip:
            self.skip -= 1
        elif self.struck < self.times:
            self.struck += 1
            raise self.error()


class FaultyStorage:
    """A store whose calls fail where a test says so. Everything else is the store behind it."""

    def __init__(self, inner: Storage | None = None) -> None:
        self.inner: Storage = MemoryStorage() if inner is None else inner
        self.faults: list[Fault] = []
        self.calls: list[str] = []
        self.down: Callable[[], BaseException] | None = None
        """While it is set, every call raises what it makes."""
        self.before: Callable[[str], None] | None = None
        """Called with the name of each operation, before it."""

    @property
    def storage(self) -> Storage:
        """This, as what it stands for."""
        return cast(Storage, self)

    def fail(self, operation: str, error: Callable[[], BaseException], when: When = "before", **more: int) -> Fault:
        """Let an operation fail."""
        fault = Fault(operation, error, when, **more)
        self.faults.append(fault)
        return fault

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if name not in OPERATIONS:
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.before is not None:
                self.before(name)
            if self.down is not None:
                raise self.down()
            self._strike(name, "before")
            answer = value(*args, **kwargs)
            self._strike(name, "after")
            return answer

        return call

    def _strike(self, name: str, when: When) -> None:
        for fault in self.faults:
            if fault.operation == name and fault.when == when:
                fault.strikes()


OPERATIONS: Collection[str] = frozenset(
    (
        *("heartbeat_node", "rescue", "changes"),
        *("load_jobs", "put_jobs", "set_job_state", "delete_jobs", "list_jobs", "count_jobs", "purge"),
        *("put_tasks", "fire", "add_executions", "get_executions", "list_attempts", "list_executions"),
        *("count_executions", "stats", "ready", "next_due", "unplaced", "place", "start", "heartbeat", "finish"),
        *("cancel_executions", "retry_executions", "delete_executions", "running", "verdicts", "delete_history"),
    )
)


def grid(first: float, last: float, step: float = 1) -> list[float]:
    """From the first to the last, that one included."""
    count = round((last - first) / step) + 1
    return [first + index * step for index in range(count)]


def datetimes(instants: Iterable[int]) -> list[datetime]:
    """Instants as the times they are."""
    return [to_datetime(instant) for instant in instants]
