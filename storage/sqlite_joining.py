"""The SQLite store on a connection of its caller's, inside the caller's transaction.

The rules are those of every store; only the transaction is not ours. What is done here stands inside a savepoint of
its own, so that what fails leaves the caller's work as it was. The write lock is taken before anything is read:
nothing that was read can change, and whoever waits for that lock knows that the caller has committed or rolled back.

The connection may be set up in any way that `sqlite3` offers. It is used through cursors that give plain rows, and is
left as it was found.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

from ..model.errors import InvalidArgument, StoreError
from .joining import JoinedLedger, ended_inside
from .sqlite_connections import Statements, store_error
from .sqlite_schema import TABLES, VERSION, version_of
from .sqlite_tables import SQLiteTables

_LOCK: Final = "UPDATE facts SET value = value WHERE 0"
"""Changes nothing, and takes the write lock."""
_CALL: Final = "clepsydra_call"
_BLOCK: Final = "clepsydra_block"
"""Savepoints."""


class JoinedSQLite(SQLiteTables, JoinedLedger):
    """The store's executions, read and written in a transaction that the caller commits."""

    def __init__(
        self,
        connection: object,
        path: str,
        with_app_tables: bool,
        damaged: dict[str, set[str]],
        quarantine: Callable[[str, str, str], None],
    ) -> None:
        super().__init__()
        self._connection = _checked(connection, path)
        self._path = path
        self._damaged, self._report = damaged, quarantine
        self._depth = 0
        self._statements = _CallersStatements(self._connection, path)
        with self._plain():
            _check_place(self._statements, with_app_tables)

    def quarantine(self, table: str, row_id: str, reason: str) -> None:
        """Report a row to the store itself."""
        self._report(table, row_id, reason)

    # ---- the caller's transaction

    def mark(self) -> str:
        """A file has one writer: whoever finds the write lock free knows that this one has ended."""
        return ""

    def begin(self) -> None:
        """Begin, or join what was begun; the savepoint tells whether somebody has ended it since."""
        with self._plain():
            began = self._begin_unless_begun()
            try:
                self._say(f"SAVEPOINT {_BLOCK}")
                self._say(_LOCK)
            except BaseException:
                if began:
                    self._undo()
                raise
            self.in_block = True

    def commit(self) -> None:
        """Commit. An error that the caller's own constraints raise is handed on as it is."""
        self.in_block = False
        with self._plain():
            try:
                self._connection.execute(f"RELEASE {_BLOCK}")
            except sqlite3.OperationalError as error:
                raise ended_inside(self._path) from error
            if _keeps_transactions_open(self._connection):
                self._connection.commit()
            else:
                self._say("COMMIT")

    def roll_back(self) -> None:
        """Undo everything."""
        self.in_block = False
        with self._plain():
            if _keeps_transactions_open(self._connection):
                self._connection.rollback()
            elif self._connection.in_transaction:
                self._say("ROLLBACK")

    # ---- what the ledger asks for

    @contextmanager
    def transaction(self) -> Generator[None]:
        """A savepoint in the caller's transaction; a block inside another joins it."""
        if self._depth:
            with self._inner_block():
                yield
            return
        with self._plain():
            began = self._begin_unless_begun(by_itself=False)
            try:
                self._say(f"SAVEPOINT {_CALL}")
                self._say(_LOCK)
                self._statements = _CallersStatements(self._connection, self._path)
                self._depth = 1
                yield
                self._statements.run(f"RELEASE {_CALL}")
            except BaseException:
                self._undo() if began else self._undo_to(_CALL)
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

    def _session(self) -> Statements:
        if not self._depth:
            raise RuntimeError("tables are read and written inside transaction() or reading() only")
        return self._statements

    def _is_alive(self, node_id: str) -> bool | None:
        return None

    # ---- the connection

    def _begin_unless_begun(self, *, by_itself: bool = True) -> bool:
        """See that a transaction is open. True: it was begun here."""
        if self._connection.in_transaction:
            return False
        if self.in_block:
            raise ended_inside(self._path)
        if not by_itself and _commits_by_itself(self._connection):
            raise InvalidArgument(
                "connection",
                self._connection,
                "is in no transaction, and commits each statement by itself; begin one first, with "
                "connection.execute('BEGIN IMMEDIATE')",
            )
        self._say("BEGIN IMMEDIATE")
        return True

    def _say(self, statement: str) -> None:
        try:
            self._connection.execute(statement)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise _explained(error, self._path) from error

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _undo_to(self, savepoint: str) -> None:
        # After some errors SQLite has rolled back everything already, the savepoint with it.
        with suppress(sqlite3.Error):
            self._connection.execute(f"ROLLBACK TO {savepoint}")
            self._connection.execute(f"RELEASE {savepoint}")

    @contextmanager
    def _plain(self) -> Generator[None]:
        """While we read: text as text, whatever the caller has it made into."""
        theirs = self._connection.text_factory
        self._connection.text_factory = str
        try:
            yield
        finally:
            self._connection.text_factory = theirs


class _CallersStatements(Statements):
    """Statements on a connection whose rows may be made into anything."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        super().__init__(connection, path)
        self.writing = True

    def _cursor(self) -> sqlite3.Cursor:
        # Not the connection's own method: a subclass may give other cursors.
        cursor = sqlite3.Connection.cursor(self.connection)
        cursor.row_factory = None
        return cursor


# ---- which connections will do


def _checked(connection: object, path: str) -> sqlite3.Connection:
    if not isinstance(connection, sqlite3.Connection):
        raise InvalidArgument(
            "connection",
            connection,
            f"must be a sqlite3.Connection to {path}, where the scheduler keeps its work; libraries on top of sqlite3 "
            "can give theirs",
        )
    return connection


def _check_place(statements: Statements, with_app_tables: bool) -> None:
    """Raise unless the connection's main database is the store, and our tables are seen on it."""
    path, connection = statements.path, statements.connection
    place = statements.fetch("SELECT file FROM pragma_database_list WHERE name = 'main'")[0][0]
    if not place or not _is_same_file(place, path):
        shown = repr(place) if place else "a database without a file"
        raise InvalidArgument(
            "connection", connection, f"is to {shown}, and the scheduler keeps its work in {path!r}: it must be to that"
        )
    version = version_of(lambda sql: statements.fetch(sql)[0], path, VERSION, with_app_tables=with_app_tables)
    if version != VERSION:
        known = f"tables of version {version}, where {VERSION} is needed" if version else "no tables of clepsydra yet"
        raise StoreError(f"{path} has {known}; enter a scheduler on it, which makes them")
    marks = ", ".join("?" * len(TABLES))
    if hidden := statements.fetch(f"SELECT name FROM sqlite_temp_master WHERE name IN ({marks})", TABLES):
        raise InvalidArgument(
            "connection",
            connection,
            f"has a temporary table {hidden[0][0]!r} that hides the store's; drop or rename it",
        )


def _is_same_file(place: Any, path: str) -> bool:
    try:
        return os.path.samefile(place, path)
    except OSError:
        return False


def _commits_by_itself(connection: sqlite3.Connection) -> bool:
    """Whether a statement outside a transaction is one (`isolation_level=None`, or Python 3.12's `autocommit`)."""
    mode: object = getattr(connection, "autocommit", None)
    return mode if isinstance(mode, bool) else connection.isolation_level is None


def _keeps_transactions_open(connection: sqlite3.Connection) -> bool:
    """Python 3.12's `autocommit=False`: the next transaction begins as one ends, which only its own methods know."""
    return getattr(connection, "autocommit", None) is False


def _explained(error: sqlite3.Error, path: str) -> StoreError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return StoreError(
            f"{path} was changed by others since your transaction first read it, so it cannot write any more; roll it "
            "back and begin anew, with BEGIN IMMEDIATE",
            transient=True,
        )
    return store_error(error, path)
