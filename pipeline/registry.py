"""What code declares to a scheduler before it starts: tasks by name and alias, jobs by name. Plain bookkeeping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, cast

from ..model.errors import InvalidArgument, JobExists, UnknownTask
from ..model.job import Job
from ..model.task import Call, Task

P = ParamSpec("P")
R = TypeVar("R")


class Registry:
    """Tasks and declared jobs of one scheduler."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        """By name and by alias. Live: the worker pool looks here."""
        self.jobs: dict[str, Job] = {}

    def register(self, function: Callable[P, R] | Task[P, R], name: str | None, aliases: Iterable[str]) -> Task[P, R]:
        """A task under its names. Raises `InvalidArgument` when another function has one of them."""
        task = cast(Task[P, R], function) if isinstance(function, Task) else Task(function, name, aliases)
        for known_as in (task.name, *task.aliases):
            holder = self.tasks.get(known_as)
            if holder is not None and holder.function is not task.function:
                raise InvalidArgument("name", known_as, f"is taken by the task {holder!r}; names of tasks are unique")
        for known_as in (task.name, *task.aliases):
            self.tasks[known_as] = task
        return task

    def declare(self, job: Job) -> None:
        """A job that this code declares. Raises `JobExists` for the second one of a name."""
        self.check(job)
        if job.name in self.jobs:
            raise JobExists(job.name, "code declares it twice")
        self.jobs[job.name] = job

    def check(self, job: Job) -> None:
        """Raise unless the job's task is known and takes its arguments."""
        self.check_call(Call(job.work.task, job.work.args))

    def check_call(self, call: Call) -> None:
        """Raise `UnknownTask` or `InvalidArgument` for a call that could not be carried out here."""
        task = self.tasks.get(call.task)
        if task is None:
            raise UnknownTask(call.task, self.tasks)
        task.check(call.args)
