"""The scheduler for plain threads: each call is carried to the event loop and waited for.

    handle = scheduler.from_thread.enqueue(welcome.call(user_id=7))

Called from any thread but the loop's own, while the scheduler runs. What the coroutine raises is raised here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.from_thread
from anyio.lowlevel import EventLoopToken, current_token

from ..model.errors import SchedulerNotRunning
from ..model.execution import Execution
from ..model.filters import EVERY_EXECUTION, ExecutionFilter
from ..model.job import Job, JobRecord
from ..model.task import Call
from ..storage.protocol import Cancelled, Page
from .handles import ExecutionHandle
from .health import Health

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

    def enqueue(self, call: Call | Sequence[Call], /, **options: Any) -> Any:
        """As `Scheduler.enqueue`."""
        return self._wait(lambda: self._scheduler.enqueue(call, **options))

    def result(self, handle: ExecutionHandle, timeout: float | None = None) -> Any:
        """As `handle.result`."""
        return self._wait(lambda: handle.result(timeout))

    def add_job(self, job: Job, *, replace: bool = True) -> JobRecord:
        """As `Scheduler.add_job`."""
        return self._wait(lambda: self._scheduler.add_job(job, replace=replace))

    def add_jobs(self, jobs: Iterable[Job], *, replace: bool = True) -> Sequence[JobRecord]:
        """As `Scheduler.add_jobs`."""
        return self._wait(lambda: self._scheduler.add_jobs(jobs, replace=replace))

    def remove_job(self, name: str, *, missing_ok: bool = False) -> None:
        """As `Scheduler.remove_job`."""
        self._wait(lambda: self._scheduler.remove_job(name, missing_ok=missing_ok))

    def pause_job(self, name: str) -> JobRecord:
        """As `Scheduler.pause_job`."""
        return self._wait(lambda: self._scheduler.pause_job(name))

    def resume_job(self, name: str) -> JobRecord:
        """As `Scheduler.resume_job`."""
        return self._wait(lambda: self._scheduler.resume_job(name))

    def stop_job(self, name: str) -> JobRecord:
        """As `Scheduler.stop_job`."""
        return self._wait(lambda: self._scheduler.stop_job(name))

    def run_job(self, name: str) -> ExecutionHandle:
        """As `Scheduler.run_job`."""
        return self._wait(lambda: self._scheduler.run_job(name))

    def jobs(self) -> Sequence[JobRecord]:
        """As `Scheduler.jobs`."""
        return self._call(lambda: self._scheduler.jobs)

    def find_job(self, name: str) -> JobRecord | None:
        """As `Scheduler.find_job`."""
        return self._call(lambda: self._scheduler.find_job(name))

    def executions(self, where: ExecutionFilter = EVERY_EXECUTION, **options: Any) -> Page:
        """As `Scheduler.executions`."""
        return self._wait(lambda: self._scheduler.executions(where, **options))

    def get_execution(self, execution_id: str) -> Execution:
        """As `Scheduler.get_execution`."""
        return self._wait(lambda: self._scheduler.get_execution(execution_id))

    def cancel_executions(self, where: ExecutionFilter) -> Sequence[Cancelled]:
        """As `Scheduler.cancel_executions`."""
        return self._wait(lambda: self._scheduler.cancel_executions(where))

    def tune(self, *, concurrency: int | None = None, queues: Mapping[str, int] | None = None) -> None:
        """As `Scheduler.tune`."""
        self._call(lambda: self._scheduler.tune(concurrency=concurrency, queues=queues))

    def health(self) -> Health:
        """As `Scheduler.health`."""
        return self._call(self._scheduler.health)

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
