"""The auditor of the ledger: each past nominal time has exactly one verdict, or exactly one unsettled execution.

A pure reading of what `verdicts` gives. The times of each span of a job's life are enumerated by the schedule that it
had then, and each must be accounted for once: by one range, or by the executions of that time, one for each target. A
range of kind `excluded` counts for the times that the schedule excludes, any other range for those that it does not.
What no calendar names, completion-driven jobs and those at each start, is outside.

A range may hold a year of a per-second job: what it covers by itself is leapt over, not walked through.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from heapq import heappop, heappush

from attrs import frozen

from ..model.bound import END, BoundSchedule
from ..model.execution import FINISHED, UNSTARTED, Kind, Range, State
from ..model.instants import Instant, to_datetime
from ..model.job import ScheduleEpoch
from .protocol import LedgerPage, Mark


@frozen
class Violation:
    """A nominal time for which the books do not balance; `law` is the one that is broken."""

    job_id: str
    nominal: Instant
    why: str
    law: int = 1
    execution_id: str | None = None

    def __str__(self) -> str:
        return f"job {self.job_id}, {moment(self.nominal).isoformat()}: {self.why}"


def audit(pages: Sequence[LedgerPage], *, start: Instant | None = None, end: Instant | None = None) -> list[Violation]:
    """Every violation in these pages. `start` and `end` are those that the pages were asked for."""
    return [violation for page in pages for violation in violations(page, start, end)]


def violations(page: LedgerPage, start: Instant | None = None, end: Instant | None = None) -> Iterator[Violation]:
    """The violations of one page, found one by one as they are asked for: a long life need not be read at once."""
    first = page.horizon if start is None else max(page.horizon, start)
    last = page.cursor if end is None else min(page.cursor, end - 1)
    marks = _by_time(page.marks)
    named: set[Instant] = set()
    for epoch in page.epochs:
        yield from _in_epoch(epoch, page, marks, named, first, last)
    if any(_bound(epoch).driven_by == "time" for epoch in page.epochs):
        yield from _strangers(page, marks, named, first)
    yield from _doubles(marks)
    yield from _misplaced(page, start or 0)
    yield from _overlaps(page.ranges, start or 0)


# ---- the times that schedules name


def _in_epoch(
    epoch: ScheduleEpoch,
    page: LedgerPage,
    marks: Mapping[Instant, Sequence[Mark]],
    named: set[Instant],
    first: Instant,
    last: Instant,
) -> Iterator[Violation]:
    """Each time that the schedule of this span names, with what accounts for it."""
    bound = _bound(epoch)
    if bound.driven_by != "time":
        named.update(marks)
        return
    sweep = _Sweep([span for span in page.ranges if span.generation == epoch.generation])
    marked = sorted(marks)
    until = last if epoch.until is None else min(last, epoch.until)
    at: Instant | None = max(first, epoch.since + 1)
    while at is not None:
        begun, at = at, None
        for nominal in bound.times(begun, until + 1):
            here = marks.get(nominal, ())
            if here:
                named.add(nominal)
            excluded = bound.is_excluded(nominal)
            covering = sweep.at(nominal)
            kinds = [kind for kind in covering if (kind is Kind.EXCLUDED) == excluded]
            for execution_id, why in _objections(kinds, here, excluded):
                yield Violation(epoch.job_id, nominal, why, execution_id=execution_id)
            if kinds and not here:
                covered = min(sweep.steady_until(), _after(marked, nominal), _sound_until(bound, nominal, covering))
                if covered > nominal + 1:
                    at = covered
                    break


def _sound_until(bound: BoundSchedule, nominal: Instant, covering: Sequence[Kind]) -> Instant:
    """Where the first time may come that these ranges do not account for, as long as they last."""
    if bound.has_exclusions and Kind.EXCLUDED not in covering:
        return nominal + 1
    if all(kind is Kind.EXCLUDED for kind in covering):
        return bound.next_after(nominal) or END
    return END


def _objections(kinds: Sequence[Kind], marks: Sequence[Mark], excluded: bool) -> Iterator[tuple[str | None, str]]:
    if not kinds and not marks:
        yield None, "it has neither a verdict nor an execution"
    if kinds and marks:
        first = marks[0].execution_id
        yield first, f"it has an execution, {first}, and is {kinds[0].value} in a range as well"
    if excluded and marks:
        yield marks[0].execution_id, f"it is excluded, and has an execution, {marks[0].execution_id}"
    for mark in marks:
        for why in _objections_to_mark(mark):
            yield mark.execution_id, why


def _objections_to_mark(mark: Mark) -> Iterator[str]:
    row = f"execution {mark.execution_id} is {mark.state.value}"
    if mark.kind is None and mark.state in FINISHED:
        yield f"{row} and has no verdict"
    elif mark.kind is None and mark.state is State.RUNNING:
        yield f"{row} and is not marked as fired"
    elif mark.kind not in (None, Kind.FIRED) and mark.state in UNSTARTED:
        yield f"{row} and has a verdict already, {mark.kind}"


# ---- executions and ranges that stand where they should not


def _strangers(
    page: LedgerPage, marks: Mapping[Instant, Sequence[Mark]], named: set[Instant], first: Instant
) -> Iterator[Violation]:
    """Executions of times that no schedule of the job named, or that the cursor has not reached."""
    for nominal, here in marks.items():
        job_id, execution_id = here[0].job_id, here[0].execution_id
        if nominal > page.cursor:
            why = f"execution {execution_id} lies beyond the cursor, which is at {moment(page.cursor)}"
            yield Violation(job_id, nominal, why, 2, execution_id)
        elif nominal >= first and nominal not in named:
            why = f"no schedule names it, but execution {execution_id} has it"
            yield Violation(job_id, nominal, why, 1, execution_id)


def _doubles(marks: Mapping[Instant, Sequence[Mark]]) -> Iterator[Violation]:
    """Times that have more than one execution for a target."""
    for nominal, here in marks.items():
        if len({mark.target for mark in here}) < len(here):
            why = f"it has {len(here)} executions, more than one for a target"
            yield Violation(here[0].job_id, nominal, why, 2, here[-1].execution_id)


def _misplaced(page: LedgerPage, start: Instant) -> Iterator[Violation]:
    """Ranges that no schedule is kept for, or that reach beyond their schedule's span or the cursor."""
    epochs = {epoch.generation: epoch for epoch in page.epochs}
    for span in page.ranges:
        if span.start < start or span.end <= page.horizon:
            continue  # told of in the stretch in which it begins, or nothing is promised there
        epoch = epochs.get(span.generation)
        what = f"a range of {span.kind.value} times"
        if epoch is None:
            yield Violation(span.job_id, span.start, f"{what} has no schedule to read it with")
        elif span.start <= epoch.since or (epoch.until is not None and span.end > epoch.until + 1):
            yield Violation(span.job_id, span.start, f"{what} up to {moment(span.end)} leaves the span of its schedule")
        elif span.end > page.cursor + 1:
            why = f"{what} up to {moment(span.end)} reaches beyond the cursor, which is at {moment(page.cursor)}"
            yield Violation(span.job_id, span.start, why, 2)


def _overlaps(ranges: Sequence[Range], start: Instant) -> Iterator[Violation]:
    """Ranges that account for the same stretch; those of excluded times lie beside the others."""
    furthest: dict[bool, Range] = {}
    for span in sorted(ranges, key=lambda span: (span.start, span.end)):
        excluded = span.kind is Kind.EXCLUDED
        before = furthest.get(excluded)
        if before is not None and before.end > span.start >= start:
            one, other = (f"{each.kind.value} times up to {moment(each.end)}" for each in (before, span))
            yield Violation(span.job_id, span.start, f"it is in two ranges: {one}, and {other}")
        if before is None or span.end > before.end:
            furthest[excluded] = span


# ---- reading


def _bound(epoch: ScheduleEpoch) -> BoundSchedule:
    return epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor)


def _by_time(marks: Sequence[Mark]) -> dict[Instant, list[Mark]]:
    by_time: dict[Instant, list[Mark]] = {}
    for mark in marks:
        by_time.setdefault(mark.nominal, []).append(mark)
    return by_time


def _after(instants: Sequence[Instant], instant: Instant) -> Instant:
    index = bisect_right(instants, instant)
    return instants[index] if index < len(instants) else END


def moment(instant: Instant) -> datetime:
    """An instant of a row as a datetime; of one that is damaged the nearest that there is."""
    return to_datetime(min(max(instant, 0), END))


class _Sweep:
    """The kinds of the ranges that contain an instant, for instants that only grow."""

    def __init__(self, spans: Sequence[Range]) -> None:
        self._coming = sorted(spans, key=lambda span: span.start, reverse=True)
        self._open: list[tuple[Instant, int, Kind]] = []

    def at(self, instant: Instant) -> list[Kind]:
        """Of those in `[start, end)` of which the instant lies."""
        while self._coming and self._coming[-1].start <= instant:
            span = self._coming.pop()
            heappush(self._open, (span.end, len(self._coming), span.kind))
        while self._open and self._open[0][0] <= instant:
            heappop(self._open)
        return [kind for _, _, kind in self._open]

    def steady_until(self) -> Instant:
        """Where the next of them begins or ends."""
        end = self._open[0][0] if self._open else END
        return min(end, self._coming[-1].start) if self._coming else end
