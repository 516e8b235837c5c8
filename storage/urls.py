"""Stores by URL, for what is not code: a command line, an environment, a file.

`sqlite:///jobs.db` is a path from the working directory, `sqlite:////var/lib/app/jobs.db` an absolute one (SQLAlchemy's
rule); `postgresql://user@host/database` is libpq's; `memory:` forgets.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from ..model.errors import InvalidArgument
from .memory import MemoryStorage
from .protocol import Storage
from .sqlite import SQLiteStorage

_EXPECTED: Final = (
    "must be the URL of a store: 'sqlite:///jobs.db' (a path from here; with four slashes an absolute one), "
    "'postgresql://user@host/database' or 'memory:'"
)


def storage_at(url: str, **options: Any) -> Storage:
    """The storage that a URL names, not opened. `options` are those of its class, by their names.

    Raises `InvalidArgument` for a URL that names none and for options that the class does not have, `ImportError` for
    PostgreSQL without psycopg.
    """
    if not isinstance(url, str):
        raise InvalidArgument("url", url, _EXPECTED)
    scheme, colon, rest = url.partition(":")
    match scheme:
        case "memory" if colon and not rest.strip("/"):
            return _made(MemoryStorage, (), options)
        case "sqlite" if rest.startswith("///") and len(rest) > len("///"):
            return _made(SQLiteStorage, (unquote(rest.removeprefix("///")),), options)
        case "postgresql" | "postgres" if rest.startswith("//"):
            return _made(postgres_storage(), (url,), options)
        case _:
            # Not repeated when it may hold a password.
            raise InvalidArgument("url", "..." if "@" in url else url, _EXPECTED)


def postgres_storage() -> type[Storage]:
    """The class `PostgresStorage`. It needs psycopg, an extra: it is imported when it is asked for."""
    try:
        from .postgres import PostgresStorage
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise ImportError(
            "PostgresStorage needs psycopg: pip install 'clepsydra[postgres]', or psycopg[binary]>=3.2 by itself"
        ) from error
    return PostgresStorage


def _made(kind: Callable[..., Storage], place: tuple[str, ...], options: dict[str, Any]) -> Storage:
    known = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name, value in options.items():
        if name not in known:
            raise InvalidArgument(name, value, f"is no option of {kind.__name__}; known: {', '.join(known)}")
    return kind(*place, **options)
