"""Firing: cursors move, what is passed over is settled, what runs is inserted; each fire in full or not at all (law 2).

A fire says where it believes the cursor to be. If the job has moved on meanwhile it is refused, with the job as it
stands, unless its own execution is in the store already: then it is the repeat of a fire whose answer was lost.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from attrs import Factory, define

from ..model.execution import Cause, Execution, Kind, Range, State
from ..model.instants import Instant
from ..model.job import JobRecord, JobState, run_out
from ..model.strategies import Local
from .holding import Holding
from .protocol import Fire, Fired, Refusal, Why
from .settling import settle, unfinished

# Looked up once: these stand in the hot path.
_ACTIVE = JobState.ACTIVE
_PENDING = State.PENDING
_PLACING = State.PLACING
_SCHEDULE = Cause.SCHEDULE


class Firing(Holding):
    """`fire`, over the primitives."""

    def fire(self, fires: Sequence[Fire], now: Instant) -> Fired:
        """Advance cursors and insert what runs. Several fires of one job are applied in their order."""
        answer = Fired()
        if not fires:
            return answer
        with self.transaction():
            records = self.jobs_by_id([fire.job_id for fire in fires], lock=True)
            looked_at = [fire.job_id for fire in fires if fire.alone or fire.coalesce_before is not None]
            waiting = self.unfinished_of_jobs(looked_at, lock=True) if looked_at else {}
            books = _Books(now, answer, waiting, several_of_a_job=len(records) < len(fires))
            for fire in fires:
                books.enter(fire, records.get(fire.job_id))
            self.insert_executions(books.inserted)  # first: what it refuses must leave everything as it was
            books.apply()
            self._write(books)
            self._refuse(books, answer)
        return answer

    def _write(self, books: _Books) -> None:
        if not books.accepted:
            return
        if books.coalesced:
            self.update_executions(books.coalesced)
            self.release_held({row.job_id for row in books.coalesced if row.job_id}, books.now)
        if books.ranges:
            self.insert_ranges(books.ranges)
        self.update_cursors([record for _, record in books.accepted])
        if books.stopped:
            revision = self.next_revision()
            for record in books.stopped:
                reason = "limit" if _at_limit(record) else "exhausted"
                record.status = run_out(record.status, reason, revision, books.now)
            self.update_jobs(books.stopped)
            self.end_epochs([(record.id, record.cursor) for record in books.stopped])
        if books.inserted:
            self.set_last_execution_date(max(fire.nominal for fire, _ in books.accepted))

    def _refuse(self, books: _Books, answer: Fired) -> None:
        """What was refused, less the repeats: those find their own execution in the store."""
        ids = [fire.execution_id for fire, _ in books.refused if fire.execution_id]
        known = self.executions_by_id(ids) if ids else {}
        for fire, refusal in books.refused:
            own = known.get(fire.execution_id)
            if own is None or own.job_id != fire.job_id or own.nominal != fire.nominal:
                answer.refused[fire.job_id] = refusal
                continue
            answer.applied.append(fire.job_id)
            if refusal.record is not None and refusal.record.state is JobState.STOPPED:
                answer.stopped.append(fire.job_id)

    @abstractmethod
    def set_last_execution_date(self, at: Instant) -> None:
        """Kept by the job ledger; a fire advances it."""


@define
class _Books:
    """What a batch of fires is going to write: decided first, with nothing changed, and applied then."""

    now: Instant
    answer: Fired
    waiting: dict[str, list[Execution]]
    """By job, its unfinished executions, where a fire has to know them."""
    several_of_a_job: bool
    """Whether a job may have more than one fire in the batch: only then what one of them does is noted for the next."""
    accepted: list[tuple[Fire, JobRecord]] = Factory(list[tuple[Fire, JobRecord]])
    refused: list[tuple[Fire, Refusal]] = Factory(list[tuple[Fire, Refusal]])
    inserted: list[Execution] = Factory(list[Execution])
    coalesced: list[Execution] = Factory(list[Execution])
    ranges: list[Range] = Factory(list[Range])
    stopped: list[JobRecord] = Factory(list[JobRecord])
    ahead: dict[str, tuple[Instant, int]] = Factory(dict[str, tuple[Instant, int]])
    """By job, what it will be after the fires accepted so far: its cursor, and how many more times it has fired."""
    ending: set[str] = Factory(set[str])

    def enter(self, fire: Fire, record: JobRecord | None) -> None:
        """Accept one fire, or note why not."""
        if record is None:
            self.refused.append((fire, Refusal("gone", None)))
            return
        why = self._refusal(fire, record)
        if why is not None:
            self.refused.append((fire, Refusal(why, record)))
            return
        self.accepted.append((fire, record))
        row: Execution | None = None
        if fire.execution_id:
            row = _fired_row(fire, record, self.now)
            self.inserted.append(row)
        if self.several_of_a_job:
            self._note(fire, record, row)

    def _refusal(self, fire: Fire, record: JobRecord) -> Why | None:
        cursor = record.cursor
        if self.ahead and record.id in self.ahead:
            cursor, _ = self.ahead[record.id]
        status = record.status
        if status.state is not _ACTIVE or (self.ending and record.id in self.ending):
            return "inactive"
        if status.generation != fire.generation or cursor != fire.cursor:
            return "moved"
        if fire.alone and any(unfinished(row) for row in self.waiting.get(record.id, ())):
            return "busy"
        return None

    def _note(self, fire: Fire, record: JobRecord, row: Execution | None) -> None:
        """What the job's next fire in the batch will find."""
        _, fired = self.ahead.get(record.id, (0, 0))
        if row is not None:
            fired += 1
            self.waiting.setdefault(record.id, []).append(row)
        self.ahead[record.id] = fire.to, fired
        if fire.finishes or _at_limit(record, fired):
            self.ending.add(record.id)

    def apply(self) -> None:
        """Change the records and the executions that the accepted fires change."""
        waiting = self.waiting
        for fire, record in self.accepted:
            if fire.settled:
                self._settle(fire, record)
            if waiting and fire.coalesce_before is not None and record.id in waiting:
                self._coalesce(fire.coalesce_before, waiting[record.id])
            record.cursor = fire.to
            if fire.execution_id:
                record.fired += 1
            if fire.finishes or (record.job.definition.limit is not None and _at_limit(record)):
                self.stopped.append(record)
        self.answer.applied += [record.id for _, record in self.accepted]
        self.answer.stopped += [record.id for record in self.stopped]

    def _settle(self, fire: Fire, record: JobRecord) -> None:
        """What is passed over."""
        job_id, generation = record.id, record.schedule_generation
        self.ranges += [
            Range(job_id, span.kind, span.start, span.end, generation, span.reason) for span in fire.settled
        ]

    def _coalesce(self, before: Instant, waiting: Iterable[Execution]) -> None:
        """The fire stands for the earlier scheduled executions of its job that are still waiting for a slot."""
        for row in waiting:
            overdue = row.nominal is not None and row.nominal < before and row.first_started_at is None
            if overdue and row.state in (_PENDING, _PLACING):
                self.answer.settled.append(settle(row, Kind.COALESCED, "a later time ran for it", self.now))
                self.coalesced.append(row)


def _at_limit(record: JobRecord, more: int = 0) -> bool:
    limit = record.job.definition.limit
    return limit is not None and record.fired + more >= limit


def _fired_row(fire: Fire, record: JobRecord, now: Instant) -> Execution:
    definition = record.job.definition
    work, execution_id, due_at = definition.work, fire.execution_id, fire.due_at
    # By position: a name costs a third more, and this is made for every run.
    row = Execution(
        execution_id,
        work,
        _SCHEDULE,
        now,
        due_at,
        due_at,
        execution_id,
        _PENDING if isinstance(definition.run_on, Local) else _PLACING,
        record.id,
        record.job.name,
        record.status.generation,
        fire.nominal,
    )
    if work.start_by is not None:
        row.start_by = due_at + work.start_by
    return row
