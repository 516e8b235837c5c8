"""The executions of each job in the memory store: which of them are open, and which nominal times they have.

A job's only execution stands for itself: that is the case of everything that runs once, and of each job's first run. An
index is made of it when a second one comes, or when somebody asks for its times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter

from ..model.execution import FINISHED, UNFINISHED, Execution
from ..model.instants import Instant


class OfJob:
    """The executions of one job: those that are unfinished or occupy it, and the ids of those with a nominal time."""

    __slots__ = ("count", "marks", "nominals", "open")

    def __init__(self) -> None:
        self.count = 0
        """Of all executions of the job, finished manual ones too."""
        self.open: dict[str, Execution] = {}
        self.marks: dict[Instant, str | tuple[str, ...]] = {}
        """By nominal time an id, or several where it has several targets. (Plain strings keep the dict out of the
        garbage collector's rounds.)"""
        self.nominals: list[Instant] | None = None
        """The keys of `marks`, sorted when somebody asked."""

    def add(self, row: Execution) -> None:
        """A new execution of the job."""
        self.count += 1
        if row.occupies or row.state not in FINISHED:  # `is_open`, without a call
            self.open[row.id] = row
        nominal = row.nominal
        if nominal is not None:
            others = self.marks.get(nominal)
            self.marks[nominal] = row.id if others is None else (*_ids(others), row.id)
            self.nominals = None

    def remove(self, row: Execution) -> None:
        """The inverse of `add`."""
        self.count -= 1
        self.open.pop(row.id, None)
        if row.nominal is not None:
            others = self.marks.pop(row.nominal)
            if isinstance(others, tuple):
                left = tuple(other for other in others if other != row.id)
                self.marks[row.nominal] = left[0] if len(left) == 1 else left
            self.nominals = None

    def ids_at(self, nominal: Instant) -> tuple[str, ...]:
        """The executions of a nominal time."""
        mark = self.marks.get(nominal)
        return () if mark is None else _ids(mark)

    def between(self, start: Instant, end: Instant) -> list[Instant]:
        """The nominal times in `[start, end)`, in order."""
        nominals = self._in_order()
        return nominals[bisect_left(nominals, start) : bisect_left(nominals, end)]

    def nth_from(self, start: Instant, count: int) -> list[Instant]:
        """The nominal time that comes so many after the first from `start` on, if there is one."""
        nominals = self._in_order()
        index = bisect_left(nominals, start) + count
        return nominals[index : index + 1]

    def _in_order(self) -> list[Instant]:
        if self.nominals is None:
            self.nominals = sorted(self.marks)
        return self.nominals

    def oldest_unfinished(self) -> Instant | None:
        """The earliest nominal time that is not settled."""
        nominals = (row.nominal for row in self.open.values() if row.nominal is not None and row.state in UNFINISHED)
        return min(nominals, default=None)


def _ids(mark: str | tuple[str, ...]) -> tuple[str, ...]:
    return (mark,) if isinstance(mark, str) else mark


def is_open(row: Execution) -> bool:
    """Whether it counts for its job: unfinished, or its task has not stopped yet."""
    return row.occupies or row.state not in FINISHED


class ExecutionsByJob:
    """An `OfJob` for each job that has several executions, and the execution itself for each that has one."""

    def __init__(self, executions: Mapping[str, Execution]) -> None:
        self._executions = executions
        self._jobs: dict[str, Execution | OfJob] = {}
        self._crowded: set[str] = set()
        """Jobs with more than one open execution: few, and looked for at every start."""

    def add(self, job_id: str, row: Execution) -> bool:
        """A new execution of the job. False: it has one of the same nominal time and target, and nothing is added."""
        of_job = self._jobs.setdefault(job_id, row)
        if of_job is row:
            return True
        if not isinstance(of_job, OfJob):
            of_job = self._index(job_id, of_job)
        others = None if row.nominal is None else of_job.marks.get(row.nominal)
        if others is not None and any(self._executions[other].target == row.target for other in _ids(others)):
            return False
        of_job.add(row)
        if len(of_job.open) > 1:
            self._crowded.add(job_id)
        return True

    def file(self, job_id: str, row: Execution) -> None:
        """It has changed, and is perhaps another object than before."""
        of_job = self._jobs[job_id]
        if not isinstance(of_job, OfJob):
            self._jobs[job_id] = row
            return
        if is_open(row):
            of_job.open[row.id] = row
        else:
            of_job.open.pop(row.id, None)
        self._note_crowd(job_id, of_job)

    def close(self, rows: Iterable[Execution]) -> None:
        """These were open, and are finished now."""
        jobs, crowded = self._jobs, self._crowded
        for row in rows:
            job_id = row.job_id
            if job_id is None or not isinstance(of_job := jobs[job_id], OfJob):
                continue
            del of_job.open[row.id]
            if crowded:
                self._note_crowd(job_id, of_job)

    def remove(self, job_id: str, row: Execution) -> None:
        """It is forgotten."""
        of_job = self._jobs[job_id]
        if not isinstance(of_job, OfJob):
            del self._jobs[job_id]
            return
        of_job.remove(row)
        if self._crowded:
            self._note_crowd(job_id, of_job)
        if not of_job.count:
            del self._jobs[job_id]

    def _note_crowd(self, job_id: str, of_job: OfJob) -> None:
        if len(of_job.open) > 1:
            self._crowded.add(job_id)
        else:
            self._crowded.discard(job_id)

    def get(self, job_id: str) -> OfJob | None:
        """All about one job; None: it has no execution."""
        of_job = self._jobs.get(job_id)
        return self._index(job_id, of_job) if isinstance(of_job, Execution) else of_job

    def oldest_unfinished(self, job_id: str) -> Instant | None:
        """Where the job's horizon must stop."""
        of_job = self._jobs.get(job_id)
        if isinstance(of_job, OfJob):
            return of_job.oldest_unfinished() if of_job.open else None
        return of_job.nominal if of_job is not None and of_job.state in UNFINISHED else None

    def open_of(self, job_ids: Collection[str]) -> dict[str, list[Execution]]:
        """By job its open executions, by id, where there are any."""
        found: dict[str, list[Execution]] = {}
        jobs = self._jobs
        for job_id in job_ids:
            of_job = jobs.get(job_id)
            if isinstance(of_job, OfJob):
                if of_job.open:
                    found[job_id] = sorted(of_job.open.values(), key=attrgetter("id"))
            elif of_job is not None and is_open(of_job):
                found[job_id] = [of_job]
        return found

    def crowded(self, job_ids: Collection[str]) -> dict[str, list[Execution]]:
        """The same of those that have several."""
        crowded = self._crowded
        return self.open_of([job_id for job_id in job_ids if job_id in crowded]) if crowded else {}

    def _index(self, job_id: str, row: Execution) -> OfJob:
        of_job = self._jobs[job_id] = OfJob()
        of_job.add(row)
        return of_job
