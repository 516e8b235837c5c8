"""Connections to one PostgreSQL database: one for each thread, their transactions, and what their errors mean.

What is set is set once for a connection; behind a proxy, which may hand each transaction to another connection, it is
set anew for each of them and ends with it (`SET LOCAL`). A transaction that writes reads what is committed when each of
its statements begins, and locks what it is going to change; one that only reads has one snapshot. Locks are taken in
one order by everybody: the turn, jobs, keys, executions, the revision, each by id. Whoever needs one out of that order,
as a batch of calls in one transaction may, does not wait for it but gives up and begins anew, so that nobody waits in
a circle.

A connection that is lost is replaced. One that was given up on (`discard`) is never used again: its thread, should it
ever come back, finds that its transaction cannot go on, while the next call opens another. A child made by `fork`
inherits the connections of its parent and must not touch them. Knows no tables.
"""

from __future__ import annotations

import os
import selectors
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias

import psycopg
from attrs import field, frozen
from psycopg import capabilities, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import PollingStatus, TransactionStatus
from psycopg.pq.abc import PGcancelConn
from psycopg.types.numeric import Int8Dumper

from ..model.errors import StoreContended, StoreError, StoreUnavailable
from .postgres_schema import quoted
from .postgres_watermarks import Watermark
from .postgres_wire import Wire
from .rows import Known, Row
from .sessions import Sessions, ThreadSession
from .threads import start_daemon

Connection: TypeAlias = psycopg.Connection[Row]

_BEGIN_WRITING: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"
_BEGIN_READING: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_KEEPALIVE: Final = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""A host that has vanished is noticed within half a minute, where the connection string does not say otherwise."""
_LOCK_TIMEOUT: Final = 1000
"""Milliseconds. Our own transactions are short; one of an app's that holds a key must not stop all that we write."""
_DISCOURAGED: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_material", "enable_memoize")
_STATEMENTS: Final = 256
"""How many prepared statements a connection keeps."""
_CANCEL_PATIENCE: Final = 60.0
"""Seconds after which a server that is silent is not asked any more to stop a statement."""


class Turn(IntEnum):
    """What is locked, in the order in which it is."""

    TURN = 0
    JOB = 1
    KEY = 2
    EXECUTION = 3
    REVISION = 4


@frozen
class Settings:
    """How connections are made and used."""

    dsn: str = field(repr=False)
    schema: str
    connect_timeout: float
    statement_timeout: float
    pooled: bool

    def conninfo(self) -> dict[str, Any]:
        """The connection string, with what it does not say itself; text is what we say it is."""
        known: dict[str, Any] = {
            **_KEEPALIVE,
            "application_name": "clepsydra",
            "connect_timeout": str(max(2, round(self.connect_timeout))),  # libpq waits for two seconds at least
        }
        return known | conninfo_to_dict(self.dsn) | {"client_encoding": "UTF8"}

    @property
    def where(self) -> str:
        """The place, for messages: without a password."""
        said = conninfo_to_dict(self.dsn)
        host = said.get("host") or "the local server"
        port = f":{said['port']}" if said.get("port") else ""
        return f"schema {self.schema!r} of {said.get('dbname') or 'the default database'} at {host}{port}"


class Answer(Protocol):
    """What a statement has given."""

    @property
    def rowcount(self) -> int:
        """How many rows it gave or changed."""
        ...

    def fetchall(self) -> list[Row]:
        """The rows."""
        ...


class Statements(ABC):
    """Statements on one connection, and what is known of the transaction that they are in."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stale = False
        """Given up on: it must do nothing any more."""
        self.writing = False
        self.failed = False
        """A part of the transaction has failed: none of it may be committed."""
        self.known: dict[str, Known] = {}
        """The executions that this transaction has read or written, as the database has them now."""
        self.named: set[tuple[str, str]] = set()
        """Names and ids of jobs that the database has in `job_names`."""
        self.marks: dict[str, Watermark] = {}
        """By queue where its waiting work begins, as far as is known; none of it outlives what was undone."""
        self.highest: tuple[int, str] = (-1, "")
        """The last of the locks that the transaction holds."""
        self.last_words: dict[str, tuple[str, Sequence[Any]]] = {}
        """Statements that the transaction ends with, so that what they lock is locked for a moment only."""
        self.newsworthy = False
        """Whether it has written what other nodes may be waiting for."""

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""
        try:
            return self._execute(sql, parameters).fetchall()
        except (psycopg.Error, ValueError, OverflowError) as error:
            raise self._failure(error) from error

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Execute a statement; how many rows it changed."""
        try:
            return self._execute(sql, parameters).rowcount
        except (psycopg.Error, ValueError, OverflowError) as error:
            raise self._failure(error) from error

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row: all of them travel together."""
        if self.stale or self.failed:
            raise self._refusal()
        try:
            self._ask_for_each(sql, rows)
        except (psycopg.Error, ValueError, OverflowError) as error:
            raise self._failure(error) from error

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        if self.stale or self.failed:
            raise self._refusal()
        return self._ask(sql, parameters)

    @abstractmethod
    def _ask(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Have the server execute it."""

    @abstractmethod
    def _ask_for_each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Have the server execute it with each row."""

    # ---- locks

    def may_wait(self, turn: Turn, least: str | None) -> bool:
        """Whether a lock may be waited for: not once a later one is held. `least`: the first id, if it is known.

        Among executions the order is not kept so strictly: those of a job are behind its row, and of others two who
        finish and cancel the same ones at the same moment hardly ever meet; then the server's own check is enough.
        """
        if turn is Turn.EXECUTION:
            return self.highest[0] <= turn
        return self.highest < (turn, least or "")

    def holds(self, turn: Turn, ids: Collection[str]) -> None:
        """Remember that these are locked."""
        if ids:
            self.highest = max(self.highest, (turn, max(ids)))

    def locking(self, turn: Turn, least: str | None = None) -> str:
        """What a query of rows that are to be changed ends with."""
        return " FOR UPDATE" if self.may_wait(turn, least) else " FOR UPDATE NOWAIT"

    def out_of_turn(self) -> StoreError:
        """The error of one who must not wait for a lock that others hold."""
        self.failed = True
        return StoreContended(f"{self.where}: {_BEGUN_ANEW}")

    def _failure(self, error: Exception) -> StoreError:
        self.failed = True
        return self._refusal() if self.stale else store_error(error, self.where)

    def _refusal(self) -> StoreError:
        if self.stale:
            return StoreUnavailable(f"{self.where}: this call was given up on; what it had not committed is undone")
        return StoreError(f"{self.where}: a part of the transaction has failed, so all of it is undone")


class Session(Statements, ThreadSession):
    """One thread's connection, and its transactions."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        on_news: Callable[[], None],
        channel: Callable[[], str | None],
    ) -> None:
        Statements.__init__(self, settings.where)
        ThreadSession.__init__(self)
        self.connection = connection
        self._on_news, self._channel = on_news, channel
        self._wire = Wire(connection) if is_direct(connection) else None
        self._settings = b"" if self._wire else f"; {_set(settings, 'LOCAL')}".encode()
        self._unsaid = b""
        """What begins the transaction, until its first statement takes it along."""

    def _ask(self, sql: str, parameters: Sequence[Any]) -> Answer:
        if self._wire is None:
            return psycopg.Cursor(self.connection).execute(marked(sql), parameters)
        first, self._unsaid = self._unsaid, b""
        return self._wire.ask(sql, parameters, first)

    def _ask_for_each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._begin()
        with psycopg.Cursor(self.connection) as cursor:
            cursor.executemany(marked(sql), rows)

    def _begin(self) -> None:
        first, self._unsaid = self._unsaid, b""
        if first:
            self._say(first)

    def _say(self, statements: bytes) -> None:
        """What has no parameters and gives nothing; behind a proxy several at once, which cannot be prepared."""
        if self._wire is None:
            self.connection.execute(statements, prepare=False)
        else:
            self._wire.say(statements)

    # ---- transactions

    @contextmanager
    def block(self) -> Generator[None]:
        """The outermost block of a transaction or of a snapshot, which `begin` has begun."""
        try:
            try:
                yield
                self._commit()
            except BaseException:
                self._roll_back()
                raise
        finally:
            self.depth = 0
            self.known.clear()
            self.lock.release()
            if self.stale:
                self.close()

    def begin(self, writing: bool) -> None:
        """Begin, for `block` to end. If it raises, nothing was begun. The server mostly hears of it with the first
        statement.
        """
        self.lock.acquire()
        try:
            self.depth, self.writing, self.failed = 1, writing, False
            self.highest = (-1, "")
            self.last_words.clear()
            self.newsworthy = False
            if self.stale:
                raise self._refusal()
            self._unsaid = (_BEGIN_WRITING if writing else _BEGIN_READING) + self._settings
            try:
                if self._wire is None:
                    self._begin()
                else:
                    self._wire.check()
            except psycopg.Error as error:
                raise self._failure(error) from error
        except BaseException:
            self.depth = 0
            self._roll_back()
            self.lock.release()
            raise

    def _commit(self) -> None:
        for sql, parameters in self.last_words.values():
            self.run(sql, parameters)
        if self.newsworthy and (channel := self._channel()) is not None:
            self.fetch("SELECT pg_notify(?, '')", (channel,))
        if not self._unsaid:
            self.run("COMMIT")
        if self.newsworthy:
            self._on_news()

    def _roll_back(self) -> None:
        self._unsaid = b""
        self.named.clear()
        self.marks.clear()
        with suppress(psycopg.Error):
            if not self.lost and self.connection.info.transaction_status is not TransactionStatus.IDLE:
                self._say(b"ROLLBACK")
        if not self.lost and self.connection.info.transaction_status is not TransactionStatus.IDLE:
            self._close()

    # ---- the end

    @property
    def lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return self.stale or self.connection.closed

    @property
    def ended(self) -> bool:
        """Whether nobody will use it again."""
        return self.lost or not self.thread.is_alive()

    def _close(self) -> None:
        with suppress(psycopg.Error):
            self.connection.close()

    def _break_off(self) -> None:
        break_off(self.connection)


class Connections(Sessions[Session]):
    """The sessions of a database, one for each thread, opened when they are first needed."""

    def __init__(
        self,
        settings: Settings,
        check: Callable[[Connection], None],
        on_news: Callable[[], None],
        channel: Callable[[], str | None],
    ) -> None:
        super().__init__()
        self.settings = settings
        self._check = check
        self._on_news, self._channel = on_news, channel
        """What is called after news were written; and where a transaction says so itself, if nobody does it then."""

    @contextmanager
    def block(self, writing: bool) -> Generator[None]:
        """A transaction, or a snapshot; inside another block it is that one."""
        session = self._mine()
        if session is not None and session.depth:
            with session.inner_block(writing):
                yield
            return
        with self._begun(session, writing).block():
            yield

    def _begun(self, session: Session | None, writing: bool) -> Session:
        """A session whose transaction has begun. A connection that was lost while it rested is replaced."""
        if session is not None and not session.lost:
            try:
                session.begin(writing)
                return session
            except StoreUnavailable:
                if session.stale or not session.lost:
                    raise
        session = self._keep(self._open())
        session.begin(writing)
        return session

    def _open(self) -> Session:
        if self._closed:
            raise StoreError(f"{self.settings.where} is not open; a scheduler opens its store when it is entered")
        connection = connect(self.settings)
        try:
            self._check(connection)
            if is_direct(connection):
                connection.execute(_set(self.settings, "SESSION").encode(), prepare=False)
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error):
                raise store_error(error, self.settings.where) from error
            raise
        return Session(connection, self.settings, self._on_news, self._channel)


def connect(settings: Settings) -> Connection:
    """A connection without transactions of its own making."""
    try:
        connection: Connection = psycopg.Connection.connect(**settings.conninfo(), autocommit=True)
    except psycopg.Error as error:
        raise connect_error(error, settings.where) from error
    if settings.pooled or _is_proxied(connection, settings.where):
        connection.prepare_threshold = None
    connection.prepared_max = _STATEMENTS
    # A number of any size as one type, so that a statement is prepared once and not for each size.
    connection.adapters.register_dumper(int, Int8Dumper)
    return connection


def is_direct(connection: Connection) -> bool:
    """Whether nothing stands between, so that what is prepared or set is there for the next transaction."""
    return connection.prepare_threshold is not None


def _is_proxied(connection: Connection, where: str) -> bool:
    """Whether something stands between, for which nobody has said `pooled=True`; a proxy gives numbers of its own.

    If it pools transactions, a statement prepared on one connection of the server may be another's on the next: one
    that takes as many parameters would be executed instead.
    """
    try:
        row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    except psycopg.Error as error:
        connection.close()
        raise store_error(error, where) from error
    return row != (connection.info.backend_pid,)


def _set(settings: Settings, kind: str) -> str:
    # A plan that was made while the tables were small reads them whole, and is kept until they are analysed: the first
    # minutes of a new store would be slow ones. Hardly a query of ours has no index, and every join is one of few rows
    # with an index of many, each looked up once. Nor is any better for knowing its parameters, and a plan costs more
    # than most of what is planned: one for all, once a statement is prepared.
    milliseconds = round(settings.statement_timeout * 1000)
    wanted = {
        "search_path": quoted(settings.schema),
        "statement_timeout": milliseconds,
        "lock_timeout": min(milliseconds, _LOCK_TIMEOUT),
        "idle_in_transaction_session_timeout": milliseconds,
        "plan_cache_mode": "force_generic_plan",
        **dict.fromkeys(_DISCOURAGED, "off"),
    }
    return "; ".join(f"SET {kind} {name} TO {value}" for name, value in wanted.items())


@lru_cache(maxsize=1024)
def marked(sql: str) -> bytes:
    """A statement as psycopg takes it."""
    return sql.replace("%", "%%").replace("?", "%s").encode()


def break_off(connection: Connection) -> None:
    """Have the thread that waits on the connection return at once, and the server stop what it is doing."""
    with suppress(Exception):
        # Before libpq 17 there is but a way that holds the whole interpreter for as long as the server is silent: then
        # it is the statement's timeout that stops it.
        if capabilities.has_cancel_safe():
            request = connection.pgconn.cancel_conn()
            # The server is asked over a connection of its own, which may take a while: nobody waits for that.
            start_daemon("clepsydra-cancel", lambda: _ask_to_cancel(request))
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def _ask_to_cancel(request: PGcancelConn) -> None:
    wanted = {PollingStatus.READING: selectors.EVENT_READ, PollingStatus.WRITING: selectors.EVENT_WRITE}
    with suppress(psycopg.Error, OSError):
        request.start()
        while (status := PollingStatus(request.poll())) in wanted:
            with selectors.DefaultSelector() as selector:
                selector.register(request.socket, wanted[status])
                if not selector.select(_CANCEL_PATIENCE):
                    break
    request.finish()


# ----------------------------------------------------------------------------------------------------------- errors

_BEGUN_ANEW: Final = "another transaction stands in the way; nothing was changed, and it may be tried again"
_CONTENDED: Final = ("40001", "40P01", "55P03")
_UNAVAILABLE: Final = {
    "25006": "takes no writes: it is a standby, or was made read-only",
    "25P03": "has ended a transaction in which nothing was said for too long",
    "57014": "has cancelled a statement that took too long",
}
_UNAVAILABLE_CLASSES: Final = {
    "08": "has lost the connection",
    "53": "is short of connections, memory or disk",
    "57": "is shutting down, starting or taken over",
    "58": "reports an error of its system",
    "XX": "reports an internal error",
}
_REFUSED: Final = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "permission denied",
)


def store_error(error: Exception, where: str) -> StoreError:
    """What an error of PostgreSQL means to the store's callers."""
    state = getattr(error, "sqlstate", None)
    said = str(error).strip()
    if isinstance(error, errors.UniqueViolation) and error.diag.constraint_name == "executions_pkey":
        return StoreContended(f"{where}: {_BEGUN_ANEW} ({said})")
    if state is None:
        if isinstance(error, psycopg.OperationalError):
            return StoreUnavailable(f"{where}: the connection was lost ({said})")
        return StoreError(f"{where}: {said}")
    if state in _CONTENDED:
        return StoreContended(f"{where}: {_BEGUN_ANEW} ({said})")
    if state in _UNAVAILABLE:
        return StoreUnavailable(f"{where}: {_UNAVAILABLE[state]} ({said})")
    if state[:2] in _UNAVAILABLE_CLASSES:
        return StoreUnavailable(f"{where} {_UNAVAILABLE_CLASSES[state[:2]]} ({said})")
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreError(f"{where}: {said}; the role needs SELECT, INSERT, UPDATE and DELETE on all tables there")
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return StoreError(f"{where}: the tables are not there ({said}); they are made when a scheduler is entered")
    return StoreError(f"{where}: {said}")


def connect_error(error: psycopg.Error, where: str) -> StoreError:
    """What it means that no connection could be made."""
    said = str(error).strip()
    if any(text in said for text in _REFUSED):
        return StoreError(f"{where}: {said}; look at the user, the password and the database of the connection string")
    return StoreUnavailable(f"{where} cannot be reached ({said})")
