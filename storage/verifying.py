"""Verifying: the audit of a whole store, in steps of bounded size that may be taken one at a time.

    report = verify_store(storage)

A step reads a little, judges it, and says what comes next; it changes nothing and keeps nothing, so it may be repeated,
run in any thread, and stand between the calls of a scheduler at work. Each read is one snapshot: what goes on meanwhile
makes no findings. First come the jobs, each with its ledger from its horizon on, then the executions one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

from attrs import Factory, define, evolve, frozen

from ..model.instants import Instant
from ..model.job import JobRecord, JobState, ScheduleEpoch
from ..model.policies import count_of
from ..model.verification import Finding, Verification
from .audit import Violation, moment, violations
from .execution_audit import crowding, objections
from .protocol import Standing, Storage

CHUNK = 256
"""About so many rows are looked at in a step."""

MOST_FINDINGS = 1000
"""So many findings are kept; further ones are counted."""

_MOST_OF_A_STRETCH = 100
"""Where so much is wrong in one stretch of a job's life, the rest of it is not worth telling one by one."""


@frozen
class Place:
    """How far an audit has come: the jobs up to an id, of the last few their ledgers, then the executions."""

    jobs_after: str | None = ""
    """None: all jobs have been looked at."""
    ledgers: tuple[tuple[str, str], ...] = ()
    """Ids and names of jobs whose ledger is still to be read."""
    start: Instant = 0
    """Where the next stretch of the first of them begins."""
    executions_after: str = ""


@frozen
class Step:
    """What one step has found, and where the next one begins (None: that was all)."""

    following: Place | None
    findings: Sequence[Finding] = ()
    jobs: int = 0
    executions: int = 0


@define
class Auditor:
    """Takes in what each step has found, and knows which one comes next."""

    place: Place | None = Factory(Place)
    """None: all has been looked at."""
    findings: list[Finding] = Factory(list[Finding])
    more: int = 0
    jobs: int = 0
    executions: int = 0

    def take_in(self, step: Step) -> None:
        """One step has been taken."""
        self.place = step.following
        room = MOST_FINDINGS - len(self.findings)
        self.findings += step.findings[:room]
        self.more += len(step.findings[room:])
        self.jobs += step.jobs
        self.executions += step.executions

    def report(self) -> Verification:
        """What has been found so far."""
        return Verification(tuple(self.findings), self.more, self.jobs, self.executions)


def verify_store(storage: Storage, *, chunk: int = CHUNK) -> Verification:
    """Audit a store against the laws: every job's times, every execution, those finished and those at work.

    It only reads, and needs no scheduler: a store that is not open is opened for reading and closed again; nothing is
    started, registered or migrated. One that schedulers are working on may be audited, too. About `chunk` rows are held
    at a time.
    """
    count_of("chunk")(chunk)
    auditor = Auditor()
    with storage.looking():
        while auditor.place is not None:
            auditor.take_in(take_step(storage, auditor.place, chunk))
    return auditor.report()


def take_step(storage: Storage, place: Place, chunk: int) -> Step:
    """Look at the next few rows."""
    if place.ledgers:
        return _look_at_ledger(storage, place, chunk)
    if place.jobs_after is not None:
        return _look_at_jobs(storage, place.jobs_after, chunk)
    return _look_at_executions(storage, place.executions_after, chunk)


# ---- jobs


def _look_at_jobs(storage: Storage, after: str, chunk: int) -> Step:
    standings = storage.standings(after, chunk)
    findings = [finding for standing in standings for finding in _of_standing(standing)]
    ledgers = tuple((standing.id, standing.name) for standing in standings if standing.epochs)
    last = standings[-1].id if len(standings) == chunk else None
    return Step(Place(last, ledgers), findings, jobs=len(standings))


def _of_standing(standing: Standing) -> Iterator[Finding]:
    for law, what in (*_bounds(standing), *_epochs(standing)):
        yield Finding(law, what, standing.name, standing.id)
    if standing.record is not None:
        for row in crowding(standing.record, standing.occupying):
            others = f"{len(standing.occupying)} occupy it, and it may have {standing.record.job.max_running}"
            what = f"it was started beside others: {others} ({standing.record.job.overlap.value})"
            yield Finding(4, what, standing.name, standing.id, execution_id=row.id)


def _bounds(standing: Standing) -> Iterator[tuple[int, str]]:
    if standing.record is None and not standing.removed:
        yield 10, "its row cannot be understood"
    if standing.horizon > standing.cursor + 1:
        yield 1, f"its horizon, {moment(standing.horizon)}, lies beyond its cursor, {moment(standing.cursor)}"


def _epochs(standing: Standing) -> Iterator[tuple[int, str]]:
    """The spans of its life: one after another, none beyond the cursor, and the last one is the present."""
    epochs = sorted(standing.epochs, key=lambda epoch: (epoch.since, epoch.generation))
    for epoch in epochs:
        end = epoch.since if epoch.until is None else epoch.until
        if not epoch.since <= end <= standing.cursor:
            yield 1, f"{_span(epoch)} does not end between its beginning and the cursor, {moment(standing.cursor)}"
    for epoch, following in pairwise(epochs):
        if epoch.until is None or epoch.until > following.since:
            yield 1, f"{_span(epoch)} and {_span(following)} overlap"
    if standing.record is not None:
        yield from _present_epoch(standing.record, [epoch for epoch in epochs if epoch.until is None])


def _present_epoch(record: JobRecord, lasting: Sequence[ScheduleEpoch]) -> Iterator[tuple[int, str]]:
    present = (record.schedule_generation, record.schedule, record.anchor)
    if record.state is JobState.STOPPED or (record.schedule is None and not lasting):
        return
    if not lasting:
        yield 1, "no span of its life has the schedule that it has now"
    elif present != (lasting[-1].generation, lasting[-1].schedule, lasting[-1].anchor):
        yield 1, f"{_span(lasting[-1])} is not under the schedule that the job has now"


# ---- their ledgers


def _look_at_ledger(storage: Storage, place: Place, chunk: int) -> Step:
    """Some stretches of ledgers, as many as a chunk allows."""
    findings: list[Finding] = []
    left = chunk
    while left > 0 and place.ledgers:
        (job_id, name), *others = place.ledgers
        account = storage.account(job_id, name, place.start, left)
        end = account.end
        found = violations(account.page, place.start, end)
        findings += _of_violations(name, found)
        left -= 1 + len(account.page.marks) + len(account.page.ranges)
        place = evolve(place, start=end) if end is not None else evolve(place, ledgers=tuple(others), start=0)
    return Step(place, findings)


def _of_violations(name: str, found: Iterator[Violation]) -> Iterator[Finding]:
    for each in islice(found, _MOST_OF_A_STRETCH):
        yield Finding(each.law, each.why, name, each.job_id, moment(each.nominal), each.execution_id)


# ---- executions


def _look_at_executions(storage: Storage, after: str, chunk: int) -> Step:
    lives = storage.lives(after, chunk)
    findings = [Finding(10, "its row cannot be understood", execution_id=row_id) for row_id in lives.damaged]
    for life in lives.items:
        row = life.execution
        nominal = None if row.nominal is None else moment(row.nominal)
        for law, what in objections(life):
            findings.append(Finding(law, what, row.job_name, row.job_id, nominal, row.id))
    following = None if lives.last is None else Place(None, executions_after=lives.last)
    return Step(following, findings, executions=len(lives.items) + len(lives.damaged))


def _span(epoch: ScheduleEpoch) -> str:
    until = "now" if epoch.until is None else moment(epoch.until)
    return f"the span of generation {epoch.generation}, from {moment(epoch.since)} to {until},"
