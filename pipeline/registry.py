"""What code declares to a scheduler before it starts: tasks by name and alias, jobs by name. Plain bookkeeping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from ..model.errors import InvalidArgument, JobExists, UnknownTask
from ..model.job import Job
from ..model.payload import NO_ARGUMENTS
from ..model.policies import Recovery
from ..model.redeploy import with_recovery
from ..model.task import Call, Task
from .options import TaskOptions

P = ParamSpec("P")
R = TypeVar("R")


class Registry:
    """Tasks and declared jobs of one scheduler."""

    def __init__(self, recovery: Recovery = Recovery.RETRY) -> None:
        self.recovery = recovery
        """Of jobs that say none."""
        self.tasks: dict[str, Task[..., Any]] = {}
        """By name and by alias. Live: the worker pool looks here."""
        self.limited: dict[str, Task[..., Any]] = {}
        """Those of a concurrency of their own, by name. Live: the executor looks here."""
        self.jobs: dict[str, Job] = {}
        self._no_arguments: dict[str, Task[..., Any]] = {}
        """By name, the tasks that are known to take none."""

    def register(
        self,
        function: Callable[P, R] | Task[P, R],
        name: str | None,
        aliases: Iterable[str],
        **options: Unpack[TaskOptions],
    ) -> Task[P, R]:
        """A task under its names. Raises `InvalidArgument` when another function has one of them."""
        if isinstance(function, Task) and options:
            raise InvalidArgument(
                "task", function.name, f"is a task already; give it {', '.join(options)} where it is made"
            )
        task = cast(Task[P, R], function) if isinstance(function, Task) else Task(function, name, aliases, **options)
        for known_as in (task.name, *task.aliases):
            holder = self.tasks.get(known_as)
            if holder is not None and holder.function is not task.function:
                raise InvalidArgument("name", known_as, f"is taken by the task {holder!r}; names of tasks are unique")
        for known_as in (task.name, *task.aliases):
            self.tasks[known_as] = task
        self.limited.pop(task.name, None)
        if task.concurrency is not None:
            self.limited[task.name] = task
        return task

    def declare(self, job: Job) -> None:
        """A job that this code declares. Raises `JobExists` for the second one of a name."""
        job = self.checked(job)
        if job.name in self.jobs:
            raise JobExists(job.name, "code declares it twice")
        self.jobs[job.name] = job

    def declarable(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Jobs to be declared together, each checked when it is asked for. Raises `JobExists` for a name twice."""
        names: set[str] = set()
        for job in jobs:
            if not isinstance(job, Job):
                raise InvalidArgument("jobs", job, "must be Job(...)s")
            if job.name in names:
                raise JobExists(job.name, "it is declared twice")
            names.add(job.name)
            yield self.checked(job)

    def with_tasks(self, tasks: Iterable[Task[..., Any]]) -> Registry:
        """Another one that knows these tasks as well, and no jobs: to try what they make possible."""
        trial = Registry(self.recovery)
        trial.tasks.update(self.tasks)
        for task in tasks:
            trial.register(task, None, ())
        return trial

    def checked(self, job: Job) -> Job:
        """The job with what it has left unsaid. Raises unless its task is known and takes its arguments."""
        self.check_call(Call(job.work.task, job.work.args))
        return with_recovery(job, self.recovery)

    def check_call(self, call: Call) -> None:
        """Raise `UnknownTask` or `InvalidArgument` for a call that could not be carried out here."""
        task = self.tasks.get(call.task)
        if task is None:
            raise UnknownTask(call.task, self.tasks)
        if call.args == NO_ARGUMENTS and self._no_arguments.get(call.task) is task:
            return
        task.check(call.args)
        if call.args == NO_ARGUMENTS:
            self._no_arguments[call.task] = task
