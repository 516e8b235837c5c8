"""The scheduler: the one object that users hold.

It registers tasks and jobs, starts and ends the chain, and passes commands to it; what it is made of is in
`wiring.py`, how one run of it goes in `runtime.py`. Everything here is for the event loop's thread, but for
`from_thread` and `enqueue_in`. Nothing happens before it is entered, and it can be entered again when it has ended, on
another loop too.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from attrs import evolve

from ..model import events
from ..model.clock import Clock, SystemClock
from ..model.errors import (
    ExecutionNotFound,
    InvalidArgument,
    JobExists,
    JobNotFound,
    NotInExecution,
    ScheduleError,
    SchedulerFailed,
    SchedulerNotRunning,
    StoreBusy,
    UnknownTask,
)
from ..model.execution import Attempt, Execution, Kind, State, Verdict
from ..model.explanation import Explanation
from ..model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter, Order
from ..model.ids import IdMaker
from ..model.instants import SECOND, to_datetime, to_instant, to_micros
from ..model.job import Job, JobRecord, JobState, check_name
from ..model.policies import Recovery, count_of, one_of, optional_count
from ..model.schedule import Schedule
from ..model.strategies import Node, RunStrategy
from ..model.task import Call, Task
from ..model.verification import Verification
from ..stages.commands import AnyCommand, ChangeState, PutJobs, RemoveJobs, RunJob
from ..stages.running import current_execution
from ..storage.joining import AsyncConnection, Connection, is_awaited
from ..storage.lane import StorageLane
from ..storage.memory import MemoryStorage
from ..storage.protocol import (
    AddResult,
    Cancelled,
    Claim,
    JobChange,
    JobPage,
    NewExecution,
    Page,
    Storage,
    TaskRow,
)
from ..storage.verifying import CHUNK, Auditor, take_step
from .callers import Callers
from .explaining import look_at_execution, look_at_time
from .explanations import explain_execution, explain_time
from .from_thread import FromThread
from .handles import ExecutionHandle, found
from .health import Health
from .options import EnqueueOptions, JobOptions, TaskOptions, new_executions
from .prospects import Here, room_of
from .registry import Registry
from .runtime import Runtime
from .settings import DEFAULTS, Stages
from .telemetry import Handler, Subscription, Telemetry
from .verdicts import unfold
from .wiring import Chain

P = ParamSpec("P")
R = TypeVar("R")

_BATCH = 64
_BULK = 512
"""New executions that a store in a thread takes in one go: a commit costs more than they do, and what is due waits for
some milliseconds behind them.
"""
_LONGEST_PAGE = 1000
_POLL = 1.0


class _Decorator(Protocol):
    """Makes a task of a function, keeping its signature."""

    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class Scheduler:
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
        for task in tasks:
            self._registry.register(task, None, ())
        for job in jobs:
            self._registry.declare(job)

    # ------------------------------------------------------------------------------------------ tasks and declared jobs

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
        _known_options("task", options, TaskOptions)
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
        _known_options("job", options, JobOptions)

        def declare(function: Callable[P, R] | Task[P, R]) -> Task[P, R]:
            task = self._registry.register(function, task_name, ())
            job_name = name if name is not None else getattr(task.function, "__name__", task.name)
            self._registry.declare(Job(job_name, task, schedule, args=args, **options))
            return task

        return declare

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The registered tasks, by name and alias."""
        return dict(self._registry.tasks)

    async def list_tasks(self) -> Sequence[TaskRow]:
        """The tasks that any process has registered with this store, by name, with JSON schemas of what they take and
        give.
        """
        return await self._read(lambda store: store.list_tasks())

    @property
    def declared_jobs(self) -> Sequence[Job]:
        """The jobs that code declares to this scheduler."""
        return list(self._registry.jobs.values())

    # ------------------------------------------------------------------------------------------------------- life cycle

    async def __aenter__(self) -> Self:
        group = anyio.create_task_group()
        await group.__aenter__()
        self._entered = group
        try:
            await group.start(self._run_guarded)
        except BaseException as error:
            self._entered = None
            try:
                await group.__aexit__(type(error), error, error.__traceback__)
            except BaseExceptionGroup:
                raise error from error.__cause__  # the task group has wrapped it
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, runtime = self._entered, self._runtime_of_this_entry()
        self._entered = None
        runtime.request_stop()
        with anyio.CancelScope(shield=True):
            await self.clock.pass_until(runtime.ended)
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
        rows = [_task_row(task) for task in _distinct(self._registry.tasks)]
        await runtime.lane.write(lambda store: store.put_tasks(rows), counted=False)
        jobs = list(self._registry.jobs.values())
        if self._declared == "if_pristine":
            stored = await runtime.lane.read(lambda store: store.load_jobs(), counted=False)
            jobs = jobs if stored is None else []
        for start in range(0, len(jobs), _BATCH):
            some = [(self._make_id(), job) for job in jobs[start : start + _BATCH]]
            await self._command(runtime, PutJobs(some, True, deadline=self._deadline()))
        await runtime.chain.book.loaded.wait()  # from here on stored jobs can be found, too

    def _running(self) -> Runtime:
        runtime = self._runtime
        if runtime is None or runtime.ended.is_set():
            if runtime is not None and runtime.failure is not None:
                raise runtime.failure
            raise SchedulerNotRunning("the scheduler is not running; enter it first: `async with scheduler:`")
        return runtime

    def _runtime_of_this_entry(self) -> Runtime:
        assert self._runtime is not None
        return self._runtime

    def _accepting(self) -> Runtime:
        """Running, and not draining, but for the tasks that still run: those may add work."""
        runtime = self._running()
        if runtime.draining and not _in_a_task():
            raise SchedulerNotRunning("the scheduler is draining; it takes no new work")
        return runtime

    # ------------------------------------------------------------------------------------------------------------- jobs

    @property
    def jobs(self) -> Sequence[JobRecord]:
        """All jobs by name, as this process knows them, without waiting for the store."""
        book = self._running().chain.book
        return [book.by_name[name] for name in sorted(book.by_name)]

    def find_job(self, name: str) -> JobRecord | None:
        """The job, or None. Never waits."""
        return self._running().chain.book.by_name.get(name)

    def get_job(self, name: str) -> JobRecord:
        """The job. Raises `JobNotFound`."""
        record = self.find_job(name)
        if record is None:
            raise JobNotFound(name, self._running().chain.book.by_name)
        return record

    async def list_jobs(
        self,
        where: JobFilter = EVERY_JOB,
        *,
        order: Order | str = Order.NAME,
        limit: int = 100,
        cursor: str | None = None,
    ) -> JobPage:
        """A page of jobs as the store has them; `page.cursor` gets the next one."""
        ordered = one_of("order", Order)(order)
        many = count_of("limit", most=_LONGEST_PAGE)(limit)
        return await self._read(partial(_job_page, where=where, order=ordered, limit=many, cursor=cursor))

    async def count_jobs(self, where: JobFilter = EVERY_JOB) -> int:
        """How many jobs a filter means, as the store has them."""
        return await self._read(lambda store: store.count_jobs(where))

    def next_run(self, name: str) -> datetime | None:
        """The next nominal time of a job that is still to come, UTC. None: it is not active, or not driven by time.

        Never waits. Raises `JobNotFound`.
        """
        record = self.get_job(name)
        bound = record.bind() if record.state is JobState.ACTIVE else None
        if bound is None or bound.driven_by != "time":
            return None
        instant = bound.next_after(max(record.cursor, self.clock.now()))
        return None if instant is None else to_datetime(instant)

    async def add_job(self, job: Job, *, replace: bool = True) -> JobRecord:
        """Add a job, or give the one of its name this definition; returns when the store has committed it.

        An equal definition changes nothing. With `replace=False` a name that is taken raises `JobExists`. Raises
        `UnknownTask`, `ScheduleError` for a schedule without a time to come, `StoreBusy` when the store does not
        answer.
        """
        return (await self.add_jobs([job], replace=replace))[0]

    async def add_jobs(self, jobs: Iterable[Job], *, replace: bool = True) -> Sequence[JobRecord]:
        """Many at once, in transactions of 64. All are checked before the first is added."""
        runtime = self._accepting()
        wanted = [self._checked(job) for job in jobs]
        records: list[JobRecord] = []
        for start in range(0, len(wanted), _BATCH):
            some = [(self._make_id(), job) for job in wanted[start : start + _BATCH]]
            command = PutJobs(some, False, not replace, deadline=self._deadline())
            await self._command(runtime, command)
            records += [_accepted(change) for change in command.answer]
        return records

    async def remove_job(self, name: str, *, missing_ok: bool = False) -> None:
        """Remove a job. What has not started is settled as `removed`; what runs goes on. Raises `JobNotFound`."""
        if self._known(name, missing_ok):
            await self._command(self._running(), RemoveJobs(JobFilter(names=[name]), deadline=self._deadline()))

    async def remove_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """Remove all that a filter means, as `remove_job` does, in transactions of 64. Gives those removed."""
        removed: list[JobRecord] = []
        for some in await self._in_parts(where):
            command = RemoveJobs(some, deadline=self._deadline())
            await self._command(self._running(), command)
            removed += command.answer
        return removed

    async def remove_all_jobs(self) -> int:
        """Remove all jobs: the store is then as if it never had any. How many there were."""
        command = RemoveJobs(EVERY_JOB, True, deadline=self._deadline())
        await self._command(self._running(), command)
        return len(command.answer)

    async def pause_job(self, name: str) -> JobRecord:
        """Stop firing for now. Scheduled work that has not started is settled as `paused`; what runs goes on."""
        return await self._set_state(name, JobState.PAUSED)

    async def resume_job(self, name: str) -> JobRecord:
        """Fire again, from now on: the times that passed meanwhile are `paused`. A job that has stopped stays
        stopped.
        """
        return await self._set_state(name, JobState.ACTIVE)

    async def stop_job(self, name: str, *, cancel_running: bool = False) -> JobRecord:
        """Stop firing for good; the job stays, with its history, until it is removed.

        What runs goes on, unless it is to be cancelled, too.
        """
        record = await self._set_state(name, JobState.STOPPED)
        if cancel_running:
            await self.cancel_executions(ExecutionFilter(job_ids=record.id))
        return record

    async def pause_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """Pause all that a filter means, in transactions of 64. Gives those that were not paused or stopped before."""
        return await self._set_states(await self._in_parts(where), JobState.PAUSED)

    async def resume_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """Resume all that a filter means. Gives those that were paused before."""
        return await self._set_states(await self._in_parts(where), JobState.ACTIVE)

    async def stop_jobs(self, where: JobFilter, *, cancel_running: bool = False) -> Sequence[JobRecord]:
        """Stop all that a filter means for good, what runs of them too where asked. Gives those not stopped before."""
        parts = await self._in_parts(where)
        stopped = await self._set_states(parts, JobState.STOPPED)
        for some in parts if cancel_running else ():
            await self.cancel_executions(ExecutionFilter(job_ids=some.ids))
        return stopped

    async def run_job(self, name: str) -> ExecutionHandle:
        """Run a job now, paused or not, beside its schedule: its cadence is not touched. Its overlap policy applies."""
        self._known(name, False)
        runtime = self._accepting()
        command = RunJob(name, self._make_id(), deadline=self._deadline())
        await self._command(runtime, command)
        return ExecutionHandle(command.execution_id, True, self)

    def _checked(self, job: Job) -> Job:
        if not isinstance(job, Job):
            raise InvalidArgument("job", job, "must be a Job(...)")
        job = self._registry.checked(job)
        now = self.clock.now()
        bound = job.bind("", now)
        if bound is not None and bound.driven_by == "time" and bound.next_after(now) is None:
            raise ScheduleError(
                f"job {job.name!r}: {job.schedule.describe() if job.schedule else ''} has no time to come"
            )
        return job

    def _known(self, name: str, missing_ok: bool) -> bool:
        if self.find_job(name) is not None:
            return True
        if missing_ok:
            return False
        raise JobNotFound(name, self._running().chain.book.by_name)

    async def _set_state(self, name: str, state: JobState) -> JobRecord:
        self._known(name, False)
        command = ChangeState(JobFilter(names=[name]), state, deadline=self._deadline())
        await self._command(self._running(), command)
        return command.answer[0].record if command.answer else self.get_job(name)

    async def _set_states(self, parts: Iterable[JobFilter], state: JobState) -> Sequence[JobRecord]:
        changed: list[JobRecord] = []
        for some in parts:
            command = ChangeState(some, state, deadline=self._deadline())
            await self._command(self._running(), command)
            changed += [change.record for change in command.answer]
        return changed

    async def _in_parts(self, where: JobFilter) -> Sequence[JobFilter]:
        """The jobs that a filter means, 64 at a time: a command on very many must not hold up what is due."""
        if not isinstance(where, JobFilter):
            raise InvalidArgument("where", where, "must be a JobFilter(...); JobFilter() means all jobs")
        parts: list[JobFilter] = []
        cursor: str | None = None
        while True:
            page = await self._read(partial(_job_page, where=where, order=Order.ID, limit=_BATCH, cursor=cursor))
            if page.items:
                parts.append(evolve(where, ids=[record.id for record in page.items]))
            if (cursor := page.cursor) is None:
                return parts

    def _deadline(self) -> float:
        return self.clock.monotonic() + self._stages.command_deadline.total_seconds()

    async def _command(self, runtime: Runtime, command: AnyCommand) -> None:
        """Give the job broadcaster a command, and wait for its answer until the deadline."""
        chain = runtime.chain
        left = command.deadline - self.clock.monotonic()
        answered = False
        with self.clock.wake_after(left) as waiting:
            async with chain.mailbox.room:
                chain.mailbox.put(command)
                chain.commands.nudge()
                await command.done.wait()
                answered = True
        if waiting.fired:
            self.clock.activity.ended()
        if not answered:
            command.given_up = True
            raise StoreBusy(
                f"the store has not answered within {self._stages.command_deadline.total_seconds():g} s; "
                "whether the change was made is not known yet, and it may be repeated"
            )
        if command.error is not None:
            raise command.error

    # ------------------------------------------------------------------------------------------------------- executions

    @overload
    async def enqueue(self, call: Call, /, **options: Unpack[EnqueueOptions]) -> ExecutionHandle: ...
    @overload
    async def enqueue(
        self, call: Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> Sequence[ExecutionHandle]: ...
    async def enqueue(
        self, call: Call | Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> ExecutionHandle | Sequence[ExecutionHandle]:
        """Run a call once: now, `after` a delay, or `at` a time. Durable when this returns. One call, or many in order.

        `key` is unique among the task's unfinished executions: with `on_conflict="keep"` the handle is that of the one
        that has it (`handle.created` says), `"replace"` gives that one this call if it has not started, `"raise"`
        raises `DuplicateKey`. The options are those of `EnqueueOptions`.
        """
        runtime = self._accepting()
        items = self._checked_executions("enqueue", call, options, self._make_id)
        try:
            handles = await self._add(runtime, items)
        except BaseException:
            runtime.chain.look_into_store()  # some of it may be there
            raise
        for item in items[:1]:
            runtime.chain.work_added(item.work.queue, item.due_at, {each.work.task for each in items})
        return handles[0] if isinstance(call, Call) else handles

    @overload
    def enqueue_in(
        self, connection: Connection, call: Call, /, **options: Unpack[EnqueueOptions]
    ) -> ExecutionHandle: ...
    @overload
    def enqueue_in(
        self, connection: Connection, call: Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> Sequence[ExecutionHandle]: ...
    @overload
    def enqueue_in(
        self, connection: AsyncConnection, call: Call, /, **options: Unpack[EnqueueOptions]
    ) -> Coroutine[Any, Any, ExecutionHandle]: ...
    @overload
    def enqueue_in(
        self, connection: AsyncConnection, call: Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> Coroutine[Any, Any, Sequence[ExecutionHandle]]: ...
    def enqueue_in(
        self,
        connection: Connection | AsyncConnection,
        call: Call | Iterable[Call],
        /,
        **options: Unpack[EnqueueOptions],
    ) -> object:
        """As `enqueue`, in the connection's transaction: the work exists if and only if you commit it.

        For a connection to the database in which the scheduler keeps its work: `sqlite3`'s to the same file, or
        psycopg's. With psycopg's `AsyncConnection` it is awaited, with the others it is not, and is for any thread. The
        scheduler need not run here; one that does starts the work as soon as you have committed.
        """
        items = self._checked_executions("enqueue_in", call, options, self._callers.make_id)

        def handles(added: Sequence[AddResult]) -> ExecutionHandle | Sequence[ExecutionHandle]:
            made = [ExecutionHandle(one.id, one.created, self) for one in added]
            return made[0] if isinstance(call, Call) else made

        async def awaited() -> ExecutionHandle | Sequence[ExecutionHandle]:
            return handles(await self._callers.add_awaited(connection, items))

        return awaited() if is_awaited(connection) else handles(self._callers.add(connection, items))

    def _checked_executions(
        self, name: str, call: object, options: EnqueueOptions, make_id: Callable[[], str]
    ) -> Sequence[NewExecution]:
        _known_options(name, options, EnqueueOptions)
        calls = [call] if isinstance(call, Call) else _calls(call)
        for one in calls:
            if isinstance(one, Call):
                self._registry.check_call(one)
        return new_executions(calls, options, self.clock.now(), make_id, self._registry.recovery)

    def _promise(self, mark: str) -> None:
        """From any thread: a caller's transaction has put work into the store, and has not ended."""
        runtime = self._runtime
        if runtime is not None and not runtime.ended.is_set():
            runtime.chain.loop.call_soon(runtime.chain.work_promised, mark)

    async def _add(self, runtime: Runtime, items: Sequence[NewExecution]) -> Sequence[ExecutionHandle]:
        handles: list[ExecutionHandle] = []
        size = _BATCH if runtime.lane.is_direct else _BULK
        for start in range(0, len(items), size):
            added = await self._write(partial(_add_executions, items=items[start : start + size], clock=self.clock))
            handles += [ExecutionHandle(result.id, result.created, self) for result in added]
            if runtime.lane.is_direct:
                await checkpoint()
        return handles

    async def executions(
        self,
        where: ExecutionFilter = EVERY_EXECUTION,
        *,
        order: Order | str = Order.ID,
        limit: int = 100,
        cursor: str | None = None,
        offset: int = 0,
        total: bool = False,
    ) -> Page:
        """A page of executions; `page.cursor` gets the next one.

        `offset` passes over so many, which costs more the further it goes. With `total`, `page.total` says how many
        there are in all.
        """
        ordered = one_of("order", Order)(order)
        many = count_of("limit", most=_LONGEST_PAGE)(limit)
        passed = count_of("offset", least=0)(offset)
        return await self._read(lambda store: store.list_executions(where, ordered, many, cursor, passed, total=total))

    async def count_executions(self, where: ExecutionFilter = EVERY_EXECUTION) -> int:
        """How many executions a filter means."""
        return await self._read(lambda store: store.count_executions(where))

    async def running(self, *, limit: int = 100, after: str | None = None) -> Sequence[Execution]:
        """What runs on any node, what was cancelled and has not stopped yet included, by `attempt_id`.

        `after` is the last `attempt_id` of the page before.
        """
        many = count_of("limit", most=_LONGEST_PAGE)(limit)
        return await self._read(lambda store: store.running(None, many, after))

    async def attempts(self, execution_id: str) -> Sequence[Attempt]:
        """The past attempts of an execution, the first one first; the present or last one is in the execution."""
        return await self._read(lambda store: store.list_attempts(execution_id))

    async def find_execution(self, execution_id: str) -> Execution | None:
        """The execution, or None."""
        rows = await self._read(lambda store: store.get_executions([execution_id]))
        return rows.get(execution_id)

    async def get_execution(self, execution_id: str) -> Execution:
        """The execution. Raises `ExecutionNotFound`."""
        return found(execution_id, await self.find_execution(execution_id))

    async def stats(self, where: ExecutionFilter = EVERY_EXECUTION) -> Mapping[State, int]:
        """How many executions are in each state, from one snapshot."""
        return await self._read(lambda store: store.stats(where))

    async def cancel_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None
    ) -> Sequence[Cancelled]:
        """Cancel what is unfinished. What runs here is told to stop at once, before the store has answered."""
        chosen = _where(where, ids)
        runtime = self._running()
        for run in list(runtime.chain.pool.running().values()):
            if _is_meant(chosen, run.claim):
                runtime.chain.pool.cancel(run.attempt_id, "cancelled on request")
        cancelled = await self._write(lambda store: store.cancel_executions(chosen, self.clock.now()))
        for one in cancelled:
            if one.attempt_id is not None:
                runtime.chain.pool.cancel(one.attempt_id, "cancelled on request")
        runtime.chain.waiters.notify(one.execution_id for one in cancelled)
        runtime.chain.look_into_store()  # their jobs may go on, and what they held back may be ready
        await self._tell_cancelled([one for one in cancelled if one.attempt_id is None])
        return cancelled

    async def _tell_cancelled(self, cancelled: Sequence[Cancelled]) -> None:
        """Of what had not started, or waited for another try: what runs is told of by its node, when it has ended."""
        for start in range(0, len(cancelled), _BATCH):
            now = self.clock.now()
            for one in cancelled[start : start + _BATCH] if self.telemetry.listening else ():
                self.telemetry.emit(
                    events.ExecutionSkipped(
                        at=now,
                        execution_id=one.execution_id,
                        task=one.task,
                        queue=one.queue,
                        attempt=one.attempt,
                        job=one.job_name,
                        nominal=one.nominal,
                        kind=Kind.CANCELLED,
                        reason="cancelled on request",
                    )
                )
            await checkpoint()

    async def retry_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None
    ) -> Sequence[str]:
        """Give what failed, was cancelled or expired another try, now."""
        chosen = _where(where, ids)
        runtime = self._accepting()
        again = await self._write(
            lambda store: store.retry_executions(chosen, self.clock.now(), IdMaker(self.clock.now))
        )
        runtime.chain.look_into_store()
        return again

    async def delete_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None, force: bool = False
    ) -> int:
        """Delete finished executions (unfinished ones too with `force`); their verdicts stay."""
        chosen = _where(where, ids)
        deleted = await self._write(lambda store: store.delete_executions(chosen, force=force))
        self._running().chain.waiters.notify_all()
        self._running().chain.look_into_store()
        return deleted

    async def wait_for_execution(self, execution_id: str, timeout: float | None = None) -> Execution:
        """Wait until an execution has ended. Raises `TimeoutError`, or `ExecutionNotFound`."""
        execution: Execution | None = None
        with self.clock.wake_after(timeout) as waiting:
            execution = await self._wait_for(execution_id)
        if waiting.fired:
            self.clock.activity.ended()
        if execution is None:  # pyright: ignore[reportUnnecessaryComparison] - the wait above may have been cut off
            raise TimeoutError(f"execution {execution_id} has not ended within {timeout:g} s")
        return execution

    async def _wait_for(self, execution_id: str) -> Execution:
        while True:
            runtime = self._running()
            with runtime.chain.waiters.waiting_for(execution_id) as ended:
                execution = await self.get_execution(execution_id)
                if execution.finished:
                    return execution
                # Woken when it ends here; where other processes may end it, the store is asked again now and then.
                with self.clock.wake_after(_POLL if self.storage.shared else None) as waiting:
                    await ended.wait()
                if waiting.fired:
                    self.clock.activity.ended()

    # --------------------------------------------------------------------------------------------------- what happened

    async def verdicts(self, job: str, start: datetime, end: datetime) -> AsyncIterator[Verdict]:
        """How each nominal time of a job in `[start, end)` ended, ascending: `async for verdict in
        scheduler.verdicts(...)`.

        Of a removed job as well. Nothing is told of times before the retention's horizon, nor of those still to come.
        """
        first, last = to_instant(start, "start"), to_instant(end, "end")
        pages = await self._read(lambda store: store.verdicts(job, first, last))
        if not pages and self.find_job(job) is None:
            raise JobNotFound(job, self._running().chain.book.by_name)
        for told, verdict in enumerate(unfold(job, list(pages), first, last), start=1):
            yield verdict
            if told % _BATCH == 0:
                await checkpoint()

    async def explain(self, job: str | Job | JobRecord, at: datetime) -> Explanation:
        """Why a nominal time of a job ran, ran late or did not run; of one to come, what could stop it.

        `at` is the time, or any instant: then the last nominal time up to it is explained. The answer has all of it as
        data, and `str()` of it says it in sentences. Of a removed job as well. Raises `JobNotFound`, and
        `InvalidArgument` for a naive datetime.
        """
        name = job.name if isinstance(job, Job | JobRecord) else check_name(job, "job")
        asked, now, runtime = to_instant(at, "at"), self.clock.now(), self._running()
        looked = await self._read(lambda store: look_at_time(store, name, asked, now))
        if looked is None:
            raise JobNotFound(name, runtime.chain.book.by_name)
        return explain_time(looked, self._here(runtime))

    async def explain_execution(self, execution_id: str) -> Explanation:
        """The same of an execution: an enqueued call, a manual run, or one of a nominal time.

        Raises `ExecutionNotFound`.
        """
        told = await self._read(lambda store: look_at_execution(store, execution_id))
        if told is None:
            raise ExecutionNotFound(execution_id)
        return explain_execution(told, self.clock.now(), self._here(self._running()))

    def _here(self, runtime: Runtime) -> Here:
        chain = runtime.chain
        slots, pool, rooms = chain.slots, chain.pool, chain.task_slots.rooms
        abandoned = pool.statistics().degraded
        return Here(
            runtime.node,
            chain.nodes.nodes,
            self._registry.tasks,
            self._strategies,
            chain.book.declared,
            lambda queue: (slots.of(queue), min(slots.free(queue, pool), slots.free_in_all(pool))),
            lambda task: room_of(task, rooms(run.claim.work.task for run in pool.running().values())),
            list(_complaints(runtime, abandoned, self.clock.monotonic())),
        )

    async def verify(self) -> Verification:
        """Audit the store against the laws, a few rows at a time, while everything goes on: a report with `ok` and what
        was found.
        """
        chunk = _BATCH if self._running().lane.is_direct else CHUNK
        auditor = Auditor()
        while auditor.place is not None:
            auditor.take_in(await self._read(partial(take_step, place=auditor.place, chunk=chunk)))
            await checkpoint()
        return auditor.report()

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
            return Health(status, reasons, "", 0, [], 0, None, None, None, [], [])
        chain, lane = runtime.chain, runtime.lane
        pool = chain.pool.statistics()
        reasons = list(_complaints(runtime, pool.degraded, self.clock.monotonic()))
        records = list(chain.book.by_name.values())
        return Health(
            "degraded" if reasons else "ok",
            reasons,
            runtime.node.id,
            len(records),
            chain.fills(),
            len(chain.mailbox),
            pool,
            lane.statistics(),
            chain.supervisor.tree(),
            sorted(record.name for record in records if record.declared and record.name not in chain.book.declared),
            sorted({record.job.work.task for record in records} - set(self._registry.tasks)),
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
        slots = self._running().chain.slots
        for name, number in (tasks or {}).items():
            if name not in self._registry.tasks:
                raise UnknownTask(name, self._registry.tasks)
            most = optional_count(f"tasks[{name!r}]")(number)
            self._running().chain.task_slots.tune(self._registry.tasks[name], most)
        if concurrency is not None:
            slots.concurrency = count_of("concurrency")(concurrency)
        for queue, number in (queues or {}).items():
            slots.queues[check_name(queue, "queues")] = count_of(f"queues[{queue!r}]")(number)
        if limit is not None:
            slots.limit = None if limit == 0 else optional_count("limit")(limit)
        self._running().chain.tuned()

    # ---------------------------------------------------------------------------------------------------------- inside

    async def _read(self, call: Callable[[Storage], R]) -> R:
        deadline = self._stages.command_deadline.total_seconds()
        return await self._running().lane.read(call, deadline=deadline, counted=False)

    async def _write(self, call: Callable[[Storage], R]) -> R:
        deadline = self._stages.command_deadline.total_seconds()
        return await self._running().lane.write(call, deadline=deadline, command=True, counted=False)


def _calls(given: object) -> list[Call]:
    if isinstance(given, Task | str) or not isinstance(given, Iterable):
        raise InvalidArgument("call", given, "must be task.call(...), or several of them")  # pyright: ignore[reportUnknownArgumentType]
    return list(cast(Iterable[Call], given))


def _known_options(call: str, options: Mapping[str, Any], known: type) -> None:
    for name in options:
        if name not in known.__annotations__:
            raise InvalidArgument(
                name, options[name], f"is no option of {call}; known: {', '.join(known.__annotations__)}"
            )


def _add_executions(store: Storage, items: Sequence[NewExecution], clock: Clock) -> Sequence[AddResult]:
    return store.add_executions(items, clock.now())


def _job_page(store: Storage, where: JobFilter, order: Order, limit: int, cursor: str | None) -> JobPage:
    return store.list_jobs(where, order, limit, cursor)


def _complaints(runtime: Runtime, abandoned: bool, now: float) -> Iterator[str]:
    lane = runtime.lane
    if lane.state == "degraded":
        yield f"the store does not answer: {lane.last_error}"
    if not runtime.chain.lease.held(now):
        yield "the node's lease could not be renewed; nothing new is started"
    if abandoned:
        yield "too many threads of plain functions ignore their deadline"
    if runtime.draining:
        yield "it is draining"


def _accepted(change: JobChange) -> JobRecord:
    if change.change == "exists":
        raise JobExists(change.record.name)
    if change.change == "stale":
        raise StoreBusy(f"job {change.record.name!r} is being changed by another process; try again")
    return change.record


def _where(where: ExecutionFilter | None, ids: Collection[str] | None) -> ExecutionFilter:
    if (where is None) == (ids is None):
        raise InvalidArgument("where", where, "give either a filter or ids=[...]")
    return ExecutionFilter(ids=ids) if where is None else where


def _is_meant(where: ExecutionFilter, claim: Claim) -> bool:
    """Whether a filter means what runs under this claim, as far as the claim can tell."""
    row = Execution(
        claim.execution_id,
        claim.work,
        claim.cause,
        claim.created_at,
        claim.due_at,
        claim.due_at,
        claim.attempt_id,
        State.RUNNING,
        claim.job_id,
        claim.job_name,
        nominal=claim.nominal,
        key=claim.key,
    )
    return where.verdicts is None and where.nodes is None and where.matches(row)


def _distinct(tasks: Mapping[str, Task[..., Any]]) -> list[Task[..., Any]]:
    return list({task.name: task for task in tasks.values()}.values())


def _task_row(task: Task[..., Any]) -> TaskRow:
    return TaskRow(task.name, task.aliases, inspect.getdoc(task) or "", task.input_schema, task.output_schema)


def _in_a_task() -> bool:
    try:
        current_execution()
    except NotInExecution:
        return False
    return True


def _node_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
