"""The PostgreSQL store on a connection of its caller's, inside the caller's transaction.

The rules are those of every store; only the transaction is not ours. What is done here stands inside a savepoint of
its own and under our schema's search path, so that what fails leaves the caller's work as it was, and what succeeds its
settings. psycopg's `AsyncConnection` speaks on its event loop: for it, everything here runs in a worker thread and
has the loop say each statement, so that there is one set of rules for both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakSet

import anyio.from_thread
import psycopg
from attrs import frozen
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ..model.errors import InvalidArgument, StoreError, StoreTooNew
from ..model.execution import Execution
from .joining import JoinedLedger, ended_inside
from .postgres_connections import Answer, Statements, marked, store_error
from .postgres_schema import VERSION, quoted
from .postgres_tables import PostgresTables
from .postgres_wire import Said
from .rows import Row

Place: TypeAlias = tuple[str, int | None]
"""A database: its name, and the server's own mark where the role may read it."""

_CALL: Final = "clepsydra_call"
_BLOCK: Final = "clepsydra_block"
"""Savepoints."""
# The caller's settings wait in settings of ours, so that keeping them takes no journey of its own. Locks are waited for
# as long as the caller has said, and not without end.
_ENTER: Final = (
    f"SAVEPOINT {_CALL}; "
    "SELECT set_config('clepsydra.search_path', current_setting('search_path'), true), "
    "set_config('clepsydra.lock_timeout', current_setting('lock_timeout'), true); "
    "SET LOCAL search_path TO {schema}, pg_temp; "
    "SELECT set_config('lock_timeout', '{milliseconds}', true) WHERE current_setting('lock_timeout') = '0'"
)
_LEAVE: Final = (
    "SELECT set_config('search_path', current_setting('clepsydra.search_path'), true), "
    f"set_config('lock_timeout', current_setting('clepsydra.lock_timeout'), true); RELEASE SAVEPOINT {_CALL}"
)


class JoinedPostgres(PostgresTables, JoinedLedger):
    """The store's executions, read and written in a transaction that the caller commits."""

    def __init__(self, connection: object, target: Target) -> None:
        super().__init__()
        self._wire = _wire_of(connection, target)
        self._target = target
        self._damaged = target.damaged
        self._depth = 0
        self._newsworthy = False
        self._statements = self._fresh_statements()

    def quarantine(self, table: str, row_id: str, reason: str) -> None:
        """Report a row to the store itself."""
        self._target.quarantine(table, row_id, reason)

    # ---- the caller's transaction

    def mark(self) -> str:
        """The transaction's own number."""
        try:
            return str(self._wire.execute("SELECT pg_current_xact_id()::text").fetchall()[0][0])
        except psycopg.Error as error:
            raise store_error(error, self._target.where) from error

    def begin(self) -> None:
        """Begin, or join what was begun; the savepoint tells whether somebody has ended it since."""
        # Private, and without it the error would come only when it is too late to undo.
        if getattr(self._wire.connection, "_num_transactions", 0):
            raise InvalidArgument(
                "connection",
                self._wire.connection,
                "is inside `with connection.transaction()`, which would commit it; use execution.transaction() alone",
            )
        began = self._wire.is_idle
        try:
            if began and self._wire.connection.autocommit:
                self._say("BEGIN")
            self._say(f"SAVEPOINT {_BLOCK}")
            with self.transaction():
                pass  # it is in the right place
        except BaseException:
            if began:
                self._undo()
            raise
        self.in_block = True

    def commit(self) -> None:
        """Commit. An error that the caller's own constraints raise is handed on as it is."""
        self.in_block = False
        try:
            self._wire.execute(f"RELEASE SAVEPOINT {_BLOCK}")
        except (errors.InvalidSavepointSpecification, errors.NoActiveSqlTransaction) as error:
            raise ended_inside(self._target.where) from error
        except psycopg.Error as error:
            raise store_error(error, self._target.where) from error
        try:
            self._wire.commit()
        except psycopg.IntegrityError:
            raise
        except psycopg.Error as error:
            raise store_error(error, self._target.where) from error
        if self._newsworthy:
            self._target.tell()

    def roll_back(self) -> None:
        """Undo everything."""
        self.in_block = False
        try:
            self._wire.roll_back()
        except psycopg.Error as error:
            raise store_error(error, self._target.where) from error

    # ---- what the ledger asks for

    @contextmanager
    def transaction(self) -> Generator[None]:
        """A savepoint in the caller's transaction; a block inside another joins it."""
        if self._depth:
            with self._inner_block():
                yield
            return
        began = self._wire.is_idle
        if began and self.in_block:
            raise ended_inside(self._target.where)
        if began and self._wire.connection.autocommit:
            raise InvalidArgument(
                "connection",
                self._wire.connection,
                "is in no transaction, and commits each statement by itself; begin one first, with "
                "`with connection.transaction():`",
            )
        try:
            self._say(_ENTER.format(schema=quoted(self._target.schema), milliseconds=self._target.patience))
            self._statements = self._fresh_statements()
            self._depth = 1
            self._check_place()
            yield
            self._end_call()
        except BaseException:
            self._undo() if began else self._undo_call()
            raise
        finally:
            self._depth = 0

    @contextmanager
    def reading(self) -> Generator[None]:
        """The same: it sees what the caller has done."""
        with self.transaction():
            yield

    @contextmanager
    def _inner_block(self) -> Generator[None]:
        self._depth += 1
        try:
            yield
        except BaseException:
            self._statements.failed = True
            raise
        finally:
            self._depth -= 1

    def _end_call(self) -> None:
        statements = self._statements
        for sql, parameters in statements.last_words.values():
            statements.run(sql, parameters)
        if statements.newsworthy and (channel := self._target.channel()) is not None:
            statements.fetch("SELECT pg_notify(?, '')", (channel,))
        self._newsworthy = self._newsworthy or statements.newsworthy
        self._say(_LEAVE)

    def _session(self) -> Statements:
        if not self._depth:
            raise RuntimeError("tables are read and written inside transaction() or reading() only")
        return self._statements

    def _is_alive(self, node_id: str) -> bool | None:
        return None

    def unfinished_with_keys(self, tasks_and_keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Execution]:
        """By task and key; refused where a key that others have taken since would not be seen."""
        if tasks_and_keys:
            isolation = self._session().fetch("SELECT current_setting('transaction_isolation')")[0][0]
            if isolation != "read committed":
                raise InvalidArgument(
                    "connection",
                    self._wire.connection,
                    f"is in a transaction with isolation level {isolation!r}, which does not see the keys that others "
                    "have taken since it began; use 'read committed', or no key",
                )
        return super().unfinished_with_keys(tasks_and_keys)

    # ---- the connection

    def _fresh_statements(self) -> Statements:
        return _CallersStatements(self._wire, self._target)

    def _check_place(self) -> None:
        """Raise unless the connection is to the store's database, and its tables are of our version. Asked once."""
        if self._wire.connection in self._target.known:
            return
        session, target = self._session(), self._target
        place, ours = place_of(session.fetch), target.place()
        if place[0] != ours[0] or (None not in (place[1], ours[1]) and place[1] != ours[1]):
            raise InvalidArgument(
                "connection",
                self._wire.connection,
                f"is to the database {place[0]!r}, and the scheduler keeps its work in {target.where}: it must be to "
                "that" + (", on the same server" if place[0] == ours[0] else ""),
            )
        if session.fetch("SELECT to_regclass('schema_version') IS NULL")[0][0]:
            raise StoreError(
                f"{target.where} has no tables of clepsydra yet; enter a scheduler on it, which makes them"
            )
        version = session.fetch("SELECT max(version) FROM schema_version")[0][0]
        if version > VERSION:
            raise StoreTooNew(version, VERSION, target.where)
        if version < VERSION:
            raise StoreError(
                f"{target.where} has tables of version {version}, where {VERSION} is needed; enter a scheduler on it, "
                "which makes them"
            )
        target.known.add(self._wire.connection)

    def _say(self, statements: str) -> None:
        try:
            self._wire.execute(statements)
        except psycopg.Error as error:
            raise store_error(error, self._target.where) from error

    def _undo(self) -> None:
        with suppress(psycopg.Error):
            self._wire.roll_back()

    def _undo_call(self) -> None:
        with suppress(psycopg.Error):
            self._wire.execute(f"ROLLBACK TO SAVEPOINT {_CALL}; RELEASE SAVEPOINT {_CALL}")


@frozen
class Target:
    """The store, as one on a caller's connection needs to know it."""

    where: str
    schema: str
    pooled: bool
    patience: int
    """Milliseconds that a lock is waited for, where the caller has not said how long."""
    place: Callable[[], Place]
    known: WeakSet[Any]
    """Connections that have been found to lead there."""
    damaged: dict[str, set[str]]
    quarantine: Callable[[str, str, str], None]
    tell: Callable[[], None]
    """Tell other nodes that there is news."""
    channel: Callable[[], str | None]
    """Where the transaction itself has to tell them, because nobody here will do so afterwards."""


def place_of(fetch: Callable[[str], list[Row]]) -> Place:
    """Which database a connection is to."""
    name, may_ask = fetch("SELECT current_database(), has_function_privilege('pg_control_system()', 'EXECUTE')")[0]
    return name, fetch("SELECT system_identifier FROM pg_control_system()")[0][0] if may_ask else None


# ---- speaking on a connection of either sort


class _Wire(Protocol):
    @property
    def connection(self) -> psycopg.Connection[Any] | psycopg.AsyncConnection[Any]: ...
    @property
    def is_idle(self) -> bool: ...
    def execute(self, sql: str, parameters: Sequence[Any] | None = None, prepare: bool | None = False) -> Answer: ...
    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None: ...
    def commit(self) -> None: ...
    def roll_back(self) -> None: ...


@frozen
class _Blocking:
    """A connection whose methods block."""

    connection: psycopg.Connection[Any]

    @property
    def is_idle(self) -> bool:
        return self.connection.info.transaction_status is TransactionStatus.IDLE

    def execute(self, sql: str, parameters: Sequence[Any] | None = None, prepare: bool | None = False) -> Answer:
        # Not the connection's own factories: those may give other cursors and rows.
        return psycopg.Cursor(self.connection, row_factory=tuple_row).execute(
            _as_sent(sql, parameters), parameters, prepare=prepare
        )

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with psycopg.Cursor(self.connection) as cursor:
            cursor.executemany(marked(sql), rows)

    def commit(self) -> None:
        self.connection.commit()

    def roll_back(self) -> None:
        self.connection.rollback()


@frozen
class _Awaited:
    """A connection whose methods are awaited on its loop, while the thread that this is used in waits."""

    connection: psycopg.AsyncConnection[Any]

    @property
    def is_idle(self) -> bool:
        return self.connection.info.transaction_status is TransactionStatus.IDLE

    def execute(self, sql: str, parameters: Sequence[Any] | None = None, prepare: bool | None = False) -> Answer:
        return anyio.from_thread.run(self._execute, sql, parameters, prepare)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        anyio.from_thread.run(self._execute_many, sql, rows)

    def commit(self) -> None:
        anyio.from_thread.run(self.connection.commit)

    def roll_back(self) -> None:
        anyio.from_thread.run(self.connection.rollback)

    async def _execute(self, sql: str, parameters: Sequence[Any] | None, prepare: bool | None) -> Said:
        async with psycopg.AsyncCursor(self.connection, row_factory=tuple_row) as cursor:
            await cursor.execute(_as_sent(sql, parameters), parameters, prepare=prepare)
            return Said(await cursor.fetchall() if cursor.description else [], cursor.rowcount)

    async def _execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        async with psycopg.AsyncCursor(self.connection) as cursor:
            await cursor.executemany(marked(sql), rows)


def _as_sent(sql: str, parameters: Sequence[Any] | None) -> bytes:
    """Without parameters psycopg looks for no marks, and what looks like one is part of a name."""
    return sql.encode() if parameters is None else marked(sql)


class _CallersStatements(Statements):
    """Statements on either."""

    def __init__(self, wire: _Wire, target: Target) -> None:
        super().__init__(target.where)
        self._wire = wire
        self._prepare = False if target.pooled else None
        self.writing = True

    def _ask(self, sql: str, parameters: Sequence[Any]) -> Answer:
        return self._wire.execute(sql, parameters, self._prepare)

    def _ask_for_each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._wire.execute_many(sql, rows)


def _wire_of(connection: object, target: Target) -> _Wire:
    if isinstance(connection, psycopg.Connection):
        return _Blocking(connection)  # pyright: ignore[reportUnknownArgumentType] - of whatever rows
    if isinstance(connection, psycopg.AsyncConnection):
        return _Awaited(connection)  # pyright: ignore[reportUnknownArgumentType] - of whatever rows
    raise InvalidArgument(
        "connection",
        connection,
        f"must be a psycopg.Connection or AsyncConnection to the database of {target.where}; libraries on top of "
        "psycopg can give theirs",
    )
