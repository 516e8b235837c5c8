"""The table primitives on SQLite, whole: what SQL databases share, and what is SQLite's own.

Knows nothing of files, locks and threads.
"""

from __future__ import annotations

from .sql_tables import SQLTables
from .sqlite_executions import SQLiteExecutions


class SQLiteTables(SQLiteExecutions, SQLTables):
    """Row access for the ledger, on one SQLite file."""

    def next_revision(self) -> int:
        """Count it up: nodes want to know."""
        self._session().newsworthy = True
        return super().next_revision()
