"""Where the workers' store is: a file, or a schema of a server. How a program is told, how it is read and asked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from clepsydra import SQLiteStorage
from clepsydra.storage.postgres import PostgresStorage
from clepsydra.storage.protocol import Storage

from ..postgres import say


class Place(Protocol):
    """A store that any number of processes use."""

    @property
    def arguments(self) -> list[str]:
        """What a program is told."""
        ...

    def storage(self) -> Storage:
        """The store, for this process."""
        ...

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, behind the store's back."""
        ...

    def is_free(self) -> bool:
        """Whether nobody holds what all others need, for as long as he likes."""
        ...


@frozen
class FilePlace:
    """A SQLite file."""

    path: Path

    @property
    def arguments(self) -> list[str]:
        """Its path."""
        return [str(self.path)]

    def storage(self) -> Storage:
        """One that waits for those who write."""
        return SQLiteStorage(self.path, busy_timeout=30)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """On a connection of its own."""
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def is_free(self) -> bool:
        """There is one lock, and nobody can take it from a process that lives."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True


@frozen
class ServerPlace:
    """A schema of a PostgreSQL server."""

    dsn: str
    schema: str

    @property
    def arguments(self) -> list[str]:
        """How to connect, and the schema."""
        return [self.dsn, "--schema", self.schema]

    def storage(self) -> Storage:
        """As a worker's."""
        return PostgresStorage(self.dsn, schema=self.schema)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """On a connection of its own."""
        return say(self.dsn, f"SET search_path TO {self.schema}; {sql}")

    def is_free(self) -> bool:
        """The server ends a transaction that rests."""
        return True
