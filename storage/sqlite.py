"""The embedded default store: one SQLite file, safely shared by the processes of one host.

The file is in WAL mode: one writer at a time, readers beside it that never wait. Every transaction that may write
begins with the write lock (`BEGIN IMMEDIATE`), so nothing that it has read can change under it. Beside `jobs.db` stand
SQLite's own `jobs.db-wal` and `jobs.db-shm`, and `jobs.db-nodes/` with a lock file for each scheduler at work
(`sqlite_locks.py`) and a named pipe that wakes it (`sqlite_bells.py`). All of them belong on a local disk. Here the
file is opened, checked and migrated; what is done in it stands in `sqlite_tables.py`, the rules in `ledger.py`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import timedelta
from logging import getLogger
from typing import Any, Final, Literal

from attrs import evolve

from ..model.errors import InvalidArgument, StoreError, StoreUnavailable
from ..model.instants import SECOND, Instant, to_micros
from ..model.strategies import Node
from .forks import watch_forks
from .joining import Joined
from .ledger import Ledger
from .sqlite_bells import Bells
from .sqlite_connections import Connections, Session, connect, store_error, write_access
from .sqlite_joining import JoinedSQLite
from .sqlite_locks import NodeLocks
from .sqlite_schema import APPLICATION_ID, STEPS, VERSION, marks, statements, version_of
from .sqlite_tables import SQLiteTables

log = getLogger(__name__)

_OLDEST: Final = (3, 35, 0)
_PAUSE: Final = 0.01


class SQLiteStorage(SQLiteTables, Ledger):
    """Jobs and executions in a SQLite file. Nothing is touched before the scheduler that it is given to is entered.

    `synchronous="FULL"` syncs the disk at every commit, so that what was acknowledged survives a power cut; with
    "NORMAL" a power cut may undo the last moments (a crash of the process undoes nothing), and commits cost a tenth.
    `busy_timeout` is how long a transaction waits for another process's: a `timedelta` or seconds.
    `with_app_tables=True` is for a file in which your app has tables of its own, and perhaps had them first.
    """

    blocking = True
    shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: timedelta | float = 5.0,
        with_app_tables: bool = False,
    ) -> None:
        super().__init__()
        self.path = _checked_path(path)
        self._with_app_tables = with_app_tables
        if synchronous not in ("FULL", "NORMAL"):
            raise InvalidArgument("synchronous", synchronous, "must be 'FULL' or 'NORMAL'")
        self._busy_timeout = _checked_timeout(busy_timeout)
        self._locks = NodeLocks(f"{self.path}-nodes")
        self._bells = Bells(f"{self.path}-nodes")
        self._connections = Connections(
            self.path, synchronous, self._busy_timeout, self._check_version, self._bells.ring
        )
        self._file: os.stat_result | None = None
        self._lifecycle = threading.Lock()
        self._preparing: sqlite3.Connection | None = None
        self._watches_forks = False

    def __repr__(self) -> str:
        return f"SQLiteStorage({self.path!r})"

    # ---- lifecycle

    def open(self, node: Node, now: Instant) -> None:
        """Make or migrate the file, take the node's lock and register it. Opening what is open is no error."""
        with self._alone():
            if self._node is None or self._node.id != node.id:
                self._close()
                self._open(node)

    def _open(self, node: Node) -> None:
        if not self._watches_forks:
            self._watches_forks = True
            watch_forks(self._forget_parent)
        self._prepare()
        self._damaged.clear()
        self._connections.open()
        try:
            self._locks.hold(node.id)
            with self.transaction():
                self.save_node(node)
                known = {known.id for known in self.list_nodes()}
        except BaseException:
            self._locks.release()
            self._connections.close()
            raise
        self._locks.sweep(known)
        self._bells.sweep(known)
        self._node = evolve(node, alive=True)

    def close(self) -> None:
        """Forget the node, let go of its lock and of every connection. Idempotent; it can be opened again."""
        with self._alone():
            self._close()

    def _close(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            self._unregister(node)
        self._connections.close()
        self._locks.release()

    def _unregister(self, node: Node) -> None:
        try:
            with self.transaction():
                self.forget_nodes((node.id,))
        except StoreError as error:
            # The others find its lock free, and do it.
            log.warning("node %s could not be unregistered from %s: %s", node.id, self.path, error)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Opening and closing do not mix, not even with one that hangs in a thread that was given up on."""
        if not self._lifecycle.acquire(timeout=self._busy_timeout):
            raise StoreUnavailable(f"{self.path} is being opened or closed by another thread, which does not come back")
        try:
            yield
        finally:
            self._lifecycle.release()

    def interrupt(self) -> None:
        """Give up on the connections in use; the thread that hangs cannot commit what it has begun."""
        self._connections.discard()
        if (preparing := self._preparing) is not None:
            with suppress(sqlite3.Error):
                preparing.interrupt()

    def transaction(self) -> AbstractContextManager[None]:
        """One writing transaction."""
        return self._connections.block(writing=True)

    def reading(self) -> AbstractContextManager[None]:
        """One snapshot."""
        return self._connections.block(writing=False)

    def on_connection(self, connection: object) -> Joined:
        """This store on a `sqlite3.Connection` of the caller's to the same file; the store need not be open here."""
        return JoinedSQLite(connection, self.path, self._with_app_tables, self._damaged, self.quarantine)

    def has_ended(self, mark: str) -> bool:
        """A file has one writer: when nobody writes, whoever did has ended."""
        if ended := self._connections.can_write():
            self._bells.ring()
        return ended

    def listen(self, on_hint: Callable[[], object]) -> Callable[[], None]:
        """Hear the other processes, where there are named pipes."""
        return (lambda: None) if self._node is None else self._bells.listen(self._node.id, on_hint)

    def list_nodes(self) -> list[Node]:
        """All nodes; and that the file and our lock are still in their places."""
        self._check_in_place()
        self._locks.keep()
        return super().list_nodes()

    def _session(self) -> Session:
        return self._connections.current()

    def _is_alive(self, node_id: str) -> bool | None:
        return self._locks.is_alive(node_id)

    # ---- looking

    @contextmanager
    def looking(self) -> Generator[None]:
        """Read and change what is there, as no node: nothing is made, migrated or registered."""
        if self._node is not None:
            yield
            return
        if not os.path.exists(self.path):
            raise StoreError(f"{self.path} cannot be read: there is no such file")
        if os.path.isdir(self.path):
            raise StoreError(f"{self.path} is a directory; name a file in it")
        self._connections.open()
        try:
            yield
        finally:
            self._connections.close()

    # ---- migrating

    def schema_versions(self) -> tuple[int, int]:
        """The file's, 0 for none, and the one that this code works with. Nothing is made."""
        if not os.path.exists(self.path):
            return 0, VERSION
        with closing(connect(self.path, self._busy_timeout)) as connection, self._interruptible(connection):
            return self._version(connection), VERSION

    def migrate(self) -> None:
        """Make the file, or bring it up to date, without a scheduler."""
        with self._alone():
            self._prepare()

    # ---- opening

    def _prepare(self) -> None:
        """Bring the file to the present schema, without touching one that is not ours or newer."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreError(f"SQLite is {sqlite3.sqlite_version} here; this store needs 3.35 or later")
        if (why := _unusable(self.path)) is not None:
            raise StoreError(why)
        with (
            closing(connect(self.path, self._busy_timeout, create=True)) as connection,
            self._interruptible(connection),
        ):
            connection.execute("SELECT json_valid('[]')")
            if self._version(connection) < VERSION:
                self._switch_to_wal(connection)
                self._migrate(connection)
            elif _pragma(connection, "journal_mode") != "wal":
                self._switch_to_wal(connection)
            self._file = os.stat(self.path)

    @contextmanager
    def _interruptible(self, connection: sqlite3.Connection) -> Generator[None]:
        self._preparing = connection
        try:
            yield
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error
        finally:
            self._preparing = None

    def _check_version(self, connection: sqlite3.Connection) -> None:
        """Of a file that another process may have migrated since it was opened here, or that is only looked at."""
        if (version := self._version(connection)) < VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}, older than {VERSION}; "
                "it is brought up to date when a scheduler is entered on it, or by `clepsydra migrate`"
            )

    def _version(self, connection: sqlite3.Connection) -> int:
        """The file's schema version; 0 for one that is empty."""

        def ask(sql: str) -> Sequence[Any]:
            row: Sequence[Any] = connection.execute(sql).fetchone()
            return row

        return version_of(ask, self.path, VERSION, with_app_tables=self._with_app_tables)

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """WAL is a property of the file. To change to it needs the file alone, and SQLite does not wait for that."""
        for attempt in range(1 + int(self._busy_timeout / _PAUSE)):
            if attempt:
                time.sleep(_PAUSE)
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                continue
            if mode == "wal":
                return
            raise StoreError(
                f"{self.path} cannot be used in WAL mode (it stays {mode!r}); put it on a local disk, not on a "
                "network file system"
            )
        raise StoreUnavailable(f"{self.path} is used by a program that does not share it; stop that, or wait for it")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Take the missing steps, all or none. Of two who begin at once, the second finds them taken."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = self._version(connection)
            for step in STEPS[found:]:
                for statement in statements(step):
                    connection.execute(statement)
            beside_an_app = bool(found or self._with_app_tables)
            if _pragma(connection, "application_id") == APPLICATION_ID:
                beside_an_app = False
            for statement in marks(VERSION, with_app_tables=beside_an_app):
                connection.execute(statement)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _check_in_place(self) -> None:
        """A file that was moved away under us would take in writes that nobody ever reads again."""
        try:
            replaced = self._file is not None and not os.path.samestat(os.stat(self.path), self._file)
        except FileNotFoundError:
            raise StoreUnavailable(f"{self.path} was moved or deleted while it was open; put it back") from None
        if replaced:
            raise StoreError(
                f"{self.path} was replaced while it was open; stop the scheduler, put the right file there and remove "
                f"{self.path}-wal and {self.path}-shm of the old one, then start again"
            )

    # ---- forks

    def _forget_parent(self) -> None:
        """A child of `fork` has neither node nor connections of its parent; it may open the store for itself."""
        self._node = None
        self._lifecycle = threading.Lock()
        self._locks.after_fork()
        self._bells.after_fork()
        self._connections.after_fork()


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _checked_path(path: object) -> str:
    expected = "must be the path of a file, such as 'jobs.db'"
    try:
        text = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument("path", path, expected) from None
    if not text or "\0" in text:
        raise InvalidArgument("path", path, expected)
    if ":memory:" in text or text.startswith("file:"):
        raise InvalidArgument("path", path, f"{expected}; for a store that ends with the process use MemoryStorage()")
    # Real, so that the lock files of those who come by different links are the same.
    return os.path.realpath(text)


def _checked_timeout(length: timedelta | float) -> float:
    micros = to_micros(length, "busy_timeout")
    if not 0 <= micros <= 3600 * SECOND:
        raise InvalidArgument("busy_timeout", length, "must be between 0 and an hour")
    return micros / SECOND


def _unusable(path: str) -> str | None:
    """Why this path cannot be a store, as far as the file system tells."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return f"{path} cannot be made: there is no directory {directory}; create it first"
    if os.path.isdir(path):
        return f"{path} is a directory; name a file in it"
    for place in (path, directory):
        if os.path.exists(place) and not os.access(place, os.R_OK | os.W_OK):
            return f"{path} cannot be used: {place} is read-only for this process; {write_access(path)}"
    return None
