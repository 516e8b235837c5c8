"""The table primitives on PostgreSQL, whole: what SQL databases share, and what is PostgreSQL's own.

Knows nothing of servers and threads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from ..model.instants import Instant
from ..model.job import JobRecord
from .postgres_connections import Turn
from .postgres_executions import PostgresExecutions
from .postgres_queries import columns_of, update_all
from .rows import JOB_COLUMNS, job_from_row
from .sql_access import select
from .sql_tables import SQLTables

LAST_EXECUTION: Final = "last_execution_date"
_JOBS: Final = select(JOB_COLUMNS, "jobs")
_CURSORS: Final = ("cursor", "fired", "horizon")
_LATER: Final = """
INSERT INTO facts VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE facts.value < excluded.value"""


class PostgresTables(PostgresExecutions, SQLTables):
    """Row access for the ledger, in one schema of a PostgreSQL database."""

    def take_turns(self) -> None:
        """Wait for whoever has the turn."""
        session = self._session()
        number = "hashtextextended(current_schema(), 1)"
        if session.may_wait(Turn.TURN, None):
            session.fetch(f"SELECT pg_advisory_xact_lock({number})")
        elif not session.fetch(f"SELECT pg_try_advisory_xact_lock({number})")[0][0]:
            raise session.out_of_turn()
        session.holds(Turn.TURN, ("",))

    def get_fact(self, key: str) -> str | None:
        """A fact, if it is set, by this transaction or before it."""
        session = self._session()
        if (said := session.last_words.pop(key, None)) is not None:
            session.run(*said)
        return super().get_fact(key)

    def set_fact(self, key: str, value: str | None) -> None:
        """Set or remove."""
        self._session().last_words.pop(key, None)
        super().set_fact(key, value)

    def set_last_execution_date(self, at: Instant) -> None:
        """Never goes back. Every fire of every node writes this row, so it is written last."""
        with self.transaction():
            words = self._session().last_words
            if LAST_EXECUTION in words:
                at = max(at, words[LAST_EXECUTION][1][1])
            words[LAST_EXECUTION] = _LATER, (LAST_EXECUTION, at)

    def next_revision(self) -> int:
        """Count it up; nobody else does until the transaction ends."""
        session = self._session()
        rows = session.fetch("UPDATE facts SET value = value + 1 WHERE key = 'revision' RETURNING value")
        session.holds(Turn.REVISION, ("",))
        session.newsworthy = True
        return int(rows[0][0])

    def _jobs(self, column: str, values: Collection[str], lock: bool) -> list[JobRecord]:
        session = self._session()
        if not (lock and session.writing):
            return super()._jobs(column, values, lock)
        locking = session.locking(Turn.JOB, min(values) if column == "id" else None)
        where = f"{_JOBS} WHERE {self.dialect.listed(column)} ORDER BY id{locking}"
        rows = session.fetch(where, (self.dialect.pack(values),))
        session.holds(Turn.JOB, [row[0] for row in rows])
        return self._understood("jobs", rows, job_from_row)

    def update_cursors(self, records: Sequence[JobRecord]) -> None:
        """What changes with each fire; of several changes of one job the last."""
        rows = {record.id: (record.cursor, record.fired, record.horizon, record.id) for record in records}
        if rows:
            self._session().run(update_all(_CURSORS, "jobs"), columns_of(list(rows.values())))

    def expired_executions(self, before: Instant, limit: int) -> list[tuple[str, str | None, Instant | None]]:
        """Oldest first, without what an unfinished execution of the same job holds back, and what somebody works on or
        on whose job.
        """
        held_back = self._earlier_unfinished("executions.job_id", "executions.nominal")
        rows = self._session().fetch(
            "SELECT id, job_id, nominal FROM executions "
            f"WHERE finished_at IS NOT NULL AND finished_at < ? AND occupies = 0 AND NOT {held_back} "
            "ORDER BY finished_at, id LIMIT ? FOR UPDATE SKIP LOCKED",
            (before, limit),
        )
        busy = self._lock_free_jobs({row[1] for row in rows if row[1] is not None})
        return [(row[0], row[1], row[2]) for row in rows if row[1] not in busy]
