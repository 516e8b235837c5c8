"""The face's part about jobs: adding, changing, removing, looking them up, running them now.

Commands go to the job broadcaster, and have their answer when the store has it; what is only looked up is answered from
memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from attrs import evolve

from ..model.errors import InvalidArgument, JobExists, JobNotFound, ScheduleError, StoreBusy
from ..model.filters import EVERY_JOB, ExecutionFilter, JobFilter, Order
from ..model.instants import to_datetime
from ..model.job import Job, JobRecord, JobState
from ..model.policies import count_of, one_of
from ..stages.commands import AnyCommand, ChangeState, PutJobs, RemoveJobs, RunJob
from ..storage.protocol import JobChange, JobPage, Storage
from .entered import BATCH, LONGEST_PAGE, in_turns
from .execution_face import Executions
from .handles import ExecutionHandle
from .runtime import Runtime


class Jobs(Executions):
    """Commands and questions about jobs."""

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
        many = count_of("limit", most=LONGEST_PAGE)(limit)
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

    def next_runs(self, limit: int = 10) -> Sequence[tuple[datetime, str]]:
        """The jobs that this process fires next: when, UTC, their jitter included, and their names.

        What is overdue comes first. Never waits, and costs the same however many jobs there are.
        """
        count = count_of("limit", most=LONGEST_PAGE)(limit)
        return [(to_datetime(due), name) for due, name in self._running().chain.soonest(count)]

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
        wanted = await in_turns(self._checked(job) for job in jobs)
        records: list[JobRecord] = []
        for start in range(0, len(wanted), BATCH):
            some = [(self._make_id(), job) for job in wanted[start : start + BATCH]]
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
            page = await self._read(partial(_job_page, where=where, order=Order.ID, limit=BATCH, cursor=cursor))
            if page.items:
                parts.append(evolve(where, ids=[record.id for record in page.items]))
            if (cursor := page.cursor) is None:
                return parts

    async def _command(self, runtime: Runtime, command: AnyCommand) -> None:
        """Give the job broadcaster a command, and wait for its answer until the deadline."""
        chain = runtime.chain
        left = command.deadline - self.clock.monotonic()
        with self.clock.wake_after(left) as waiting:
            async with chain.mailbox.room:
                chain.mailbox.put(command)
                chain.commands.nudge()
                try:
                    await command.done.wait()
                finally:
                    if not command.done.is_set():
                        chain.mailbox.give_up(command)
        if waiting.fired:
            self.clock.activity.ended()
        if not command.done.is_set():
            raise StoreBusy(
                f"the store has not answered within {self._stages.command_deadline.total_seconds():g} s; "
                "whether the change was made is not known yet, and it may be repeated"
            )
        if command.error is not None:
            raise command.error


def _job_page(store: Storage, where: JobFilter, order: Order, limit: int, cursor: str | None) -> JobPage:
    return store.list_jobs(where, order, limit, cursor)


def _accepted(change: JobChange) -> JobRecord:
    if change.change == "exists":
        raise JobExists(change.record.name)
    if change.change == "stale":
        raise StoreBusy(f"job {change.record.name!r} is being changed by another process; try again")
    return change.record
