"""The store in a PostgreSQL database, shared by the processes of any number of hosts.

It keeps to a schema of its own, which is made or migrated when it is opened. Several nodes write at the same time: what
they are about to change they lock, row by row, and what they look for they take where nobody else has it. There is no
leader and no lock file; a node is dead when its heartbeat stays unchanged for a whole lease. Here the database is
opened, checked and migrated; what is done in it stands in `postgres_tables.py`, the rules in `ledger.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from logging import getLogger
from typing import Final
from weakref import WeakSet

import psycopg
from attrs import evolve
from psycopg.conninfo import conninfo_to_dict

from ..model.errors import InvalidArgument, StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable
from ..model.instants import SECOND, Instant, to_micros
from ..model.strategies import Node
from .forks import watch_forks
from .joining import Joined
from .ledger import Ledger
from .postgres_connections import Connection, Connections, Session, Settings, break_off, connect, store_error
from .postgres_joining import JoinedPostgres, Place, Target, place_of
from .postgres_listener import Listener, channel_of
from .postgres_schema import VERSION, migration, quoted, scripts
from .postgres_tables import PostgresTables

log = getLogger(__name__)

_OLDEST: Final = 150000
_LONGEST_NAME: Final = 63
# The catalogue itself: what `to_regclass` has not found once, it does not find while others make it.
_FOUND: Final = """
SELECT relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %s AND relname IN ('schema_version', 'executions', 'jobs')"""


class PostgresStorage(PostgresTables, Ledger):
    """Jobs and executions in a PostgreSQL database. Nothing is touched before the scheduler is entered.

    `dsn` is a connection string or URL. `schema` is made if it is missing; several schedulers share the work of one
    schema, and know nothing of those in another. `connect_timeout` is how long a connection may take to come about,
    `statement_timeout` how long one statement may run, or a transaction rest, before the server ends it: `timedelta` or
    seconds. `pooled=True` is for a proxy that hands each transaction to another connection, such as PgBouncer's
    transaction pooling: nothing is prepared or listened for. `listen=False` does without the connection on which other
    nodes' news arrive, which then are seen at the next poll.
    """

    blocking = True
    shared = True

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "clepsydra",
        connect_timeout: timedelta | float = 10.0,
        statement_timeout: timedelta | float = 30.0,
        pooled: bool = False,
        listen: bool = True,
    ) -> None:
        super().__init__()
        self.settings = Settings(
            _checked_dsn(dsn),
            _checked_schema(schema),
            _checked_timeout(connect_timeout, "connect_timeout"),
            _checked_timeout(statement_timeout, "statement_timeout"),
            pooled,
        )
        self._listens = listen and not pooled
        self._listener: Listener | None = None
        self._channel = channel_of(schema) if listen else None
        self._connections = Connections(self.settings, self._check_version, self._tell, self._channel_of_visitor)
        self._found_place: Place | None = None
        self._target = Target(
            self.settings.where,
            schema,
            pooled,
            round(self.settings.statement_timeout * 1000),
            self._place,
            WeakSet(),
            self._damaged,
            self.quarantine,
            self._tell,
            lambda: self._channel if self._listener is None else None,
        )
        self._lifecycle = threading.Lock()
        self._preparing: Connection | None = None
        self._watches_forks = False

    def __repr__(self) -> str:
        return f"PostgresStorage({self.settings.where})"

    @staticmethod
    def migration(schema: str = "clepsydra", found: int = 0) -> str:
        """The SQL that makes the tables in a schema, or brings those of version `found` up to date.

        For those whose scheduler may not create tables: an administrator runs it, with psql, before the scheduler is
        entered.
        """
        return migration(_checked_schema(schema), found)

    # ---- lifecycle

    def open(self, node: Node, now: Instant) -> None:
        """Make or migrate the tables, and register the node. Opening what is open is no error."""
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
            with self.transaction():
                self.save_node(node)
        except BaseException:
            self._connections.close()
            raise
        self._node = evolve(node, alive=True)

    def close(self) -> None:
        """Forget the node, and let go of every connection. Idempotent; it can be opened again."""
        with self._alone():
            self._close()

    def _close(self) -> None:
        node, self._node = self._node, None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        if node is not None:
            self._unregister(node)
        self._connections.close()

    def _unregister(self, node: Node) -> None:
        try:
            with self.transaction():
                self.forget_nodes((node.id,))
        except StoreError as error:
            # The others see that its heartbeat stays as it is, and do it.
            log.warning("node %s could not be unregistered from %s: %s", node.id, self.settings.where, error)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Opening and closing do not mix, not even with one that hangs in a thread that was given up on."""
        if not self._lifecycle.acquire(timeout=self.settings.connect_timeout + self.settings.statement_timeout):
            raise StoreUnavailable(
                f"{self.settings.where} is being opened or closed by another thread, which does not come back"
            )
        try:
            yield
        finally:
            self._lifecycle.release()

    def interrupt(self) -> None:
        """Give up on the connections in use; the thread that hangs cannot commit what it has begun."""
        self._connections.discard()
        if (preparing := self._preparing) is not None:
            break_off(preparing)

    def transaction(self) -> AbstractContextManager[None]:
        """One writing transaction."""
        return self._connections.block(writing=True)

    def reading(self) -> AbstractContextManager[None]:
        """One snapshot."""
        return self._connections.block(writing=False)

    def on_connection(self, connection: object) -> Joined:
        """This store on a psycopg connection of the caller's to the same database; it need not be open here.

        With an `AsyncConnection` it is for a worker thread of the connection's event loop.
        """
        return JoinedPostgres(connection, self._target)

    def has_ended(self, mark: str) -> bool:
        """By the number of the transaction."""
        try:
            with self.reading():
                ended = bool(self._session().fetch("SELECT pg_xact_status(?::xid8) <> 'in progress'", (mark,))[0][0])
        except StoreError as error:
            if error.transient:
                raise
            return True  # the server knows no such transaction: it is not the one that it was then
        if ended:
            self._tell()
        return ended

    def _place(self) -> Place:
        """Which database the connection string leads to; asked once."""
        if self._found_place is None:
            with closing(connect(self.settings)) as connection:
                try:
                    self._found_place = _place_of(connection)
                except psycopg.Error as error:
                    raise store_error(error, self.settings.where) from error
        return self._found_place

    def listen(self, on_hint: Callable[[], object]) -> Callable[[], None]:
        """Hear of the other nodes, and tell them what this one writes. With `listen=False` or `pooled` in vain."""
        if not self._listens or self._node is None:
            return lambda: None
        listener = self._listener = Listener(self.settings, self._node.id, on_hint)
        return listener.stop

    def _tell(self) -> None:
        if (listener := self._listener) is not None:
            listener.tell()

    def _channel_of_visitor(self) -> str | None:
        """Where the transactions of one who is no node speak to the nodes: nobody here does it for them."""
        return self._channel if self._node is None else None

    def _session(self) -> Session:
        return self._connections.current()

    def _is_alive(self, node_id: str) -> bool | None:
        return True if self._node is not None and node_id == self._node.id else None

    def _forget_parent(self) -> None:
        """A child of `fork` has neither node nor connections of its parent; it may open the store for itself."""
        self._node = None
        self._listener = None
        self._lifecycle = threading.Lock()
        self._connections.after_fork()

    # ---- looking

    @contextmanager
    def looking(self) -> Generator[None]:
        """Read and change what is there, as no node: nothing is made, migrated or registered."""
        if self._node is not None:
            yield
            return
        self._connections.open()
        try:
            yield
        finally:
            self._connections.close()

    # ---- migrating

    def schema_versions(self) -> tuple[int, int]:
        """The schema's, 0 for none, and the one that this code works with. Nothing is made."""
        with closing(connect(self.settings)) as connection, self._interruptible(connection):
            return self._version(connection), VERSION

    def migrate(self) -> None:
        """Make the tables, or bring them up to date, without a scheduler."""
        with self._alone():
            self._prepare()

    # ---- opening

    def _prepare(self) -> None:
        """Bring the schema to the present version, without touching one that is not ours or newer."""
        with closing(connect(self.settings)) as connection, self._interruptible(connection):
            self._check_server(connection)
            # Not when a caller's transaction needs it: a pool whose connections all are callers' has none to ask on.
            self._found_place = _place_of(connection)
            if self._version(connection) < VERSION:
                with connection.transaction():
                    self._migrate(connection)

    @contextmanager
    def _interruptible(self, connection: Connection) -> Generator[None]:
        self._preparing = connection
        try:
            yield
        except psycopg.Error as error:
            raise store_error(error, self.settings.where) from error
        finally:
            self._preparing = None

    def _check_server(self, connection: Connection) -> None:
        if (version := connection.info.server_version) < _OLDEST:
            raise StoreError(f"{self.settings.where} is PostgreSQL {version // 10000}; this store needs 15 or later")
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            raise StoreError(
                f"{self.settings.where}: the database's encoding is {encoding}; this store needs UTF8, so that it can "
                "hold any text"
            )

    def _check_version(self, connection: Connection) -> None:
        """Of a schema that another process may have migrated since it was opened here, or that is only looked at."""
        if (version := self._version(connection)) < VERSION:
            raise StoreError(
                f"{self.settings.where} has schema version {version}, older than {VERSION}; "
                "it is brought up to date when a scheduler is entered on it, or by `clepsydra migrate`"
            )

    def _version(self, connection: Connection) -> int:
        """The schema's version; 0 where there is none of ours."""
        tables = {name for (name,) in connection.execute(_FOUND, (self.settings.schema,)).fetchall()}
        if "schema_version" not in tables:
            if tables:
                raise StoreCorrupt(
                    f"{self.settings.where} has tables of another program; name a schema of its own (schema=...)"
                )
            return 0
        versions = f"{quoted(self.settings.schema)}.schema_version"
        row = connection.execute(f"SELECT max(version) FROM {versions}".encode()).fetchone()
        version = int(row[0] or 0) if row else 0
        if version > VERSION:
            raise StoreTooNew(version, VERSION, self.settings.where)
        return version

    def _migrate(self, connection: Connection) -> None:
        """Take the missing steps, all or none. Of two who begin at once, the second finds them taken."""
        schema = self.settings.schema
        # Whatever is the default here: who has waited for the lock must see what was done under it.
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))", (schema,))
        found = self._version(connection)
        # Asked for, not created IF NOT EXISTS: whoever may use a schema may not always create one.
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None:
            connection.execute(f"CREATE SCHEMA {quoted(schema)}".encode())
        connection.execute(f"SET LOCAL search_path TO {quoted(schema)}".encode())
        for script in scripts(found):
            connection.execute(script.encode())


def _place_of(connection: Connection) -> Place:
    return place_of(lambda sql: connection.execute(sql.encode()).fetchall())


def _checked_dsn(dsn: object) -> str:
    expected = "must be a connection string of PostgreSQL, such as 'postgresql://user:password@host/database'"
    if not isinstance(dsn, str) or not dsn.strip():
        raise InvalidArgument("dsn", dsn, expected)
    # Neither the value nor what libpq says of it is repeated: both may hold a password.
    try:
        host = str(conninfo_to_dict(dsn).get("host") or "")
    except psycopg.Error:
        host = "@"
    if "@" in host:
        raise InvalidArgument("dsn", "...", f"{expected}; special characters in a password are percent-encoded")
    return dsn


def _checked_schema(schema: object) -> str:
    if (
        not isinstance(schema, str)
        or not schema.isprintable()
        or not 0 < len(schema.encode()) <= _LONGEST_NAME
        or schema.startswith("pg_")
    ):
        raise InvalidArgument(
            "schema", schema, f"must be a name of 1 to {_LONGEST_NAME} bytes that does not begin with 'pg_'"
        )
    return schema


def _checked_timeout(length: timedelta | float, argument: str) -> float:
    micros = to_micros(length, argument)
    if not SECOND // 1000 <= micros <= 3600 * SECOND:
        raise InvalidArgument(argument, length, "must be between a millisecond and an hour")
    return micros / SECOND
