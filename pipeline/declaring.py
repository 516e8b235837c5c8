"""The face's part about what is declared: jobs that code or a file says there are, now and after a change of its mind.

Declaring again is what a restart with other code would do, without the restart: the redeploy rules hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from anyio import to_thread
from attrs import evolve, fields

from ..model.errors import DeclarationError
from ..model.job import Job
from ..model.task import Task
from ..stages.commands import PutJobs
from ..storage.protocol import TaskRow
from .declared_file import DeclaredFile, placed_in, read_declared_file
from .entered import BATCH, in_turns
from .job_face import Jobs
from .runtime import Runtime
from .settings import ExecutorSettings, Stages


class Declaring(Jobs):
    """Declared jobs."""

    _declared: Literal["merge", "if_pristine"]
    _file: DeclaredFile | None

    @property
    def declared_jobs(self) -> Sequence[Job]:
        """The jobs that code declares to this scheduler."""
        return list(self._registry.jobs.values())

    async def redeclare(self, jobs: Iterable[Job]) -> None:
        """Declare these jobs in place of all that were declared before, as a restart with other code would.

        What is equal is not touched, what has changed follows the redeploy rules, and what is not declared any more
        stays in the store and is not fired by this process. All are checked before anything is changed. Raises
        `JobExists` for a name that comes twice, `InvalidArgument`, `UnknownTask`, and `StoreBusy`: repeat it then.
        """
        runtime = self._accepting()
        async with runtime.declaring:
            await self._redeclare(runtime, jobs)

    async def _redeclare(self, runtime: Runtime, jobs: Iterable[Job]) -> None:
        wanted = {job.name: job for job in await in_turns(self._registry.declarable(jobs))}
        book = runtime.chain.book
        is_back = any(name in book.by_name for name in wanted.keys() - book.declared)
        book.declared |= wanted.keys()
        try:
            await self._declare(runtime, list(wanted.values()))
        finally:
            if is_back:  # of what equals what is stored nothing is told, and it was not fired until now
                runtime.chain.redeclared()
        self._registry.jobs = wanted
        if not book.declared <= wanted.keys():
            book.declared = set(wanted)
            runtime.chain.redeclared()

    async def reload(self) -> Sequence[str]:
        """Read the file of `from_toml` again: its jobs are redeclared, its tasks registered, its slots taken over.

        Gives the names of what the file says differently and only counts for a scheduler that is made anew. Modules
        that were imported are not imported again. Raises `DeclarationError` for a file that cannot be used: then
        everything stays as it was.
        """
        runtime, before = self._accepting(), self._file
        if before is None:
            raise DeclarationError("this scheduler was not made from a file; use Scheduler.from_toml(path)")
        async with runtime.declaring:
            after = await to_thread.run_sync(read_declared_file, before.path)  # it may import for a while
            await in_turns(self._checks(after))
            self._register(after)
            await self._put_tasks(runtime)
            await self._redeclare(runtime, after.jobs)
            executor = after.stages.executor
            runtime.chain.slots.take_over(executor.concurrency, executor.queues, executor.limit)
            runtime.chain.tuned()
            self._file = after
        return list(_only_at_start(before, after))

    def _checks(self, file: DeclaredFile) -> Iterator[Job]:
        """Its jobs, each checked when it is asked for as if its tasks were registered. Changes nothing."""
        with placed_in(file.path, "tasks"):
            trial = self._registry.with_tasks(file.tasks)
        for job in file.jobs:
            with placed_in(file.path, f"jobs.{job.name}"):
                checked = trial.checked(job)
            yield checked

    def _register(self, file: DeclaredFile) -> None:
        for task in file.tasks:
            self._registry.register(task, None, ())

    async def _put_tasks(self, runtime: Runtime) -> None:
        """Tell the store which tasks there are."""
        rows = [_task_row(task) for task in dict.fromkeys(self._registry.tasks.values())]
        await runtime.lane.write(lambda store: store.put_tasks(rows), counted=False)

    async def _declare(self, runtime: Runtime, jobs: Sequence[Job]) -> None:
        if self._declared == "if_pristine":
            stored = await runtime.lane.read(lambda store: store.load_jobs(), counted=False)
            jobs = jobs if stored is None else []
        for start in range(0, len(jobs), BATCH):
            some = [(self._make_id(), job) for job in jobs[start : start + BATCH]]
            await self._command(runtime, PutJobs(some, True, deadline=self._deadline()))


def _task_row(task: Task[..., Any]) -> TaskRow:
    return TaskRow(task.name, task.aliases, inspect.getdoc(task) or "", task.input_schema, task.output_schema)


def _only_at_start(before: DeclaredFile, after: DeclaredFile) -> Iterator[str]:
    """What differs between two readings, but for what a running scheduler takes over."""
    for key in ("name", "storage", "declared", "recovery", "strategies"):
        if before.data.get(key) != after.data.get(key):
            yield key
    for setting in fields(Stages):
        old, new = getattr(before.stages, setting.name), getattr(after.stages, setting.name)
        if isinstance(new, ExecutorSettings):
            old = evolve(old, concurrency=new.concurrency, queues=new.queues, limit=new.limit)
        if old != new:
            yield f"stages.{setting.name}"
