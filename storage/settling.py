"""What can happen to one execution: it is settled, cancelled, tried again, brought up to date. Pure changes of one row.

Knows the rules of verdicts and attempts; knows no table. Every part of the ledger that ends a row ends it here, so that
a nominal time has one verdict whoever gave it (law 1).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model.execution import UNSTARTED, Attempt, Cause, Execution, Kind, State
from ..model.instants import Instant
from ..model.job import JobRecord
from .protocol import Cancelled, Settlement

_ENDED_BY_SOMEBODY = frozenset((Kind.REMOVED, Kind.CANCELLED))


def settle(row: Execution, kind: Kind, reason: str | None, now: Instant) -> Settlement:
    """End an execution that waits. One that has started before keeps the verdict that it has."""
    row.state = _state_of(row, kind)
    row.reason, row.finished_at, row.occupies = reason, now, False
    if row.state is State.FAILED:
        row.error = f"NodeLost: {reason}"
    if row.nominal is not None and row.first_started_at is None:
        row.verdict = kind
    work = row.work
    return Settlement(row.id, row.job_name, row.nominal, kind, reason, work.queue, work.task, row.attempt, row.job_id)


def _state_of(row: Execution, kind: Kind) -> State:
    if row.first_started_at is not None:
        return State.FAILED if kind is Kind.NO_NODE else State.CANCELLED
    if kind is Kind.EXPIRED:
        return State.EXPIRED
    if row.nominal is None and kind in _ENDED_BY_SOMEBODY:
        return State.CANCELLED
    return State.SKIPPED


def cancel(row: Execution, now: Instant, revision: int, reason: str) -> Cancelled:
    """Make an execution cancelled; one that runs occupies its job until its node says that the task has stopped."""
    running = row.state is State.RUNNING
    row.state, row.finished_at, row.reason = State.CANCELLED, now, reason
    runs, where = (row.attempt_id, row.node) if running else (None, None)
    if running:
        row.cancel_revision = revision
    else:
        row.occupies = False
        if row.nominal is not None and row.first_started_at is None:
            row.verdict = Kind.CANCELLED
    return Cancelled(row.id, row.job_name, runs, where, row.work.task, row.work.queue, row.attempt, row.nominal)


def try_again(row: Execution, attempt_id: str, not_before: Instant, number: int, record: JobRecord | None) -> None:
    """Make an execution wait for its next attempt, which runs what its job says by now."""
    row.state, row.attempt_id, row.not_before, row.attempt = State.PENDING, attempt_id, not_before, number
    row.node, row.started_at, row.progress = None, None, None
    row.cancel_revision = 0
    if record is not None and record.generation != row.generation:
        renew(row, record)


def renew(row: Execution, record: JobRecord) -> None:
    """Give waiting work the present definition of its job: nothing old starts after a change (law 7)."""
    row.work, row.generation = record.job.work, record.generation
    if row.cause is Cause.SCHEDULE and row.first_started_at is None:
        row.start_by = None if row.work.start_by is None else row.due_at + row.work.start_by


def past_attempt(row: Execution, ending: str, at: Instant, error: str | None = None) -> Attempt:
    """The present attempt, as history keeps it once another follows."""
    return Attempt(
        row.attempt_id, row.id, row.attempt, row.node, row.not_before, row.started_at, at, ending, error or row.error
    )


def unfinished(row: Execution) -> bool:
    """Whether it still counts for its job. What a dead node left running, and is kept as it was, does not."""
    return row.occupies or row.state in UNSTARTED


def is_ready(row: Execution, now: Instant) -> bool:
    """Whether it may start."""
    return row.state is State.PENDING and row.not_before <= now


def note_ready(ready: dict[str, int], rows: Iterable[Execution]) -> None:
    """Count what became ready, per queue."""
    for row in rows:
        ready[row.work.queue] = ready.get(row.work.queue, 0) + 1
