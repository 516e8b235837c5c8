"""The auditor of law 1: each past nominal time of a job has exactly one verdict, or exactly one unsettled execution.

A pure reading of what `verdicts` gives. The times of each span of a job's life are enumerated by the schedule that it
had then, and each must be accounted for once: by one range, or by the executions of that time, one for each target. A
range of kind `excluded` counts for the times that the schedule excludes, any other range for those that it does not.
What no calendar names, completion-driven jobs and those at each start, is outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush

from attrs import frozen

from ..model.execution import FINISHED, UNSTARTED, Kind, Range, State
from ..model.instants import Instant, to_datetime
from ..model.job import ScheduleEpoch
from .protocol import LedgerPage, Mark


@frozen
class Violation:
    """A nominal time for which law 1 does not hold."""

    job_id: str
    nominal: Instant
    why: str

    def __str__(self) -> str:
        return f"job {self.job_id}, {to_datetime(self.nominal).isoformat()}: {self.why}"


def audit(pages: Sequence[LedgerPage], *, start: Instant | None = None, end: Instant | None = None) -> list[Violation]:
    """Every violation of law 1 in these pages. `start` and `end` are those that the pages were asked for."""
    return [violation for page in pages for violation in violations(page, start, end)]


def violations(page: LedgerPage, start: Instant | None = None, end: Instant | None = None) -> Iterator[Violation]:
    """The violations of one page, found one by one as they are asked for: a long life need not be read at once."""
    first = page.horizon if start is None else max(page.horizon, start)
    last = page.cursor if end is None else min(page.cursor, end - 1)
    marks = _by_time(page.marks)
    named: set[Instant] = set()
    for epoch in page.epochs:
        yield from _in_epoch(epoch, page, marks, named, first, last)
    if any(epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor).driven_by == "time" for epoch in page.epochs):
        yield from _strangers(page, marks, named, first)
    yield from _orphans(page)


def _in_epoch(
    epoch: ScheduleEpoch,
    page: LedgerPage,
    marks: Mapping[Instant, Sequence[Mark]],
    named: set[Instant],
    first: Instant,
    last: Instant,
) -> Iterator[Violation]:
    """Each time that the schedule of this span names, with what accounts for it."""
    bound = epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor)
    if bound.driven_by != "time":
        named.update(marks)
        return
    sweep = _Sweep([span for span in page.ranges if span.generation == epoch.generation])
    until = last if epoch.until is None else min(last, epoch.until)
    for nominal in bound.times(max(first, epoch.since + 1), until + 1):
        here = marks.get(nominal, ())
        if here:
            named.add(nominal)
        excluded = bound.is_excluded(nominal)
        kinds = [span.kind for span in sweep.at(nominal) if (span.kind is Kind.EXCLUDED) == excluded]
        for why in _objections(kinds, here, excluded):
            yield Violation(epoch.job_id, nominal, why)


def _objections(kinds: Sequence[Kind], marks: Sequence[Mark], excluded: bool) -> Iterator[str]:
    if not kinds and not marks:
        yield "it has neither a verdict nor an execution"
    if kinds and marks:
        yield f"it has an execution, {marks[0].execution_id}, and is {kinds[0].value} in a range as well"
    if len(kinds) > 1:
        yield f"it is in {len(kinds)} ranges: {', '.join(sorted(kind.value for kind in kinds))}"
    if excluded and marks:
        yield f"it is excluded, and has an execution, {marks[0].execution_id}"
    if len({mark.target for mark in marks}) < len(marks):
        yield f"it has {len(marks)} executions, more than one for a target"
    for mark in marks:
        yield from _objections_to_mark(mark)


def _objections_to_mark(mark: Mark) -> Iterator[str]:
    row = f"execution {mark.execution_id} is {mark.state.value}"
    if mark.kind is None and mark.state in FINISHED:
        yield f"{row} and has no verdict"
    elif mark.kind is None and mark.state is State.RUNNING:
        yield f"{row} and is not marked as fired"
    elif mark.kind not in (None, Kind.FIRED) and mark.state in UNSTARTED:
        yield f"{row} and has a verdict already, {mark.kind}"


def _strangers(
    page: LedgerPage, marks: Mapping[Instant, Sequence[Mark]], named: set[Instant], first: Instant
) -> Iterator[Violation]:
    """Executions of times that no schedule of the job named, or that the cursor has not reached."""
    for nominal, here in marks.items():
        if nominal > page.cursor:
            yield Violation(here[0].job_id, nominal, f"execution {here[0].execution_id} lies beyond the cursor")
        elif nominal >= first and nominal not in named:
            yield Violation(
                here[0].job_id, nominal, f"no schedule names it, but execution {here[0].execution_id} has it"
            )


def _orphans(page: LedgerPage) -> Iterator[Violation]:
    """Ranges that no schedule is kept for."""
    known = {epoch.generation for epoch in page.epochs}
    for span in page.ranges:
        if span.generation not in known and span.end > page.horizon:
            yield Violation(
                span.job_id, span.start, f"a range of {span.kind.value} times has no schedule to read it with"
            )


def _by_time(marks: Sequence[Mark]) -> dict[Instant, list[Mark]]:
    by_time: dict[Instant, list[Mark]] = {}
    for mark in marks:
        by_time.setdefault(mark.nominal, []).append(mark)
    return by_time


class _Sweep:
    """Which ranges contain an instant, for instants that only grow."""

    def __init__(self, spans: Sequence[Range]) -> None:
        self._coming = sorted(spans, key=lambda span: span.start, reverse=True)
        self._open: list[tuple[Instant, int, Range]] = []

    def at(self, instant: Instant) -> list[Range]:
        """Those in `[start, end)` of which the instant lies."""
        while self._coming and self._coming[-1].start <= instant:
            span = self._coming.pop()
            heappush(self._open, (span.end, len(self._coming), span))
        while self._open and self._open[0][0] <= instant:
            heappop(self._open)
        return [span for _, _, span in self._open]
