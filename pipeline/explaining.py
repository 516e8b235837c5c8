"""`explain`: what the store knows of a nominal time or of an execution, read in one go.

Which nominal time is meant, what accounts for it, and what else was going on: the rows from which `explanations.py`
makes the answer. Synchronous, for the lane's reader; changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve, frozen

from ..model.bound import Bound, BoundSchedule
from ..model.execution import UNFINISHED, Attempt, Execution, Kind, Range, State
from ..model.filters import ExecutionFilter, JobFilter, Order
from ..model.instants import SECOND, Instant
from ..model.job import JobRecord, ScheduleEpoch
from ..model.strategies import Node
from ..storage.protocol import LedgerPage, Storage

_LATE = SECOND
"""What was later than this is worth a look at what else was running."""

_MOST = 100


@frozen
class Told:
    """An execution, and what was going on when it was due."""

    row: Execution
    past: Sequence[Attempt]
    nodes: Sequence[Node]
    busy: int = 0
    """How many others of its queue were running when it was due, as far as is known and was worth asking."""
    stood_in: Instant | None = None
    """The nominal time that ran for it, where it was coalesced."""


@frozen
class Looked:
    """A nominal time of a job, and what accounts for it."""

    name: str
    asked: Instant
    now: Instant
    record: JobRecord | None
    """None: the job is gone."""
    page: LedgerPage | None = None
    """The ledger of the job that bore the name then; None: it has none."""
    epoch: ScheduleEpoch | None = None
    nominal: Instant | None = None
    """None: no time of the schedule is so early."""
    span: Range | None = None
    executions: Sequence[Told] = ()
    unfinished: Sequence[Execution] = ()
    """What the job has under way."""
    stood_in: Instant | None = None
    earlier: Sequence[Looked] = ()
    """The same time in earlier lives of the name: a clock that is set back lets a new job meet it again."""

    @property
    def names_none(self) -> bool:
        """Whether the time asked for is to come, and the schedule names none from now up to it."""
        return self.asked > self.now and (self.nominal is None or self.nominal <= self.now)

    @property
    def zone(self) -> str:
        """Where its times are best shown."""
        schedule = self.epoch.schedule if self.epoch else self.record.schedule if self.record else None
        return (schedule.tz_name if schedule else None) or "UTC"


def look_at_time(store: Storage, name: str, at: Instant, now: Instant) -> Looked | None:
    """The time of a job that is at this instant, or the nearest before. None: no such job is known or remembered."""
    record = next(iter(store.list_jobs(JobFilter(names=[name]), limit=1).items), None)
    pages = store.verdicts(name, at, at + 1)
    if record is None and not pages:
        return None
    looked = Looked(name, at, now, record)
    coming = None if record is None else _coming(record, at, now)
    if coming is not None or not pages:
        page = next((page for page in pages if record and _is_of(page, record.id)), None)
        epoch = None if page is None else page.epochs[-1]
        return _with_unfinished(store, evolve(looked, page=page, epoch=epoch, nominal=coming))
    looked = evolve(looked, page=pages[-1])
    found = sorted(_named(store, pages, at), key=lambda found: (found[0], found[2].job_id))
    lives = [
        _with_account(store, evolve(looked, nominal=nominal, page=page, epoch=epoch))
        for nominal, page, epoch in found
        if nominal == found[-1][0]
    ]
    *earlier, looked = lives or [looked]
    return _with_unfinished(store, evolve(looked, earlier=earlier))


def look_at_execution(store: Storage, execution_id: str) -> Told | None:
    """An execution with its attempts, and what ran when it was due. None: the store does not have it."""
    row = store.get_executions([execution_id]).get(execution_id)
    return None if row is None else _told(store, row)


def _told(store: Storage, row: Execution) -> Told:
    # The present attempt may have become a past one since the row was read.
    past = [attempt for attempt in store.list_attempts(row.id) if attempt.id != row.attempt_id]
    begun = next((attempt.started_at for attempt in past if attempt.started_at), row.first_started_at)
    late = (begun or row.finished_at or row.created_at) - row.due_at >= _LATE
    stood_in = _later_run(store, row) if row.verdict is Kind.COALESCED else None
    return Told(row, past, store.nodes(), _busy(store, row) if late else 0, stood_in)


# ---- which time


def _coming(record: JobRecord, at: Instant, now: Instant) -> Instant | None:
    """The time to come that is meant: the last one up to the one asked for."""
    bound = record.bind()
    if at <= now or bound is None or bound.driven_by != "time":
        return None
    nominal = latest_named(bound, at)
    # A clock that was set back may have left times to come that have fired already.
    return nominal if nominal is not None and nominal > max(now, record.cursor) else None


def _named(
    store: Storage, pages: Sequence[LedgerPage], at: Instant
) -> Iterator[tuple[Instant, LedgerPage, ScheduleEpoch]]:
    """In each span of the lives of the jobs that bore the name, its last time up to an instant."""
    for page in pages:
        for epoch in page.epochs:
            until = at if epoch.until is None else min(at, epoch.until)
            if until <= epoch.since:
                continue
            bound = epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor)
            nominal = latest_named(bound, until) if bound.driven_by == "time" else _latest_run(store, epoch, until)
            if nominal is not None and nominal > epoch.since:
                yield nominal, page, epoch


def latest_named(bound: BoundSchedule, at: Instant) -> Instant | None:
    """The last time up to an instant, one that the schedule excludes included."""
    named = [bound.last_before(at + 1)]
    if bound.has_exclusions and isinstance(bound, Bound):
        named += [part.last_before(at + 1) for part in bound.parts()]
    return max((each for each in named if each is not None and _names(bound, each)), default=None)


def _names(bound: BoundSchedule, at: Instant) -> bool:
    return next(iter(bound.times(at, at + 1)), None) is not None


def _latest_run(store: Storage, epoch: ScheduleEpoch, until: Instant) -> Instant | None:
    """Of a job that an event drives: its executions have the times."""
    where = ExecutionFilter(job_ids=[epoch.job_id], nominal=(epoch.since + 1, until + 1))
    return next((row.nominal for row in store.list_executions(where, Order.DUE_DESC, 1).items), None)


def _is_of(page: LedgerPage, job_id: str) -> bool:
    return bool(page.epochs) and page.epochs[-1].job_id == job_id


# ---- what accounts for it


def _with_account(store: Storage, looked: Looked) -> Looked:
    nominal, epoch = looked.nominal, looked.epoch
    if nominal is None or epoch is None:
        return looked
    pages = store.verdicts(looked.name, nominal, nominal + 1)
    page = next((page for page in pages if _is_of(page, epoch.job_id)), None)
    if page is None:
        return looked
    bound = epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor)
    excluded = bound.driven_by == "time" and bound.is_excluded(nominal)
    spans = [span for span in page.ranges if (span.kind is Kind.EXCLUDED) == excluded and _holds(span, nominal)]
    rows = store.get_executions([mark.execution_id for mark in page.marks])
    told = [_told(store, rows[mark.execution_id]) for mark in page.marks if mark.execution_id in rows]
    span = spans[0] if spans else None
    return evolve(looked, page=page, span=span, executions=told, stood_in=_stood_in(store, looked.name, span))


def _holds(span: Range, nominal: Instant) -> bool:
    return span.start <= nominal < span.end


def _stood_in(store: Storage, name: str, span: Range | None) -> Instant | None:
    """What coalesces times is fired right after the last of them."""
    if span is None or span.kind is not Kind.COALESCED:
        return None
    marks = [mark for page in store.verdicts(name, span.end, span.end + 1) for mark in page.marks]
    return next((mark.nominal for mark in marks if mark.job_id == span.job_id), None)


def _later_run(store: Storage, row: Execution) -> Instant | None:
    """The fire that coalesced a waiting execution is as old as that one's end."""
    if row.job_id is None or row.nominal is None or row.finished_at is None:
        return None
    where = ExecutionFilter(
        job_ids=[row.job_id], nominal=(row.nominal + 1, None), created=(row.finished_at, row.finished_at + 1)
    )
    return next((other.nominal for other in store.list_executions(where, Order.DUE, 1).items), None)


def _with_unfinished(store: Storage, looked: Looked) -> Looked:
    if looked.record is None:
        return looked
    where = ExecutionFilter(job_ids=[looked.record.id], states=UNFINISHED)
    return evolve(looked, unfinished=store.list_executions(where, Order.ID, _MOST).items)


def _busy(store: Storage, row: Execution) -> int:
    """How many others of the queue had started when it was due, and had not ended."""
    queue, due = row.work.queue, row.due_at
    ended = ExecutionFilter(queues=[queue], finished=(due + 1, None))
    still = ExecutionFilter(queues=[queue], states=[State.RUNNING])
    rows = [
        *store.list_executions(ended, Order.FINISHED, _MOST).items,
        *store.list_executions(still, Order.ID, _MOST).items,
    ]
    return sum(other.first_started_at is not None and other.first_started_at <= due for other in rows)
