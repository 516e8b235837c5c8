"""The scheduler for plain threads: each call is carried to the event loop and waited for.

    handle = scheduler.from_thread.enqueue(welcome.call(user_id=7))

Called from any thread but the loop's own, while the scheduler runs. What the coroutine raises is raised here. Each
method is the scheduler's of the same name, with the same arguments; its docstring is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import anyio.from_thread
from anyio.lowlevel import EventLoopToken, current_token

from ..model.errors import SchedulerNotRunning
from ..model.execution import Attempt, Execution, State, Verdict
from ..model.explanation import Explanation
from ..model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter, Order
from ..model.job import Job, JobRecord
from ..model.task import Call
from ..model.verification import Verification
from ..storage.protocol import Cancelled, JobPage, Page, TaskRow
from .handles import ExecutionHandle
from .health import Health
from .options import EnqueueOptions

if TYPE_CHECKING:
    from .scheduler import Scheduler

R = TypeVar("R")


class FromThread:
    """The commands and queries of a `Scheduler`, synchronous."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._token: EventLoopToken | None = None
        self._thread = 0

    def entered(self) -> None:
        """The scheduler runs on this loop now."""
        self._token, self._thread = current_token(), threading.get_ident()

    def left(self) -> None:
        """It does not run any more."""
        self._token = None

    # ---- jobs

    def jobs(self) -> Sequence[JobRecord]:
        """As `Scheduler.jobs`."""
        return self._call(lambda: self._scheduler.jobs)

    def find_job(self, name: str) -> JobRecord | None:
        """As `Scheduler.find_job`."""
        return self._call(lambda: self._scheduler.find_job(name))

    def get_job(self, name: str) -> JobRecord:
        """As `Scheduler.get_job`."""
        return self._call(lambda: self._scheduler.get_job(name))

    def list_jobs(
        self,
        where: JobFilter = EVERY_JOB,
        *,
        order: Order | str = Order.NAME,
        limit: int = 100,
        cursor: str | None = None,
    ) -> JobPage:
        """As `Scheduler.list_jobs`."""
        return self._wait(lambda: self._scheduler.list_jobs(where, order=order, limit=limit, cursor=cursor))

    def count_jobs(self, where: JobFilter = EVERY_JOB) -> int:
        """As `Scheduler.count_jobs`."""
        return self._wait(lambda: self._scheduler.count_jobs(where))

    def next_run(self, name: str) -> datetime | None:
        """As `Scheduler.next_run`."""
        return self._call(lambda: self._scheduler.next_run(name))

    def next_runs(self, limit: int = 10) -> Sequence[tuple[datetime, str]]:
        """As `Scheduler.next_runs`."""
        return self._call(lambda: self._scheduler.next_runs(limit))

    def add_job(self, job: Job, *, replace: bool = True) -> JobRecord:
        """As `Scheduler.add_job`."""
        return self._wait(lambda: self._scheduler.add_job(job, replace=replace))

    def add_jobs(self, jobs: Iterable[Job], *, replace: bool = True) -> Sequence[JobRecord]:
        """As `Scheduler.add_jobs`."""
        return self._wait(lambda: self._scheduler.add_jobs(jobs, replace=replace))

    def redeclare(self, jobs: Iterable[Job]) -> None:
        """As `Scheduler.redeclare`."""
        self._wait(lambda: self._scheduler.redeclare(jobs))

    def reload(self) -> Sequence[str]:
        """As `Scheduler.reload`."""
        return self._wait(self._scheduler.reload)

    def remove_job(self, name: str, *, missing_ok: bool = False) -> None:
        """As `Scheduler.remove_job`."""
        self._wait(lambda: self._scheduler.remove_job(name, missing_ok=missing_ok))

    def remove_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """As `Scheduler.remove_jobs`."""
        return self._wait(lambda: self._scheduler.remove_jobs(where))

    def remove_all_jobs(self) -> int:
        """As `Scheduler.remove_all_jobs`."""
        return self._wait(lambda: self._scheduler.remove_all_jobs())

    def pause_job(self, name: str) -> JobRecord:
        """As `Scheduler.pause_job`."""
        return self._wait(lambda: self._scheduler.pause_job(name))

    def pause_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """As `Scheduler.pause_jobs`."""
        return self._wait(lambda: self._scheduler.pause_jobs(where))

    def resume_job(self, name: str) -> JobRecord:
        """As `Scheduler.resume_job`."""
        return self._wait(lambda: self._scheduler.resume_job(name))

    def resume_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """As `Scheduler.resume_jobs`."""
        return self._wait(lambda: self._scheduler.resume_jobs(where))

    def stop_job(self, name: str, *, cancel_running: bool = False) -> JobRecord:
        """As `Scheduler.stop_job`."""
        return self._wait(lambda: self._scheduler.stop_job(name, cancel_running=cancel_running))

    def stop_jobs(self, where: JobFilter, *, cancel_running: bool = False) -> Sequence[JobRecord]:
        """As `Scheduler.stop_jobs`."""
        return self._wait(lambda: self._scheduler.stop_jobs(where, cancel_running=cancel_running))

    def run_job(self, name: str) -> ExecutionHandle:
        """As `Scheduler.run_job`."""
        return self._wait(lambda: self._scheduler.run_job(name))

    # ---- executions

    @overload
    def enqueue(self, call: Call, /, **options: Unpack[EnqueueOptions]) -> ExecutionHandle: ...
    @overload
    def enqueue(self, call: Iterable[Call], /, **options: Unpack[EnqueueOptions]) -> Sequence[ExecutionHandle]: ...
    def enqueue(
        self, call: Call | Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> ExecutionHandle | Sequence[ExecutionHandle]:
        """As `Scheduler.enqueue`."""
        if isinstance(call, Call):
            return self._wait(lambda: self._scheduler.enqueue(call, **options))
        return self._wait(lambda: self._scheduler.enqueue(call, **options))

    def result(self, handle: ExecutionHandle, timeout: timedelta | float | None = None) -> Any:
        """As `handle.result`."""
        return self._wait(lambda: handle.result(timeout))

    def executions(
        self,
        where: ExecutionFilter = EVERY_EXECUTION,
        *,
        order: Order | str = Order.ID,
        limit: int = 100,
        cursor: str | None = None,
        offset: int = 0,
        total: bool = False,
    ) -> Page:
        """As `Scheduler.executions`."""
        return self._wait(
            lambda: self._scheduler.executions(
                where, order=order, limit=limit, cursor=cursor, offset=offset, total=total
            )
        )

    def count_executions(self, where: ExecutionFilter = EVERY_EXECUTION) -> int:
        """As `Scheduler.count_executions`."""
        return self._wait(lambda: self._scheduler.count_executions(where))

    def running(self, *, limit: int = 100, after: str | None = None) -> Sequence[Execution]:
        """As `Scheduler.running`."""
        return self._wait(lambda: self._scheduler.running(limit=limit, after=after))

    def attempts(self, execution_id: str) -> Sequence[Attempt]:
        """As `Scheduler.attempts`."""
        return self._wait(lambda: self._scheduler.attempts(execution_id))

    def find_execution(self, execution_id: str) -> Execution | None:
        """As `Scheduler.find_execution`."""
        return self._wait(lambda: self._scheduler.find_execution(execution_id))

    def get_execution(self, execution_id: str) -> Execution:
        """As `Scheduler.get_execution`."""
        return self._wait(lambda: self._scheduler.get_execution(execution_id))

    def wait_for_execution(self, execution_id: str, timeout: float | None = None) -> Execution:
        """As `Scheduler.wait_for_execution`."""
        return self._wait(lambda: self._scheduler.wait_for_execution(execution_id, timeout))

    def list_tasks(self) -> Sequence[TaskRow]:
        """As `Scheduler.list_tasks`."""
        return self._wait(self._scheduler.list_tasks)

    def stats(self, where: ExecutionFilter = EVERY_EXECUTION) -> Mapping[State, int]:
        """As `Scheduler.stats`."""
        return self._wait(lambda: self._scheduler.stats(where))

    def cancel_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None
    ) -> Sequence[Cancelled]:
        """As `Scheduler.cancel_executions`."""
        return self._wait(lambda: self._scheduler.cancel_executions(where, ids=ids))

    def retry_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None
    ) -> Sequence[str]:
        """As `Scheduler.retry_executions`."""
        return self._wait(lambda: self._scheduler.retry_executions(where, ids=ids))

    def delete_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None, force: bool = False
    ) -> int:
        """As `Scheduler.delete_executions`."""
        return self._wait(lambda: self._scheduler.delete_executions(where, ids=ids, force=force))

    # ---- what happened, and what to do

    def verdicts(self, job: str, start: datetime, end: datetime) -> Sequence[Verdict]:
        """As `Scheduler.verdicts`, all at once."""

        async def collect() -> list[Verdict]:
            return [verdict async for verdict in self._scheduler.verdicts(job, start, end)]

        return self._wait(collect)

    def explain(self, job: str | Job | JobRecord, at: datetime) -> Explanation:
        """As `Scheduler.explain`."""
        return self._wait(lambda: self._scheduler.explain(job, at))

    def explain_execution(self, execution_id: str) -> Explanation:
        """As `Scheduler.explain_execution`."""
        return self._wait(lambda: self._scheduler.explain_execution(execution_id))

    def verify(self) -> Verification:
        """As `Scheduler.verify`."""
        return self._wait(lambda: self._scheduler.verify())

    def health(self) -> Health:
        """As `Scheduler.health`."""
        return self._call(self._scheduler.health)

    def tune(
        self,
        *,
        concurrency: int | None = None,
        queues: Mapping[str, int] | None = None,
        limit: int | None = None,
        tasks: Mapping[str, int | None] | None = None,
    ) -> None:
        """As `Scheduler.tune`."""
        self._call(lambda: self._scheduler.tune(concurrency=concurrency, queues=queues, limit=limit, tasks=tasks))

    def drain(self, grace: timedelta | float | None = None) -> bool:
        """As `Scheduler.drain`."""
        return self._wait(lambda: self._scheduler.drain(grace))

    def stop(self, *, hard: bool = False) -> None:
        """As `Scheduler.stop`."""
        self._call(lambda: self._scheduler.stop(hard=hard))

    def _wait(self, call: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return anyio.from_thread.run(call, token=self._loop())

    def _call(self, call: Callable[[], R]) -> R:
        return anyio.from_thread.run_sync(call, token=self._loop())

    def _loop(self) -> EventLoopToken:
        if self._token is None:
            raise SchedulerNotRunning("the scheduler is not running; enter it on its event loop first")
        if threading.get_ident() == self._thread:
            raise SchedulerNotRunning("from_thread is for other threads; on the event loop await the scheduler itself")
        return self._token
