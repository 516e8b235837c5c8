"""The books on jobs: redeploy, pause, resume, stop, remove, each with the settling of what it makes obsolete.

Knows the rules of the scheduler and the table primitives; knows no database and no clock. Each operation is one
transaction that locks the job's row before it reads the job's executions.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from ..model.execution import UNSTARTED, Cause, Execution, Kind, Range, State
from ..model.filters import EVERY_EXECUTION, EVERY_JOB, JobFilter, Order
from ..model.instants import Instant
from ..model.job import JobRecord, JobState, ScheduleEpoch
from ..model.redeploy import Change, compare, first_record, redeployed
from ..model.strategies import LOCAL
from .holding import BUFFERING, Holding
from .protocol import JobChange, JobPage, NewJob
from .settling import renew, settle

_WRITTEN = "jobs_written"
_LAST_EXECUTION = "last_execution_date"


class JobLedger(Holding):
    """`JobStorage` over the primitives of `Tables`."""

    # ---- reading

    def load_jobs(self) -> Sequence[JobRecord] | None:
        """All jobs by id, or None where jobs were never written or purged."""
        with self.reading():
            if self.get_fact(_WRITTEN) is None:
                return None
            return self.every_job()

    def list_jobs(
        self, where: JobFilter = EVERY_JOB, order: Order = Order.NAME, limit: int = 100, cursor: str | None = None
    ) -> JobPage:
        """A page."""
        with self.reading():
            return JobPage(*self.select_jobs(where, order, limit, cursor))

    def count_jobs(self, where: JobFilter = EVERY_JOB) -> int:
        """How many."""
        with self.reading():
            return self.count_job_rows(where)

    def last_execution_date(self) -> Instant | None:
        """The latest nominal time that fired."""
        with self.reading():
            fact = self.get_fact(_LAST_EXECUTION)
        return None if fact is None else int(fact)

    # ---- writing

    def set_last_execution_date(self, at: Instant) -> None:
        """Never goes back."""
        with self.transaction():
            fact = self.get_fact(_LAST_EXECUTION)
            if fact is None or int(fact) < at:
                self.set_fact(_LAST_EXECUTION, str(at))

    def purge(self, *, include_executions: bool = False) -> None:
        """Forget all jobs; executions too where asked."""
        with self.transaction():
            self.take_turns()
            matching, _ = self.select_jobs(EVERY_JOB, Order.ID, None, None)
            records = list(self.jobs_by_id([record.id for record in matching], lock=True).values())
            if include_executions:
                self.delete_execution_rows([row.id for row in self._all_executions()])
            else:
                self._settle_waiting(records, Kind.REMOVED, "all jobs were purged", _latest(records), retries_too=True)
            self.next_revision()
            self.delete_all_jobs()
            self.set_fact(_WRITTEN, None)
            self.set_fact(_LAST_EXECUTION, None)

    def put_jobs(self, jobs: Sequence[NewJob], now: Instant, *, unless: JobFilter | None = None) -> Sequence[JobChange]:
        """Add or replace by name."""
        if not jobs:
            return []
        with self.transaction():
            self.take_turns()  # a name that is not there yet cannot be locked
            if unless is not None and (taken := self.select_jobs(unless, Order.ID, None, None)[0]):
                return [JobChange(record, "exists", record.state) for record in taken]
            stored = self.jobs_by_name([new.job.name for new in jobs], lock=True)
            self.set_fact(_WRITTEN, "1")
            self.lock_unfinished([stored[new.job.name].id for new in jobs if _changes(new, stored.get(new.job.name))])
            revision = self.next_revision()
            return [self._put(new, stored, now, revision) for new in jobs]

    def _put(self, new: NewJob, stored: dict[str, JobRecord], now: Instant, revision: int) -> JobChange:
        known = stored.get(new.job.name)
        change = self._add(new, now, revision) if known is None else self._put_over(new, known, now, revision)
        stored[new.job.name] = change.record
        return change

    def _add(self, new: NewJob, now: Instant, revision: int) -> JobChange:
        record = first_record(new.id, new.job, new.declared, now, revision)
        self.insert_jobs([record])
        self._begin_epoch(record)
        if record.job.immediate and record.state is JobState.ACTIVE:
            self.insert_executions([_first_run(record, now)])
        return JobChange(record, "added")

    def _put_over(self, new: NewJob, known: JobRecord, now: Instant, revision: int) -> JobChange:
        before, change = known.state, compare(known, new.job)
        other_state = not new.declared and before not in (new.job.state, JobState.STOPPED)
        if change == "unchanged" and not other_state:
            return self._declare(new, known, now, revision)
        if new.create_only and known.id != new.id:
            return JobChange(known, "exists", before)
        if _newer(known, new.if_revision):
            return JobChange(known, "stale", before)
        if change == "readded":
            self._remove([known], now, revision)
            return evolve(self._add(new, now, revision), before=before)
        record, settled = self._redeploy(new, known, now, revision, change)
        if other_state and record.state is not JobState.STOPPED:
            settled += self._enter_state(record, new.job.state, now, revision, None)
        self.update_jobs([record])
        return JobChange(record, "updated" if change == "unchanged" else change, before, settled)

    def _declare(self, new: NewJob, known: JobRecord, now: Instant, revision: int) -> JobChange:
        """Put an equal definition: no change, except that code may declare now what was added at run time."""
        if known.id == new.id:
            return JobChange(known, "added")  # the repeat of the call that added it
        if new.create_only:
            return JobChange(known, "exists", known.state)
        if new.declared and not known.declared:
            known = evolve(known, status=evolve(known.status, declared=True, revision=revision, updated_at=now))
            self.update_jobs([known])
        return JobChange(known, "unchanged", known.state)

    def _redeploy(
        self, new: NewJob, known: JobRecord, now: Instant, revision: int, change: Change
    ) -> tuple[JobRecord, int]:
        if change == "unchanged":
            return evolve(known), 0
        record = redeployed(known, new.job, new.declared or known.declared, now, revision, change)
        if change == "updated":
            self._renew_waiting(known, record, now)
            return record, 0
        settled = self._settle_waiting([known], Kind.SUPERSEDED, "another schedule", now)
        paused = known.state is JobState.PAUSED
        self._close_span(known, Kind.PAUSED if paused else Kind.SUPERSEDED, "another schedule", now)
        self._renew_waiting(known, record, now)
        self._begin_epoch(record)
        return record, settled

    def _renew_waiting(self, known: JobRecord, record: JobRecord, now: Instant) -> None:
        """Give what waits the new definition; what overlap held is judged anew where its policy has changed."""
        rows = [row for row in self._unfinished(record) if row.state in UNSTARTED]
        judged_anew = known.job.overlap in BUFFERING and (
            known.job.overlap is not record.job.overlap or known.job.max_running != record.job.max_running
        )
        for row in rows:
            renew(row, record)
            if judged_anew and row.state is State.HELD:
                row.state, row.not_before = State.PENDING, now
        self.update_executions(rows)

    def set_job_state(
        self,
        where: JobFilter,
        state: JobState,
        now: Instant,
        *,
        reason: str | None = None,
        if_revision: int | None = None,
    ) -> Sequence[JobChange]:
        """Pause, resume or stop; gives only what really changed."""
        with self.transaction():
            matching, _ = self.select_jobs(where, Order.ID, None, None)
            if not matching:
                return []
            locked = self.jobs_by_id([record.id for record in matching], lock=True).values()
            records = [
                record
                for record in locked
                if where.matches(record)
                and record.state not in (state, JobState.STOPPED)
                and not _newer(record, if_revision)
            ]
            if not records:
                return []
            self.lock_unfinished([record.id for record in records])
            revision = self.next_revision()
            return [self._change_state(record, state, now, revision, reason) for record in records]

    def _change_state(
        self, known: JobRecord, state: JobState, now: Instant, revision: int, reason: str | None
    ) -> JobChange:
        record = evolve(known)
        settled = self._enter_state(record, state, now, revision, reason)
        self.update_jobs([record])
        return JobChange(record, "updated", known.state, settled)

    def _enter_state(self, record: JobRecord, state: JobState, now: Instant, revision: int, reason: str | None) -> int:
        """Change a record to another state; what it leaves behind gets its verdicts. Gives how many executions."""
        before, record.state, record.reason = record.state, state, reason
        record.revision, record.updated_at = revision, now
        if state is JobState.PAUSED:
            return self._settle_waiting([record], Kind.PAUSED, reason, now)
        if state is JobState.ACTIVE:
            self._resume(record, now)
            return 0
        why = reason or "stopped"
        self._close_span(record, Kind.PAUSED if before is JobState.PAUSED else Kind.CANCELLED, why, now)
        record.cursor = max(now, record.cursor)
        return self._settle_waiting([record], Kind.CANCELLED, why, now)

    def _resume(self, record: JobRecord, now: Instant) -> None:
        bound = record.bind()
        if bound is None or bound.driven_by == "reboot":
            return  # it has no times that could have passed
        self._settle_span(record, Kind.PAUSED, None, now)
        record.cursor = max(now, record.cursor)

    def delete_jobs(self, where: JobFilter, now: Instant, *, if_revision: int | None = None) -> Sequence[JobRecord]:
        """Remove, and end what had not begun."""
        with self.transaction():
            matching, _ = self.select_jobs(where, Order.ID, None, None)
            locked = self.jobs_by_id([record.id for record in matching], lock=True).values()
            records = [record for record in locked if where.matches(record) and not _newer(record, if_revision)]
            if not records:
                return []
            self.lock_unfinished([record.id for record in records])
            self._remove(records, now, self.next_revision())
            return records

    def _remove(self, records: Sequence[JobRecord], now: Instant, revision: int) -> None:
        for record in records:
            paused = record.state is JobState.PAUSED
            if record.state is not JobState.STOPPED:
                self._close_span(record, Kind.PAUSED if paused else Kind.REMOVED, "removed", now)
                record.cursor = max(now, record.cursor)
        self._settle_waiting(records, Kind.REMOVED, "the job was removed", now, retries_too=True)
        self.delete_job_rows(records, revision, now)

    # ---- settling

    def _settle_waiting(
        self, records: Sequence[JobRecord], kind: Kind, reason: str | None, now: Instant, *, retries_too: bool = False
    ) -> int:
        """Settle unstarted scheduled executions of jobs; with `retries_too` also manual runs and waiting retries."""
        rows = [
            row
            for record in records
            for row in self._unfinished(record)
            if row.state in UNSTARTED
            and (retries_too or (row.cause is Cause.SCHEDULE and row.first_started_at is None))
        ]
        for row in rows:
            settle(row, kind, reason, now)
        self.update_executions(rows)
        if rows and not retries_too:
            self.release_held([record.id for record in records], now)  # a manual run may be held behind what ended
        return len(rows)

    def _unfinished(self, record: JobRecord) -> Sequence[Execution]:
        return self.unfinished_of_jobs([record.id], lock=True).get(record.id, ())

    def _settle_span(self, record: JobRecord, kind: Kind, reason: str | None, now: Instant) -> None:
        """Account for the times of a job from its cursor up to now, if it has any."""
        bound = record.bind()
        if bound is None or bound.driven_by != "time" or record.cursor >= now:
            return
        if next(iter(bound.times(record.cursor + 1, now + 1)), None) is None:
            return
        generation = record.schedule_generation
        ranges = [Range(record.id, kind, record.cursor + 1, now + 1, generation, reason)]
        if bound.has_exclusions:
            ranges.append(Range(record.id, Kind.EXCLUDED, record.cursor + 1, now + 1, generation))
        self.insert_ranges(ranges)

    def _close_span(self, record: JobRecord, kind: Kind, reason: str | None, now: Instant) -> None:
        self._settle_span(record, kind, reason, now)
        self.end_epochs([(record.id, max(now, record.cursor))])

    def _begin_epoch(self, record: JobRecord) -> None:
        if record.schedule is None:
            return
        self.insert_epochs(
            [
                ScheduleEpoch(
                    record.id, record.schedule_generation, record.name, record.schedule, record.anchor, record.cursor
                )
            ]
        )

    def _all_executions(self) -> Sequence[Execution]:
        return self.select_executions(EVERY_EXECUTION, Order.ID, None, None)[0]


def _first_run(record: JobRecord, now: Instant) -> Execution:
    """Its id is the job's: made by the caller as well, and as unique."""
    work = record.job.work
    return Execution(
        record.id,
        work,
        Cause.IMMEDIATE,
        now,
        now,
        now,
        record.id,
        State.PENDING if record.job.run_on == LOCAL else State.PLACING,
        record.id,
        record.name,
        record.generation,
        start_by=None if work.start_by is None else now + work.start_by,
    )


def _changes(new: NewJob, known: JobRecord | None) -> bool:
    """Whether it may be another definition of a job that is there, or another state of it."""
    return known is not None and (compare(known, new.job) != "unchanged" or known.state is not new.job.state)


def _newer(record: JobRecord, revision: int | None) -> bool:
    return revision is not None and record.revision > revision


def _latest(records: Sequence[JobRecord]) -> Instant:
    """A moment that has come for sure: `purge` is not told the time."""
    return max((max(record.updated_at, record.cursor) for record in records), default=0)
