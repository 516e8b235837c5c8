"""The scheduler: the one object that users hold.

It registers tasks and jobs, starts and ends the chain, and passes commands to it. Its commands and questions stand in
`job_face.py`, `execution_face.py` and `answers.py`; what it is made of is in `wiring.py`, how one run of it goes in
`runtime.py`. Everything here is for the event loop's thread, but for `from_thread` and `enqueue_in`. Nothing happens
before it is entered, and it can be entered again when it has ended, on another loop too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

import anyio
from anyio.abc import TaskGroup, TaskStatus

from ..model.clock import Clock, SystemClock
from ..model.errors import (
    InvalidArgument,
    SchedulerFailed,
    SchedulerNotRunning,
    UnknownTask,
)
from ..model.ids import IdMaker
from ..model.instants import SECOND, to_micros
from ..model.job import Job, check_name
from ..model.policies import Recovery, count_of, one_of, optional_count
from ..model.schedule import Schedule
from ..model.strategies import Node, RunStrategy
from ..model.task import Task
from ..storage.lane import StorageLane
from ..storage.memory import MemoryStorage
from ..storage.protocol import (
    Storage,
    TaskRow,
)
from .callers import Callers
from .declared_file import placed_in, read_declared_file
from .declaring import Declaring
from .from_thread import FromThread
from .health import Health, complaints
from .options import JobOptions, TaskOptions, check_options
from .registry import Registry
from .runtime import Runtime
from .settings import DEFAULTS, Stages
from .telemetry import Handler, Subscription, Telemetry
from .wiring import Chain

P = ParamSpec("P")
R = TypeVar("R")


class _Decorator(Protocol):
    """Makes a task of a function, keeping its signature."""

    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class Scheduler(Declaring):
    """A supervised job scheduler inside your process.

    `storage` keeps jobs and executions: memory when none is given, `SQLiteStorage(path)` for a file. `name` is this
    node's, for run strategies and logs. `stages` tunes it. `declared` says how jobs that code declares meet stored
    ones: `merge` (code is the truth for what it declares) or `if_pristine` (only into a store that never had jobs:
    Quantum's rule). `recovery` is for jobs and calls that say none: what becomes of attempts whose process has died.
    `strategies` are run strategies of your own by name.

        async with Scheduler() as scheduler:            # or: await task_group.start(scheduler.run)
            await scheduler.add_job(Job("report", report.call(), Every(minutes=1)))
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        name: str | None = None,
        stages: Stages = DEFAULTS,
        jobs: Iterable[Job] = (),
        tasks: Iterable[Task[..., Any] | Callable[..., Any]] = (),
        strategies: Mapping[str, RunStrategy] | None = None,
        declared: Literal["merge", "if_pristine"] = "merge",
        recovery: Recovery | str = Recovery.RETRY,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(stages, Stages):
            raise InvalidArgument("stages", stages, "must be Stages(...)")
        self.storage: Storage = MemoryStorage() if storage is None else storage
        self.name = check_name(name if name is not None else _node_name())
        self.clock: Clock = SystemClock() if clock is None else clock
        self.telemetry = Telemetry(self.clock)
        self.from_thread = FromThread(self)
        self._stages = stages
        self._strategies = dict(strategies or {})
        self._declared = one_of("declared", ("merge", "if_pristine"))(declared)
        self._registry = Registry(one_of("recovery", Recovery)(recovery))
        self._make_id = IdMaker(self.clock.now)
        self._callers = Callers(self.storage, self.clock, self._promise)
        self._runtime: Runtime | None = None
        self._entered: TaskGroup | None = None
        self._file = None
        for task in tasks:
            self._registry.register(task, None, ())
        for job in jobs:
            self._registry.declare(job)

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str] = "clepsydra.toml",
        *,
        storage: Storage | None = None,
        tasks: Iterable[Task[..., Any] | Callable[..., Any]] = (),
        strategies: Mapping[str, RunStrategy] | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """A scheduler as a file declares it: its top level, or `[tool.clepsydra]` of a `pyproject.toml`.

        The keys are the names that things have in code. What is given here is added to what the file says; a `storage`
        given here takes the place of the file's. Imports the modules that the file names. Raises `DeclarationError`.
        """
        file = read_declared_file(Path(path))
        known = {**file.strategies, **(strategies or {})}
        where = file.storage if storage is None else storage
        with placed_in(file.path):
            scheduler = cls(where, stages=file.stages, tasks=tasks, strategies=known, clock=clock, **file.plain)
        checked = list(scheduler._checks(file))
        scheduler._register(file)
        for job in checked:
            scheduler._registry.declare(job)
        scheduler._file = file
        return scheduler

    # ------------------------------------------------------------------------------------------ tasks and declared jobs

    @property
    def stages(self) -> Stages:
        """The settings it was made with."""
        return self._stages

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        **options: Unpack[TaskOptions],
    ) -> _Decorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        **options: Unpack[TaskOptions],
    ) -> object:
        """Register a function as a task: `async def` runs on the loop, plain `def` in a thread. It stays callable.

        `name` is what the store knows it by (module and function name when none is given); `aliases` are names that
        stored work may still use after a rename. The options are those of `Task`: hooks, `concurrency`, `backoff`.
        """
        check_options("task", options, TaskOptions)
        if function is not None:
            return self._registry.register(function, name, aliases, **options)

        def register(plain: Callable[P, R], /) -> Task[P, R]:
            return self._registry.register(plain, name, aliases, **options)

        return register

    def job(
        self,
        schedule: Schedule | None,
        *,
        name: str | None = None,
        task_name: str | None = None,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> _Decorator:
        """Declare a job that runs the decorated function: `@scheduler.job(Every(minutes=5), retry=Retry(attempts=3))`.

        `name` is the job's, the function's own when none is given. The options are those of `Job`. Raises `JobExists`
        for the second declaration of a name, `InvalidArgument` for what cannot work, both at once.
        """
        if self._runtime is not None and not self._runtime.ended.is_set():
            raise SchedulerNotRunning(
                "jobs are declared before the scheduler is entered; use add_job() on a running one"
            )
        check_options("job", options, JobOptions)

        def declare(function: Callable[P, R] | Task[P, R]) -> Task[P, R]:
            task = self._registry.register(function, task_name, ())
            job_name = name if name is not None else getattr(task.function, "__name__", task.name)
            self._registry.declare(Job(job_name, task, schedule, args=args, **options))
            return task

        return declare

    async def list_tasks(self) -> Sequence[TaskRow]:
        """The tasks that any process has registered with this store, by name, with JSON schemas of what they take and
        give.
        """
        return await self._read(lambda store: store.list_tasks())

    # ------------------------------------------------------------------------------------------------------- life cycle

    async def __aenter__(self) -> Self:
        group = anyio.create_task_group()
        await group.__aenter__()
        try:
            await group.start(self._run_guarded)
        except BaseException as error:
            try:
                await group.__aexit__(type(error), error, error.__traceback__)
            except BaseExceptionGroup:
                raise error from error.__cause__  # the task group has wrapped it
            raise
        self._entered = group
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, runtime = self._entered, self._runtime_of_this_entry()
        self._entered = None
        runtime.request_stop()
        try:
            with anyio.CancelScope(shield=True):
                await self.clock.pass_until(runtime.ended)
        finally:
            # Before its end only asyncio's own cancellation gets here, through the shield: somebody is in a hurry.
            runtime.request_stop(hard=not runtime.ended.is_set())
            if group is not None:
                await group.__aexit__(None, None, None)
        if runtime.failure is not None and error is None:
            raise runtime.failure

    async def _run_guarded(self, *, task_status: TaskStatus[None]) -> None:
        """For `async with`: a chain that gives up must not cancel the body; it is raised when the body is done."""
        with suppress(SchedulerFailed):
            await self.run(task_status=task_status)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until stopped or cancelled; `await task_group.start(scheduler.run)` returns when jobs are being fired.

        Cancellation drains: running tasks have the grace of the settings. Raises `SchedulerFailed` when the restart
        budget is spent, `StoreError` when the store cannot be opened.
        """
        if self._runtime is not None and not self._runtime.ended.is_set():
            raise SchedulerNotRunning("the scheduler is running already; it can be entered again when it has ended")
        runtime = self._runtime = self._new_runtime()
        self.from_thread.entered()
        try:
            await runtime.run(lambda: self._prepare(runtime), task_status)
        finally:
            self.from_thread.left()

    def stop(self, *, hard: bool = False) -> None:
        """Ask it to drain and end: from the loop, without waiting. `hard` leaves out the grace."""
        if self._runtime is not None:
            self._runtime.request_stop(hard=hard)

    async def drain(self, grace: timedelta | float | None = None) -> bool:
        """Stop claiming and wait until nothing runs, at most `grace`. True if all has ended; the scheduler stays
        entered.
        """
        runtime = self._running()
        runtime.draining = True
        runtime.chain.stop_claiming()
        seconds = self._stages.grace.total_seconds() if grace is None else to_micros(grace, "grace") / SECOND
        idle = False
        with self.clock.wake_after(seconds) as waiting:
            await runtime.chain.pool.wait_idle()
            idle = True
        if waiting.fired:
            self.clock.activity.ended()
        return idle

    def _new_runtime(self) -> Runtime:
        clock, stages = self.clock, self._stages
        node = Node(self._make_id(), self.name, clock.now(), 0)
        lane = StorageLane(
            self.storage,
            clock,
            call_deadline=stages.call_deadline.total_seconds(),
            on_event=self.telemetry.emit,
        )
        chain = Chain(
            self.storage,
            lane,
            clock,
            stages,
            self._registry.tasks,
            self._registry.limited,
            self._strategies,
            self.telemetry,
            node,
            self._make_id,
            self._registry.jobs,
            shared=self.storage.shared,
            swept=stages.retention is not None and self.storage.blocking,
        )
        return Runtime(lane, chain, clock, stages, node)

    async def _prepare(self, runtime: Runtime) -> None:
        """Tell the store which tasks there are, and which jobs code declares."""
        await self._put_tasks(runtime)
        await self._declare(runtime, self.declared_jobs)
        await runtime.chain.book.loaded.wait()  # from here on stored jobs can be found, too

    def _runtime_of_this_entry(self) -> Runtime:
        assert self._runtime is not None
        return self._runtime

    # -------------------------------------------------------------------------------------------------- how it is doing

    def attach(self, handler: Handler, events: Any = None) -> Callable[[], None]:
        """Call `handler(event)` for each telemetry event, on the loop, at once; the answer detaches it."""
        return self.telemetry.attach(handler, events)

    def events(self, *, buffer: int = 1000, events: Any = None) -> Subscription:
        """Telemetry events as an async iterator: `with scheduler.events() as happenings: async for event in
        happenings`.

        Bounded: the oldest are dropped, and counted, when it is not read.
        """
        return self.telemetry.subscribe(buffer, events)

    def health(self) -> Health:
        """How it is doing. From memory only: it never waits and never raises."""
        return self._health_of(self._runtime)

    def _health_of(self, runtime: Runtime | None) -> Health:
        if runtime is None or runtime.ended.is_set():
            failure = None if runtime is None else runtime.failure
            status: Literal["failed", "stopped"] = "stopped" if failure is None else "failed"
            reasons = [str(failure)] if failure else ["it is not running"]
            return Health(status, reasons, "", 0, [], [], 0, None, None, None, [], [])
        chain, lane = runtime.chain, runtime.lane
        pool = chain.pool.statistics()
        reasons = list(complaints(runtime, pool.degraded, self.clock.monotonic()))
        return Health(
            "degraded" if reasons else "ok",
            reasons,
            runtime.node.id,
            len(chain.book.by_name),
            chain.fills(),
            chain.queues(),
            len(chain.mailbox),
            pool,
            lane.statistics(),
            chain.supervisor.tree(),
            sorted(chain.book.undeclared),
            sorted(set(chain.book.tasks) - set(self._registry.tasks)),
        )

    def tune(
        self,
        *,
        concurrency: int | None = None,
        queues: Mapping[str, int] | None = None,
        limit: int | None = None,
        tasks: Mapping[str, int | None] | None = None,
    ) -> None:
        """Change concurrency while it runs: of queues without a number, of single queues, of all together (0: no
        limit), of single tasks (None: as many as their queue allows).

        Takes effect at once for what starts; what runs is not touched. Not remembered over a restart.
        """
        chain = self._running().chain
        # All is checked before any of it counts.
        for name, number in (tasks or {}).items():
            if name not in self._registry.tasks:
                raise UnknownTask(name, self._registry.tasks)
            optional_count(f"tasks[{name!r}]")(number)
        for queue, number in (queues or {}).items():
            count_of(f"queues[{check_name(queue, 'queues')!r}]")(number)
        in_all = None if limit in (None, 0) else count_of("limit")(limit)
        slots = chain.slots
        slots.concurrency = slots.concurrency if concurrency is None else count_of("concurrency")(concurrency)
        slots.queues.update(queues or {})
        if limit is not None:
            slots.limit = in_all
        for name, number in (tasks or {}).items():
            chain.task_slots.tune(self._registry.tasks[name], number)
        chain.tuned()


def _node_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
