"""Connections to one SQLite file: one for each thread, their transactions, and what their errors mean.

The writer and each reader have a connection of their own; in WAL mode none of them waits for another, only writers do
for writers. A connection that was given up on (`discard`) is never used again: its thread, should it ever come back,
finds that its transaction cannot go on and is undone, while the next call opens another. A child made by `fork`
inherits the connections of its parent and must not touch them; it keeps them unused and opens its own. Knows no tables.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from ..model.errors import StoreCorrupt, StoreError, StoreUnavailable
from .rows import Known, Row
from .sessions import Sessions, ThreadSession

_WAL_LIMIT: Final = 64 * 1024 * 1024
_CACHE: Final = 8 * 1024 * 1024
_STATEMENTS: Final = 512
_STEPS: Final = 1_000_000
"""Of SQLite's virtual machine, some 20 ms: hardly a statement takes so many."""


class Statements:
    """Statements on one connection, and what is known of the transaction that they are in."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self.connection = connection
        self.path = path
        self.stale = False
        """Given up on: it must do nothing any more."""
        self.writing = False
        self.failed = False
        """A part of the transaction has failed: none of it may be committed."""
        self.known: dict[str, Known] = {}
        """The executions that this transaction has read or written, as the file has them now."""
        self.named: set[tuple[str, str]] = set()
        """Names and ids of jobs that the file has in `job_names`."""
        self.newsworthy = False
        """Whether other processes should know soon of what was written."""

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""
        try:
            return self._execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if not _is_undecodable(error):
                raise self._failure(error) from error
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise self._failure(error) from error
        return self._fetch_undecodable(sql, parameters)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Execute a statement; how many rows it changed."""
        try:
            return self._execute(sql, parameters).rowcount
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise self._failure(error) from error

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Execute a statement once for each row; how many rows it changed in all."""
        if self.stale or self.failed:
            raise self._refusal()
        try:
            return self._cursor().executemany(sql, rows).rowcount
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise self._failure(error) from error

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self.stale or self.failed:
            raise self._refusal()
        return self._cursor().execute(sql, parameters)

    def _cursor(self) -> sqlite3.Cursor:
        return self.connection.cursor()

    def _fetch_undecodable(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """The same with damaged text as bytes, which is no text to whoever reads the row."""
        self.connection.text_factory = _text_or_bytes
        try:
            return self._execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            self.connection.text_factory = str

    def _failure(self, error: Exception) -> StoreError:
        self.failed = True
        return self._refusal() if self.stale else store_error(error, self.path)

    def _refusal(self) -> StoreError:
        # After some errors SQLite has rolled back already: what came next would be committed by itself.
        if self.stale:
            return StoreUnavailable(f"{self.path}: this call was given up on; what it had not committed is undone")
        return StoreError(f"{self.path}: a part of the transaction has failed, so all of it is undone")


class Session(Statements, ThreadSession):
    """One thread's connection, and its transactions."""

    def __init__(self, connection: sqlite3.Connection, path: str, on_news: Callable[[], None]) -> None:
        Statements.__init__(self, connection, path)
        ThreadSession.__init__(self)
        self._on_news = on_news
        # An interrupt that comes just before a statement begins is lost on it; this is asked while it runs.
        connection.set_progress_handler(self._is_stale, _STEPS)

    # ---- transactions

    @contextmanager
    def block(self, writing: bool) -> Generator[None]:
        """The outermost block of a transaction or of a snapshot."""
        try:
            with self.lock:
                try:
                    self._begin(writing)
                    yield
                    self.run("COMMIT")
                    if self.newsworthy:
                        self._on_news()
                except BaseException:
                    self._roll_back()
                    raise
                finally:
                    self.depth = 0
                    self.known.clear()
        finally:
            if self.stale:
                self.close()

    def can_write(self, busy_timeout: float) -> bool:
        """Whether the write lock is free at this moment. Does not wait for it."""
        try:
            with self.lock:
                return self._try_write_lock(busy_timeout)
        finally:
            if self.stale:
                self.close()

    def _try_write_lock(self, busy_timeout: float) -> bool:
        self.failed = False
        self.fetch("PRAGMA busy_timeout = 0")
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise self._failure(error) from error
            return False
        finally:
            self._roll_back()
            with suppress(sqlite3.Error):
                self.connection.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
        return True

    def _is_stale(self) -> bool:
        return self.stale

    def _begin(self, writing: bool) -> None:
        self.depth, self.writing, self.failed, self.newsworthy = 1, writing, False, False
        self.run("BEGIN IMMEDIATE" if writing else "BEGIN DEFERRED")

    def _roll_back(self) -> None:
        self.named.clear()
        with suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    # ---- the end

    def _close(self) -> None:
        with suppress(sqlite3.Error):
            self.connection.close()

    def _break_off(self) -> None:
        with suppress(sqlite3.Error):
            self.connection.interrupt()


class Connections(Sessions[Session]):
    """The sessions of a file, one for each thread, opened when they are first needed."""

    def __init__(
        self,
        path: str,
        synchronous: Literal["FULL", "NORMAL"],
        busy_timeout: float,
        check: Callable[[sqlite3.Connection], None],
        on_news: Callable[[], None],
    ) -> None:
        super().__init__()
        self.path = path
        self.synchronous = synchronous
        self.busy_timeout = busy_timeout
        self._check = check
        self._on_news = on_news
        """What is called after news were written."""

    @contextmanager
    def block(self, writing: bool) -> Generator[None]:
        """A transaction, or a snapshot; inside another block it is that one."""
        session = self._mine()
        if session is not None and session.depth:
            with session.inner_block(writing):
                yield
            return
        with self._ready(session).block(writing):
            yield

    def can_write(self) -> bool:
        """Whether nobody, in this process or another, holds the write lock at this moment."""
        return self._ready(self._mine()).can_write(self.busy_timeout)

    def _ready(self, session: Session | None) -> Session:
        return self._keep(self._open()) if session is None or session.stale else session

    def _open(self) -> Session:
        if self._closed:
            raise StoreError(f"{self.path} is not open; a scheduler opens its store when it is entered")
        connection = connect(self.path, self.busy_timeout)
        try:
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE // 1024}")
            connection.execute("PRAGMA temp_store = MEMORY")
            self._check(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise store_error(error, self.path) from error
            raise
        return Session(connection, self.path, self._on_news)


def connect(path: str, busy_timeout: float, *, create: bool = False) -> sqlite3.Connection:
    """A connection without transactions of its own making. Any thread may close it; one at a time uses it."""
    mode = "rwc" if create else "rw"
    try:
        return sqlite3.connect(
            f"{Path(path).as_uri()}?mode={mode}",
            uri=True,
            timeout=busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
        )
    except sqlite3.Error as error:
        raise store_error(error, path) from error


# ----------------------------------------------------------------------------------------------------------- errors

_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another connection",
    sqlite3.SQLITE_PROTOCOL: "is locked by another process",
    sqlite3.SQLITE_INTERRUPT: "was interrupted",
    sqlite3.SQLITE_SCHEMA: "has had its schema changed meanwhile",
}
_TRANSIENT: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; nothing was changed, make room and it goes on",
    sqlite3.SQLITE_IOERR: "the disk reports an error; nothing was changed",
    sqlite3.SQLITE_NOMEM: "there is not enough memory; nothing was changed",
    sqlite3.SQLITE_CANTOPEN: "the file, or its -wal or -shm file, cannot be opened",
}
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_MOVED: Final = sqlite3.SQLITE_READONLY | 4 << 8
_FILESYSTEM_CORRUPT: Final = sqlite3.SQLITE_IOERR | 33 << 8


def store_error(error: Exception, path: str) -> StoreError:
    """What an error of SQLite means to the store's callers."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & 0xFF
    if primary in _UNAVAILABLE:
        return StoreUnavailable(f"{path} {_UNAVAILABLE[primary]} ({error})")
    if primary in _CORRUPT or code == _FILESYSTEM_CORRUPT:
        return StoreCorrupt(f"{path} is damaged or no SQLite database ({error}); restore it from a backup")
    if code == _MOVED:
        return StoreUnavailable(f"{path} was moved or replaced while it was open ({error})")
    if primary == sqlite3.SQLITE_READONLY:
        return StoreError(f"{path} cannot be written ({error}): {write_access(path)}")
    if primary in _TRANSIENT:
        return StoreError(f"{path}: {_TRANSIENT[primary]} ({error})", transient=True)
    return StoreError(f"{path}: {error}")


def write_access(path: str) -> str:
    """What it takes to write a SQLite file."""
    return (
        f"this process needs the right to write the file and its directory {os.path.dirname(path)}, "
        "where SQLite keeps the -wal and -shm files"
    )


def _is_undecodable(error: sqlite3.OperationalError) -> bool:
    return "Could not decode to UTF-8" in str(error)


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
