"""What auditors read, in SQL: each question answered by the few rows of an index that it asks for."""

from __future__ import annotations

from collections.abc import Collection

from ..model.execution import Attempt, Range
from ..model.instants import Instant
from ..model.job import ScheduleEpoch
from .rows import (
    ATTEMPT_COLUMNS,
    EPOCH_COLUMNS,
    RANGE_COLUMNS,
    attempt_from_row,
    epoch_from_row,
    range_from_row,
)
from .sql_access import SQLAccess, select

_NEAR = 64
"""Ranges do not overlap, but for those of excluded times: what reaches over an instant is among the last before it."""

_NTH_FROM = "SELECT {column} FROM {table} WHERE job_id = ? AND {column} >= ? ORDER BY {column} LIMIT 1 OFFSET ?"
_NTH_MARK = _NTH_FROM.format(column="nominal", table="executions")
_NTH_RANGE = _NTH_FROM.format(column="first", table="ranges")
_JOBS = """
SELECT id, name, removed FROM (
    SELECT * FROM (SELECT id, name, 0 AS removed FROM jobs WHERE id > ? ORDER BY id LIMIT ?) AS living
    UNION ALL SELECT * FROM (SELECT id, name, 1 AS removed FROM removed WHERE id > ? ORDER BY id LIMIT ?) AS gone
) AS known ORDER BY id LIMIT ?"""


class SQLAuditing(SQLAccess):
    """What `tables.py` has for auditors, by index."""

    def remembered_jobs(self, after: str, limit: int) -> list[tuple[str, str, bool]]:
        """Of both tables, damaged rows included."""
        rows = self._session().fetch(_JOBS, (after, limit, after, limit, limit))
        return [(str(row[0]), str(row[1]), row[2] == 1) for row in rows]

    def epochs_of(self, job_id: str, name: str) -> list[ScheduleEpoch]:
        """By id."""
        rows = self._session().fetch(
            select(EPOCH_COLUMNS, "epochs") + " WHERE job_id = ? ORDER BY since, generation", (job_id,)
        )
        return self._understood("epochs", rows, epoch_from_row)

    def stretch_end(self, job_id: str, start: Instant, limit: int) -> Instant | None:
        """Where the next execution or range after so many begins."""
        found = [self._session().fetch(nth, (job_id, start, limit)) for nth in (_NTH_MARK, _NTH_RANGE)]
        ends = [int(rows[0][0]) for rows in found if rows]
        return max(min(ends), start + 1) if ends else None

    def stretch_ranges(self, job_id: str, start: Instant, end: Instant) -> list[Range]:
        """What begins in the stretch, and what reaches into it."""
        ranges, session = select(RANGE_COLUMNS, "ranges"), self._session()
        before = session.fetch(
            f"{ranges} WHERE job_id = ? AND first < ? ORDER BY first DESC LIMIT ?", (job_id, start, _NEAR)
        )
        within = session.fetch(
            f"{ranges} WHERE job_id = ? AND first >= ? AND first < ? ORDER BY first", (job_id, start, end)
        )
        reaching = [span for span in self._understood("ranges", before[::-1], range_from_row) if span.end > start]
        return reaching + self._understood("ranges", within, range_from_row)

    def execution_ids(self, after: str, limit: int) -> list[str]:
        """Damaged rows included."""
        rows = self._session().fetch("SELECT id FROM executions WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [str(row[0]) for row in rows]

    def attempts_of(self, execution_ids: Collection[str]) -> dict[str, list[Attempt]]:
        """In one statement."""
        found: dict[str, list[Attempt]] = {}
        if not execution_ids:
            return found
        rows = self._session().fetch(
            f"{select(ATTEMPT_COLUMNS, 'attempts')} WHERE {self.dialect.listed('execution_id')} "
            "ORDER BY execution_id, id",
            (self.dialect.pack(execution_ids),),
        )
        for attempt in self._understood("attempts", rows, attempt_from_row):
            found.setdefault(attempt.execution_id, []).append(attempt)
        return found
