"""Statements on a connection that is ours alone, in as few steps and journeys as libpq allows.

The driver's cursors are made for every use. Here parameters are texts and numbers, and a statement that is said a
second time is prepared. What begins a transaction travels with the first statement in it. Interrupts, results and
errors are the driver's own. Knows no tables and no rules of transactions.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import psycopg
from attrs import frozen
from psycopg import errors, generators
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from .rows import Row

_UNKNOWN: Final = 0
_BIGINT: Final = 20
"""Types as the server numbers them. It finds out for itself what a text is meant to be."""
_KEPT: Final = 256
"""How many prepared statements a connection keeps."""
_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


@frozen
class Said:
    """What a statement has given."""

    rows: list[Row]
    rowcount: int

    def fetchall(self) -> list[Row]:
        """The rows."""
        return self.rows


@frozen
class _Statement:
    sql: bytes
    types: tuple[int, ...]


class Wire:
    """Speaks on one connection."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection
        self._transformer = Transformer(connection)
        self._names: dict[_Statement, bytes | None] = {}
        """What was said before, and by which name it is prepared."""
        self._made = 0

    def check(self) -> None:
        """Raise if the connection was lost while it rested."""
        for _ in range(2):  # a server that goes says why before it does
            self._connection.pgconn.consume_input()

    def ask(self, sql: str, parameters: Sequence[Any], first: bytes = b"") -> Said:
        """The answer. `first` is a statement that travels before it."""
        values = [_as_text(value) for value in parameters]
        types = tuple([_BIGINT if isinstance(value, int) else _UNKNOWN for value in parameters])
        result = self._connection.wait(self._journey(_Statement(_numbered(sql), types), values, first))
        if result.status != ExecStatus.TUPLES_OK:
            return Said([], result.command_tuples or 0)
        self._transformer.set_pgresult(result)
        rows = self._transformer.load_rows(0, result.ntuples, tuple)
        return Said(rows, result.ntuples)

    def say(self, statement: bytes) -> None:
        """A statement without parameters, which is not prepared.

        A cursor of the driver's that rolls back would have the server forget all that is prepared.
        """

        def journey() -> Generator[Any, Any, PGresult]:
            self._connection.pgconn.send_query(statement)
            return _checked((yield from generators.execute(self._connection.pgconn)))

        self._connection.wait(journey())

    def _journey(
        self, statement: _Statement, values: list[bytes | None], first: bytes
    ) -> Generator[Any, Any, PGresult]:
        pgconn = self._connection.pgconn
        name = yield from self._name(pgconn, statement)
        if not first:
            _send(pgconn, name, statement, values)
            return _checked((yield from generators.execute(pgconn)))
        pgconn.enter_pipeline_mode()
        try:
            pgconn.send_query_params(first, None)
            _send(pgconn, name, statement, values)
            pgconn.pipeline_sync()
            begun = yield from generators.execute(pgconn)
            answer = yield from generators.fetch_many(pgconn)
            yield from generators.fetch_many(pgconn)  # of the end of the pipeline
        finally:
            with suppress(psycopg.Error):  # a connection that was lost, and says so by itself
                pgconn.exit_pipeline_mode()
        _checked(begun)
        return _checked(answer)

    def _name(self, pgconn: PGconn, statement: _Statement) -> Generator[Any, Any, bytes | None]:
        """The prepared statement; None the first time."""
        names = self._names
        if statement not in names:
            names[statement] = None
            if len(names) > _KEPT:
                yield from self._forget_oldest(pgconn)
            return None
        name = names.pop(statement)
        if name is None:
            self._made += 1
            name = b"clepsydra_%d" % self._made
            pgconn.send_prepare(name, statement.sql, statement.types)
            _checked((yield from generators.execute(pgconn)))
        names[statement] = name  # the last to be forgotten
        return name

    def _forget_oldest(self, pgconn: PGconn) -> Generator[Any, Any, None]:
        name = self._names.pop(next(iter(self._names)))
        if name is not None:
            pgconn.send_query(b"DEALLOCATE " + name)
            _checked((yield from generators.execute(pgconn)))


def _send(pgconn: PGconn, name: bytes | None, statement: _Statement, values: list[bytes | None]) -> None:
    if name is None:
        pgconn.send_query_params(statement.sql, values, statement.types)
    else:
        pgconn.send_query_prepared(name, values)


def _checked(results: list[PGresult]) -> PGresult:
    result = results[-1]
    if result.status not in _DONE:
        raise errors.error_from_result(result)
    return result


def _as_text(value: str | int | None) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, int):
        return b"%d" % value
    text = value.encode()
    if b"\0" in text:
        raise psycopg.DataError("PostgreSQL text cannot contain NUL")
    return text


@lru_cache(maxsize=1024)
def _numbered(sql: str) -> bytes:
    """A statement as the server takes it: its parameters are numbered."""
    head, *others = sql.split("?")
    return (head + "".join(f"${number}{text}" for number, text in enumerate(others, 1))).encode()
