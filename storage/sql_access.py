"""What tables in an SQL database are read and written with: statements made of columns, pages, and damage.

Statements are written with `?` for a parameter; an adapter whose driver writes it otherwise translates. A row that
cannot be understood is reported once, remembered until the store is opened again, and passed over. Lists of ids and
names go down as one parameter each, so they may be long.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from ..model.execution import State
from .paging import encode_cursor
from .rows import DAMAGE, Known, Row
from .sql import Conditions, Dialect, Part, Sorting
from .tables import Tables

Value = TypeVar("Value")


class Statements(Protocol):
    """Statements on a connection, and what is known of the transaction that they are in."""

    writing: bool
    known: dict[str, Known]
    """The executions that this transaction has read or written, as the database has them now."""
    named: set[tuple[str, str]]
    """Names and ids of jobs that the database has in `job_names`."""

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""
        ...

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Execute a statement; how many rows it changed."""
        ...

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> object:
        """Execute a statement once for each row."""
        ...


def words(states: Iterable[State]) -> str:
    """States as a list in a statement: they are words of ours."""
    return ", ".join(sorted(f"'{state.value}'" for state in states))


def select(columns: Sequence[str], table: str) -> str:
    """The beginning of a query."""
    return f"SELECT {', '.join(columns)} FROM {table}"


def insert(columns: Sequence[str], table: str) -> str:
    """A statement that takes a value for each column."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def insert_or_replace(columns: Sequence[str], table: str) -> str:
    """The same, in the place of what has this primary key: the first of the columns."""
    return insert(columns, table) + instead(columns)


def instead(columns: Sequence[str]) -> str:
    """The end of an insert that takes the place of what has this primary key: the first of the columns."""
    others = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
    return f" ON CONFLICT ({columns[0]}) DO UPDATE SET {others}"


class SQLAccess(Tables):
    """What every group of tables needs."""

    dialect: ClassVar[Dialect]

    def __init__(self) -> None:
        super().__init__()
        self._damaged: dict[str, set[str]] = {}
        """Ids by table of the rows that were put aside since the store was opened."""

    @abstractmethod
    def _session(self) -> Statements:
        """The session of this thread, inside a block."""

    def quarantine(self, table: str, row_id: str, reason: str) -> None:
        """Report a row, once."""
        known = self._damaged.setdefault(table, set())
        if row_id not in known:
            known.add(row_id)
            super().quarantine(table, row_id, reason)

    def unreadable_jobs(self) -> Collection[str]:
        """Those that were put aside."""
        return self._damaged.get("jobs", ())

    def _understood(self, table: str, rows: Iterable[Row], read: Callable[[Row], Value]) -> list[Value]:
        """The values of rows whose first column is their id, without those that cannot be understood."""
        values: list[Value] = []
        for row in rows:
            try:
                values.append(read(row))
            except DAMAGE as error:
                self.quarantine(table, str(row[0]), _reason(error))
        return values

    def _page(
        self, columns: Sequence[str], source: str, parts: Sequence[Part], limit: int | None, offset: int = 0
    ) -> list[Row]:
        """The rows of a page, and one more if there is one."""
        session = self._session()
        rows: list[Row] = []
        for part in parts:
            left = self.dialect.unlimited if limit is None else limit + 1 - len(rows)
            found = session.fetch(
                f"{select(columns, source)} WHERE {part.conditions.text} ORDER BY {part.order} LIMIT ? OFFSET ?",
                (*part.conditions.parameters, left, offset),
            )
            rows += found
            if offset and part is not parts[-1]:
                offset = 0 if found else offset - self._count(source, part.conditions)
        return rows

    def _count(self, source: str, conditions: Conditions) -> int:
        rows = self._session().fetch(f"SELECT count(*) FROM {source} WHERE {conditions.text}", conditions.parameters)
        return int(rows[0][0])


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def cut_page(
    rows: list[Row], columns: Sequence[str], sorting: Sorting, limit: int | None, cursor: str | None
) -> tuple[list[Row], str | None]:
    """The rows of a page, of which one more was read, and the cursor of the next."""
    if limit is None or len(rows) <= limit:
        return rows, None
    if limit <= 0:
        return [], cursor
    last = rows[limit - 1]
    return rows[:limit], encode_cursor(sorting.order, last[columns.index(sorting.column)], last[0])
