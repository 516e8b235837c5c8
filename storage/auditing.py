"""Auditing: what an auditor reads, in bounded steps, each from one snapshot. It changes nothing and judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from ..model.execution import Execution
from ..model.instants import LAST, Instant
from ..model.job import JobRecord
from ..model.policies import Overlap
from .protocol import Account, LedgerPage, Life, Lives, Standing
from .tables import Tables

_UNKNOWN = (0, -1)
"""Horizon and cursor of a job that is in no table of jobs."""


class Auditing(Tables):
    """`AuditStorage`, over the primitives."""

    def looking(self) -> AbstractContextManager[None]:
        """A store that has nothing to open can be read as it is."""
        return nullcontext()

    def standings(self, after: str, limit: int) -> Sequence[Standing]:
        """Jobs by id, those that were removed too."""
        with self.reading():
            known = self.remembered_jobs(after, limit)
            ids = [job_id for job_id, _, _ in known]
            records, bounds = self.jobs_by_id(ids), self.horizons(ids)
            return [
                Standing(
                    job_id,
                    name,
                    removed,
                    records.get(job_id),
                    self.epochs_of(job_id, name),
                    *bounds.get(job_id, _UNKNOWN),
                    self._occupying(records.get(job_id)),
                )
                for job_id, name, removed in known
            ]

    def _occupying(self, record: JobRecord | None) -> list[Execution]:
        if record is None or record.job.overlap is Overlap.ALLOW:
            return []
        return [row for row in self.unfinished_of_jobs([record.id]).get(record.id, ()) if row.occupies]

    def account(self, job_id: str, name: str, start: Instant, limit: int) -> Account:
        """A stretch of a job's life."""
        with self.reading():
            end = self.stretch_end(job_id, start, limit)
            until = LAST if end is None else end
            horizon, cursor = self.horizons([job_id]).get(job_id, _UNKNOWN)
            page = LedgerPage(
                self.epochs_of(job_id, name),
                self.stretch_ranges(job_id, start, until),
                self.list_marks([job_id], start, until),
                horizon,
                cursor,
            )
        return Account(page, end)

    def lives(self, after: str, limit: int) -> Lives:
        """Executions with their attempts."""
        with self.reading():
            ids = self.execution_ids(after, limit)
            rows, past = self.executions_by_id(ids), self.attempts_of(ids)
        return Lives(
            [Life(rows[row_id], past.get(row_id, ())) for row_id in ids if row_id in rows],
            [row_id for row_id in ids if row_id not in rows],
            ids[-1] if len(ids) == limit else None,
        )
