"""The operator: looks into a store and gives it commands from outside, whether schedulers are at work on it or not.

For what is no scheduler: a command line, a script, an administrator's page. Synchronous, without an event loop, and no
node of the store: it runs nothing, and nothing is placed on it. A command is the same call of the store that the chain
makes for it, under the same locks and with the same verdicts for what it settles. Schedulers at work hear of it at once
where the store gives hints, and else when they next look for what others have changed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, ParamSpec, Self, TypeVar

from attrs import evolve

from ..model.clock import Clock, SystemClock
from ..model.errors import (
    ExecutionNotFound,
    InvalidArgument,
    JobExists,
    JobNotFound,
    ScheduleError,
    StoreContended,
    UnknownTask,
)
from ..model.execution import FINISHED, UNFINISHED, Attempt, Execution, State, Verdict
from ..model.explanation import Explanation
from ..model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter, Order
from ..model.ids import IdMaker
from ..model.instants import MINUTE, SECOND, Instant, to_datetime, to_instant, to_micros
from ..model.job import Job, JobRecord, JobState, check_name
from ..model.payload import decode
from ..model.policies import count_of, one_of
from ..model.schedule import zone_info
from ..model.strategies import Node
from ..model.verification import Verification
from ..stages.commands import manual_run
from ..storage.protocol import Cancelled, DeletedHistory, JobPage, NewJob, Page, Storage, TaskRow
from ..storage.verifying import CHUNK, Auditor, take_step
from .entered import BATCH, LONGEST_PAGE
from .explaining import look_at_execution, look_at_time
from .explanations import explain_execution, explain_time
from .handles import found
from .prospects import seen_from_outside
from .verdicts import unfold

P = ParamSpec("P")
R = TypeVar("R")

_EXECUTIONS_AT_ONCE: Final = 500
"""How many executions a command changes in one transaction."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
_LONGEST_LOOK: Final = 100_000
"""How many verdicts of a stretch are gone through for its last few."""


class Operator:
    """Reads a store and gives it commands from outside: `with Operator(SQLiteStorage("jobs.db")) as operator: ...`

    The store must be there and up to date; `migrate_store` makes it so. Where other transactions stand in the way a
    command is tried again for `patience`, a `timedelta` or seconds. For one thread at a time.
    """

    def __init__(
        self, storage: Storage, *, clock: Clock | None = None, patience: timedelta | float = timedelta(seconds=10)
    ) -> None:
        self.storage = storage
        self.clock: Clock = SystemClock() if clock is None else clock
        self._patience = to_micros(patience, "patience") / SECOND
        self._make_id = IdMaker(self.clock.now)
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            entered.enter_context(self.storage.looking())
            self._ask(self.storage.changes, 2**62)  # so that what is wrong with the store is known now
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.close()

    # --------------------------------------------------------------------------------------------------------- jobs

    def find_job(self, name: str) -> JobRecord | None:
        """The job, or None."""
        page = self.list_jobs(JobFilter(names=[name]), limit=1)
        return page.items[0] if page.items else None

    def get_job(self, name: str) -> JobRecord:
        """The job. Raises `JobNotFound`."""
        record = self.find_job(name)
        if record is None:
            raise JobNotFound(name, self._some_names())
        return record

    def list_jobs(
        self,
        where: JobFilter = EVERY_JOB,
        *,
        order: Order | str = Order.NAME,
        limit: int = 100,
        cursor: str | None = None,
    ) -> JobPage:
        """A page of jobs; `page.cursor` gets the next one."""
        ordered, many = one_of("order", Order)(order), _page_of(limit)
        return self._ask(self.storage.list_jobs, where, ordered, many, cursor)

    def all_jobs(self, where: JobFilter = EVERY_JOB) -> Iterator[JobRecord]:
        """All jobs that a filter means, by name, read page by page."""
        cursor: str | None = None
        while True:
            page = self.list_jobs(where, limit=LONGEST_PAGE, cursor=cursor)
            yield from page.items
            if (cursor := page.cursor) is None:
                return

    def count_jobs(self, where: JobFilter = EVERY_JOB) -> int:
        """How many jobs a filter means."""
        return self._ask(self.storage.count_jobs, where)

    def upcoming(self, job: str | JobRecord, n: int) -> list[datetime]:
        """The next `n` times at which a job will run as things stand, in its schedule's zone.

        None for one that is not active, or that an event drives. Raises `JobNotFound`.
        """
        record = self.get_job(job) if isinstance(job, str) else job
        bound = record.bind() if record.state is JobState.ACTIVE else None
        if bound is None or bound.driven_by != "time":
            return []
        left = n if record.job.limit is None else min(n, record.job.limit - record.fired)
        zone = zone_info((record.schedule.tz_name if record.schedule else None) or "UTC")
        times: list[datetime] = []
        at = bound.next_after(max(record.cursor, self.clock.now()))
        while at is not None and len(times) < left:
            times.append(to_datetime(at, zone))
            at = bound.next_after(at)
        return times

    def list_tasks(self) -> Sequence[TaskRow]:
        """The tasks that schedulers have registered with the store."""
        return self._ask(self.storage.list_tasks)

    def nodes(self) -> Sequence[Node]:
        """The schedulers that are registered with the store; `alive` is None where the store itself cannot tell."""
        return self._ask(self.storage.nodes)

    def add_job(self, job: Job, *, replace: bool = True, check_task: bool = True) -> JobRecord:
        """Add a job, or give the one of its name this definition. Raises `JobExists` with `replace=False`.

        Unless `check_task=False`, raises `UnknownTask` for a task that no scheduler has registered with the store, and
        `InvalidArgument` for arguments that it does not have; `ScheduleError` for a schedule without a time to come.
        """
        return self.add_jobs([job], replace=replace, check_task=check_task)[0]

    def add_jobs(self, jobs: Iterable[Job], *, replace: bool = True, check_task: bool = True) -> Sequence[JobRecord]:
        """Many at once, in transactions of 64. All are checked before the first is added."""
        wanted = list(jobs)
        self._check(wanted, check_task)
        records: list[JobRecord] = []
        for start in range(0, len(wanted), BATCH):
            new = [NewJob(self._make_id(), job, create_only=not replace) for job in wanted[start : start + BATCH]]
            now = self.clock.now()
            changes = self._ask(self.storage.put_jobs, new, now)
            taken = next((change for change in changes if change.change == "exists"), None)
            if taken is not None:
                raise JobExists(taken.record.name)
            records += [change.record for change in changes]
        return records

    def remove_job(self, name: str) -> None:
        """Remove a job. What has not started is settled as `removed`; what runs goes on. Raises `JobNotFound`."""
        self.get_job(name)
        self.remove_jobs(JobFilter(names=[name]))

    def remove_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """Remove all that a filter means, in transactions of 64. Gives those removed."""
        parts = self._in_parts(where)
        now = self.clock.now()
        return [record for part in parts for record in self._ask(self.storage.delete_jobs, part, now)]

    def pause_job(self, name: str) -> JobRecord:
        """Stop firing for now, as `Scheduler.pause_job`. Raises `JobNotFound`."""
        return self._set_state(name, JobState.PAUSED)

    def resume_job(self, name: str) -> JobRecord:
        """Fire again, from now on, as `Scheduler.resume_job`. Raises `JobNotFound`."""
        return self._set_state(name, JobState.ACTIVE)

    def stop_job(self, name: str) -> JobRecord:
        """Stop firing for good, as `Scheduler.stop_job`. Raises `JobNotFound`."""
        return self._set_state(name, JobState.STOPPED)

    def pause_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """Pause all that a filter means, in transactions of 64. Gives those that it has changed."""
        return self._set_states(where, JobState.PAUSED)

    def resume_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """Resume all that a filter means. Gives those that it has changed."""
        return self._set_states(where, JobState.ACTIVE)

    def stop_jobs(self, where: JobFilter) -> Sequence[JobRecord]:
        """Stop all that a filter means for good. Gives those that it has changed."""
        return self._set_states(where, JobState.STOPPED)

    def run_job(self, name: str) -> str:
        """Have a job run now, paused or not, beside its schedule, by a scheduler that is or comes. The execution's id.

        Raises `JobNotFound`.
        """
        item = manual_run(self.get_job(name), self._make_id(), self.clock.now())
        self._ask(self.storage.add_executions, [item], item.due_at)
        return item.id

    # --------------------------------------------------------------------------------------------------- executions

    def executions(
        self,
        where: ExecutionFilter = EVERY_EXECUTION,
        *,
        order: Order | str = Order.ID,
        limit: int = 100,
        cursor: str | None = None,
        total: bool = False,
    ) -> Page:
        """A page of executions; `page.cursor` gets the next one. With `total`, how many there are in all."""
        ordered, many = one_of("order", Order)(order), _page_of(limit)
        return self._ask(self.storage.list_executions, where, ordered, many, cursor, total=total)

    def count_executions(self, where: ExecutionFilter = EVERY_EXECUTION) -> int:
        """How many executions a filter means."""
        return self._ask(self.storage.count_executions, where)

    def stats(self, where: ExecutionFilter = EVERY_EXECUTION) -> dict[State, int]:
        """How many executions are in each state, from one snapshot."""
        return dict(self._ask(self.storage.stats, where))

    def find_execution(self, execution_id: str) -> Execution | None:
        """The execution, or None."""
        return self._ask(self.storage.get_executions, [execution_id]).get(execution_id)

    def get_execution(self, execution_id: str) -> Execution:
        """The execution. Raises `ExecutionNotFound`."""
        return found(execution_id, self.find_execution(execution_id))

    def attempts(self, execution_id: str) -> Sequence[Attempt]:
        """The past attempts of an execution, the first one first; the present or last one is in the execution."""
        return self._ask(self.storage.list_attempts, execution_id)

    def cancel_executions(self, where: ExecutionFilter) -> Sequence[Cancelled]:
        """Cancel what is unfinished of what a filter means, in transactions of 500; what runs is asked to stop."""
        now = self.clock.now()
        parts = self._by_id(_only(where, UNFINISHED))
        return [one for part in parts for one in self._ask(self.storage.cancel_executions, part, now)]

    def retry_executions(self, where: ExecutionFilter) -> Sequence[str]:
        """Give what failed, was cancelled or expired another try, now. Gives the ids."""
        now = self.clock.now()
        parts = self._by_id(_only(where, (State.FAILED, State.CANCELLED, State.EXPIRED)))
        return [
            one
            for part in parts
            for one in self._ask(self.storage.retry_executions, part, now, IdMaker(self.clock.now))
        ]

    def delete_executions(self, where: ExecutionFilter) -> int:
        """Delete what has ended of what a filter means; verdicts stay. How many."""
        return sum(self._ask(self.storage.delete_executions, part) for part in self._by_id(_only(where, FINISHED)))

    # ----------------------------------------------------------------------------------------------- what happened

    def verdicts(self, job: str, start: datetime, end: datetime) -> Iterator[Verdict]:
        """How each nominal time of a job in `[start, end)` ended, ascending. Raises `JobNotFound`."""
        first, last = to_instant(start, "start"), to_instant(end, "end")
        pages = self._ask(self.storage.verdicts, job, first, last)
        if not pages:
            self.get_job(job)
        return unfold(job, list(pages), first, last)

    def last_verdicts(self, job: str, n: int) -> list[Verdict]:
        """How the last `n` nominal times of a job ended, ascending. Raises `JobNotFound`."""
        record = self.get_job(job)
        end = max(self.clock.now(), record.cursor) + 1
        span = max(end - _some_times_back(record, end, n), MINUTE)
        while True:
            start = max(end - span, 0)
            pages = self._ask(self.storage.verdicts, job, start, end)
            told = deque(islice(unfold(job, list(pages), start, end), _LONGEST_LOOK), maxlen=n)
            if len(told) == n or start <= min((page.horizon for page in pages), default=end):
                return list(told)
            span *= 4

    def explain(self, job: str, at: datetime) -> Explanation:
        """Why a nominal time of a job ran, ran late or did not run, as `Scheduler.explain`, as far as the store knows.

        What only a running scheduler knows, such as its free slots, is left out. Raises `JobNotFound`.
        """
        name, asked, now = check_name(job, "job"), to_instant(at, "at"), self.clock.now()
        looked = self._ask(look_at_time, self.storage, name, asked, now)
        if looked is None:
            raise JobNotFound(name, self._some_names())
        return explain_time(looked, seen_from_outside(self.nodes(), self.list_tasks()))

    def explain_execution(self, execution_id: str) -> Explanation:
        """The same of an execution. Raises `ExecutionNotFound`."""
        told = self._ask(look_at_execution, self.storage, execution_id)
        if told is None:
            raise ExecutionNotFound(execution_id)
        return explain_execution(told, self.clock.now(), seen_from_outside(self.nodes(), self.list_tasks()))

    def verify(self) -> Verification:
        """Audit the store against the laws, a few rows at a time, while everything goes on."""
        auditor = Auditor()
        while auditor.place is not None:
            auditor.take_in(self._ask(take_step, self.storage, auditor.place, CHUNK))
        return auditor.report()

    def prune(self, before: datetime) -> DeletedHistory:
        """Delete the history of what ended before, in transactions of 500 rows. What is unfinished stays."""
        until = to_instant(before, "before")
        executions = ranges = jobs = 0
        while True:
            deleted = self._ask(self.storage.delete_history, until, _EXECUTIONS_AT_ONCE)
            executions += deleted.executions
            ranges += deleted.ranges
            jobs += deleted.jobs
            if deleted.total < _EXECUTIONS_AT_ONCE:
                return DeletedHistory(executions, ranges, jobs)

    # -------------------------------------------------------------------------------------------------- how it asks

    def _ask(self, call: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """Call the store; again where others stood in the way, which changes nothing."""
        end = self.clock.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return call(*arguments, **options)
            except StoreContended:
                if self.clock.monotonic() >= end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _some_names(self) -> list[str]:
        return [record.name for record in self.list_jobs(limit=BATCH).items]

    def _check(self, jobs: Sequence[Job], check_task: bool) -> None:
        known = (
            {name: task for task in self.list_tasks() for name in (task.name, *task.aliases)} if check_task else None
        )
        now = self.clock.now()
        for job in jobs:
            if known is not None:
                _check_call(job, known)
            bound = job.bind("", now)
            if bound is not None and bound.driven_by == "time" and bound.next_after(now) is None:
                words = job.schedule.describe() if job.schedule else ""
                raise ScheduleError(f"job {job.name!r}: {words} has no time to come")

    def _set_state(self, name: str, state: JobState) -> JobRecord:
        self.get_job(name)
        changed = self._set_states(JobFilter(names=[name]), state)
        return changed[0] if changed else self.get_job(name)

    def _set_states(self, where: JobFilter, state: JobState) -> list[JobRecord]:
        now = self.clock.now()
        parts = self._in_parts(where)
        return [change.record for part in parts for change in self._ask(self.storage.set_job_state, part, state, now)]

    def _in_parts(self, where: JobFilter) -> list[JobFilter]:
        """The jobs that a filter means, 64 at a time: a command on very many must not hold up those at work."""
        parts: list[JobFilter] = []
        cursor: str | None = None
        while True:
            page = self.list_jobs(where, order=Order.ID, limit=BATCH, cursor=cursor)
            if page.items:
                parts.append(evolve(where, ids=[record.id for record in page.items]))
            if (cursor := page.cursor) is None:
                return parts

    def _by_id(self, where: ExecutionFilter) -> list[ExecutionFilter]:
        """The same for executions. Those that come later are not meant."""
        parts: list[ExecutionFilter] = []
        cursor: str | None = None
        while True:
            page = self.executions(where, order=Order.ID, limit=_EXECUTIONS_AT_ONCE, cursor=cursor)
            if page.items:
                parts.append(evolve(where, ids=[row.id for row in page.items]))
            if (cursor := page.cursor) is None:
                return parts


def _check_call(job: Job, known: Mapping[str, TaskRow]) -> None:
    """Raise unless the task is known, and takes arguments of these names: what types they may have, its code knows."""
    task = known.get(job.work.task)
    if task is None:
        raise UnknownTask(job.work.task, known)
    schema = decode(task.input_schema or "{}")
    given = decode(job.work.args)
    if missing := [name for name in schema.get("required", ()) if name not in given]:
        raise InvalidArgument(
            f"job {job.name!r}: args", given, f"task {task.name!r} needs {', '.join(missing)} as well"
        )
    if schema.get("additionalProperties") is False and (unknown := [*(given.keys() - schema["properties"].keys())]):
        takes = ", ".join(schema["properties"]) or "no arguments"
        raise InvalidArgument(
            f"job {job.name!r}: args",
            given,
            f"task {task.name!r} knows no {', '.join(sorted(unknown))}; it takes {takes}",
        )


def _page_of(limit: int) -> int:
    many: int = count_of("limit", most=LONGEST_PAGE)(limit)
    return many


def _some_times_back(record: JobRecord, end: Instant, n: int) -> Instant:
    """Where the last few times of a job begin, by the schedule that it has now."""
    bound = record.bind()
    at = end
    for _ in range(n if bound is not None and bound.driven_by == "time" else 0):
        before = None if bound is None else bound.last_before(at)
        if before is None:
            break
        at = before
    return at


def _only(where: ExecutionFilter, states: Collection[State]) -> ExecutionFilter:
    meant = frozenset(states) if where.states is None else where.states & frozenset(states)
    return evolve(where, states=meant)
