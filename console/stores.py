"""`--store URL`: which store a command is about, and an operator on it.

    sqlite:///jobs.db            a file in the current directory; sqlite:////var/lib/app/jobs.db an absolute path
    jobs.db                      the same file
    postgresql://host/database   and ?schema=name where it is not `clepsydra`

Without `--store` the environment variable CLEPSYDRA_STORE names it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from .. import InvalidArgument, MemoryStorage, Operator, SQLiteStorage, Storage, SystemClock, storage_at
from .arguments import AddCommand, add_command
from .errors import STORE, CommandError, UsageError
from .screen import Screen

VARIABLE: Final = "CLEPSYDRA_STORE"
_EXAMPLES: Final = "sqlite:///jobs.db, a path, or postgresql://user@host/database"


Does: TypeAlias = Callable[[argparse.Namespace, Operator, Screen], int]
"""What a command does with what was parsed; the exit code."""


class StoreFailed(CommandError):
    """The store that is named cannot be used."""

    code = STORE


def add_store_command(
    add: AddCommand,
    name: str,
    does: Does,
    summary: str,
    more: str = "",
) -> argparse.ArgumentParser:
    """Add a command that an operator carries out on a store."""

    def command(arguments: argparse.Namespace) -> int:
        screen = Screen(arguments, SystemClock().now())
        with operator_of(arguments) as operator:
            try:
                return does(arguments, operator, screen)
            except InvalidArgument as error:
                raise UsageError(_as_options(error)) from error

    parser = add_command(add, name, command, summary, more)
    add_store(parser)
    return parser


def add_store(parser: argparse.ArgumentParser) -> None:
    """Which store, and how its answer is shown."""
    parser.add_argument("--store", metavar="URL", help=f"{_EXAMPLES} (default: ${VARIABLE})")
    parser.add_argument("--json", action="store_true", help="one JSON document, instants in UTC")
    parser.add_argument("--tz", metavar="ZONE", default="UTC", help="the zone of times shown and given (default: UTC)")
    parser.add_argument("--no-pager", action="store_true", help="print long answers as they are, on a terminal too")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """For what destroys."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


@contextmanager
def operator_of(arguments: argparse.Namespace) -> Generator[Operator]:
    """An operator on the store that the command line names."""
    with operator_at(url_of(arguments), _named(arguments)) as operator:
        yield operator


@contextmanager
def operator_at(url: str, named: str) -> Generator[Operator]:
    """An operator on the store at a URL; `named` is what gave it."""
    storage = _storage(url, named)
    if isinstance(storage, SQLiteStorage) and not os.path.exists(storage.path):
        raise StoreFailed(f"there is no store at {storage.path}{_meant(url)}")
    with Operator(storage) as operator:
        yield operator


def storage_of(arguments: argparse.Namespace) -> Storage:
    """The store that the command line names, not opened."""
    return _storage(url_of(arguments), _named(arguments))


def _named(arguments: argparse.Namespace) -> str:
    return "--store" if arguments.store else VARIABLE


def _storage(url: str, named: str) -> Storage:
    try:
        storage = store_at(url)
    except InvalidArgument as error:
        raise UsageError(f"{named}{_wrong(error, url)}") from error
    if isinstance(storage, MemoryStorage):
        raise UsageError(f"{url!r} would be a new store that forgets; name one that others can see ({_EXAMPLES})")
    return storage


def url_of(arguments: argparse.Namespace) -> str:
    """What the command line, or else the environment, says."""
    url: str = arguments.store or os.environ.get(VARIABLE, "")
    if not url:
        raise UsageError(f"no store is named; give --store ({_EXAMPLES}), or set {VARIABLE}")
    return url


def store_at(url: str) -> Storage:
    """The store at a URL, or in a file of this path, not opened."""
    if "://" not in url and not url.startswith("memory:"):
        return SQLiteStorage(url)
    address, _, query = url.partition("?")
    said = parse_qsl(query, keep_blank_values=True)
    if address.startswith("postgres"):
        options = {name: value for name, value in said if name == "schema"}
        others = [pair for pair in said if pair[0] != "schema"]  # libpq's, who does not read a plus as a space
        address += f"?{urlencode(others, quote_via=quote)}" if others else ""
    else:
        options = dict(said)
    try:
        return storage_at(address, **options)
    except ImportError as error:
        raise CommandError(str(error)) from error


def _wrong(error: InvalidArgument, url: str) -> str:
    """What is wrong with a URL. One that may hold a password is not repeated."""
    if error.argument not in ("url", "dsn", "path"):
        return f": {error}"
    given = "" if "@" in url or url.startswith("postgres") else f"={url}"
    return f"{given}: {error.expected}"


def _as_options(error: InvalidArgument) -> str:
    if error.argument == "cursor":
        return f"--page {error.value!r} is no page of this list; give what an earlier one ended with, in the same order"
    return str(error)


def _meant(url: str) -> str:
    """What may have been meant by a file that is not there."""
    path = unquote(urlsplit(url).path)
    if url.startswith("sqlite:///") and not path.startswith("//") and os.path.exists(path):
        return f"; an absolute path has four slashes: sqlite:///{path}"
    return "; name the file of a scheduler's store, or make one: clepsydra migrate --create"
