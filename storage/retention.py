"""Retention: what is old and finished leaves, and the horizons of the jobs move up to what is left.

Law 1 holds from a job's horizon on, and a horizon never passes what is unfinished.
"""

from __future__ import annotations

from ..model.instants import Instant
from .protocol import DeletedHistory
from .tables import Tables


class Retention(Tables):
    """`delete_history`, over the primitives."""

    def delete_history(self, before: Instant, limit: int) -> DeletedHistory:
        """Delete what finished before, in bounded batches."""
        with self.transaction():
            expired = self.expired_executions(before, limit)
            horizons: dict[str, Instant] = {}
            for _, job_id, nominal in expired:
                if job_id is not None and nominal is not None:
                    horizons[job_id] = max(horizons.get(job_id, nominal + 1), nominal + 1)
            self.raise_horizons(horizons)
            self.delete_execution_rows([execution_id for execution_id, _, _ in expired])
            ranges = self.delete_ranges(before, limit - len(expired)) if limit > len(expired) else 0
            left = limit - len(expired) - ranges
            jobs = self.forget_removed(before, left) if left > 0 else 0
        return DeletedHistory(len(expired), ranges, jobs)
