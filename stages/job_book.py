"""The jobs as this process knows them, so that questions about them are answered without waiting for the store.

Written by the job broadcaster, read by anybody on the loop. What `health` tells of all jobs is counted as they come and
go: nobody walks over a million of them to find out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import anyio
from attrs import Factory, frozen

from ..model.job import JobRecord, JobState


@frozen
class BookedJobs:
    """Jobs by name, and what is told of all of them together."""

    by_name: dict[str, JobRecord] = Factory(dict[str, JobRecord])
    tasks: Counter[str] = Factory(Counter[str])
    """How many of them run each task."""
    declared: set[str] = Factory(set[str])
    """Names of those that code declares, this process' or another's."""

    def put(self, record: JobRecord) -> None:
        """One more, in the place of what bore its name."""
        name = record.name
        if name in self.by_name:
            self.drop(name)
        self.by_name[name] = record
        self.tasks[record.job.definition.work.task] += 1
        if record.status.declared:
            self.declared.add(name)

    def put_all(self, records: Iterable[JobRecord]) -> None:
        """The same of several."""
        for record in records:
            self.put(record)

    def drop(self, name: str) -> None:
        """One less."""
        task = self.by_name.pop(name).job.work.task
        self.tasks[task] -= 1
        if not self.tasks[task]:
            del self.tasks[task]
        self.declared.discard(name)


class JobBook:
    """The jobs, and which of them this process' code declares."""

    def __init__(self) -> None:
        self._jobs = BookedJobs()
        self.declared: set[str] = set()
        """Names that this process' code declares."""
        self.revision = -1
        """Up to which revision of the store the book is complete; -1: not loaded yet."""
        self.loaded = anyio.Event()

    @property
    def by_name(self) -> dict[str, JobRecord]:
        """All of them."""
        return self._jobs.by_name

    @property
    def tasks(self) -> Iterable[str]:
        """The tasks that they run."""
        return self._jobs.tasks

    @property
    def undeclared(self) -> set[str]:
        """Names of those that code declares, but not that of this process."""
        return self._jobs.declared - self.declared

    def put(self, record: JobRecord) -> None:
        """Take in a job, in the place of what bore its name."""
        self._jobs.put(record)

    def holds(self, name: str, job_id: str) -> bool:
        """Whether the job of this name is the one with this id, and not a later one."""
        known = self.by_name.get(name)
        return known is not None and known.id == job_id

    def drop(self, record: JobRecord) -> None:
        """Forget a job; one that has taken its name since stays."""
        if self.holds(record.name, record.id):
            self._jobs.drop(record.name)

    def replace(self, jobs: BookedJobs) -> None:
        """Forget everything else."""
        self._jobs = jobs

    def fires(self, record: JobRecord) -> bool:
        """Whether this process fires the job: active, scheduled, and not declared by code that this process lacks."""
        status = record.status
        return (
            status.state is JobState.ACTIVE
            and record.job.definition.schedule is not None
            and (not status.declared or record.name in self.declared)
        )
