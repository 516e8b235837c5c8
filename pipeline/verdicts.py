"""Verdicts read one by one: marks of executions and unfolded ranges of a job's life, in the order of time. Pure and
lazy.

A range says only from where to where; which times it holds, the schedule of that span of the job's life enumerates. So
a night of a per-second job costs one row to keep and is counted out here, as far as somebody reads.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from ..model.execution import Kind, Range, Verdict
from ..model.instants import Instant, to_datetime
from ..model.job import ScheduleEpoch
from ..storage.protocol import LedgerPage, Mark


def unfold(job: str, pages: list[LedgerPage], start: Instant, end: Instant) -> Iterator[Verdict]:
    """Every verdict of a job's nominal times in `[start, end)`, ascending; for each time one per target."""
    streams = [stream for page in pages for stream in _streams(job, page, start, end)]
    return heapq.merge(*streams, key=lambda verdict: (verdict.nominal, verdict.target))


def _streams(job: str, page: LedgerPage, start: Instant, end: Instant) -> Iterator[Iterator[Verdict]]:
    first = max(start, page.horizon)
    yield (_of_mark(job, mark) for mark in page.marks if mark.nominal >= first)
    epochs = {epoch.generation: epoch for epoch in page.epochs}
    for span in page.ranges:
        if (epoch := epochs.get(span.generation)) is not None:
            yield _of_range(job, span, epoch, first, end)


def _of_mark(job: str, mark: Mark) -> Verdict:
    return Verdict(job, to_datetime(mark.nominal), mark.kind, mark.reason, mark.execution_id, mark.target)


def _of_range(job: str, span: Range, epoch: ScheduleEpoch, start: Instant, end: Instant) -> Iterator[Verdict]:
    bound = epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor)
    if bound.driven_by != "time":
        return
    for nominal in bound.times(max(start, span.start), min(end, span.end)):
        if bound.is_excluded(nominal) == (span.kind is Kind.EXCLUDED):
            yield Verdict(job, to_datetime(nominal), span.kind, span.reason)
