"""The SQLite store on a connection of its caller's: what is done there is the caller's to commit."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from clepsydra.model.errors import DuplicateKey, InvalidArgument, StoreError, StoreUnavailable
from clepsydra.model.execution import Cause, Ending, Outcome, State
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage.joining import Joined, joining
from clepsydra.storage.memory import MemoryStorage
from clepsydra.storage.protocol import AddResult, NewExecution
from clepsydra.storage.sqlite import SQLiteStorage

T0: Instant = 1_767_614_400 * SECOND
NODE = Node("node-1", "here", T0, 0)

Connect: TypeAlias = Callable[..., sqlite3.Connection]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStorage]:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE notes (text UNIQUE)")
    storage = SQLiteStorage(path, synchronous="NORMAL", busy_timeout=0.05, with_app_tables=True)
    storage.open(NODE, T0)
    yield storage
    storage.close()


@pytest.fixture
def connect(path: Path) -> Iterator[Connect]:
    opened: list[sqlite3.Connection] = []

    def make(**options: Any) -> sqlite3.Connection:
        opened.append(sqlite3.connect(path, timeout=0.05, **options))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


class OddCursor(sqlite3.Cursor):
    """Its rows are of no use to us."""

    def fetchall(self) -> list[Any]:
        return ["odd"]


class OddConnection(sqlite3.Connection):
    """Its cursors are odd, and so is what they give."""

    def cursor(self, factory: Any = OddCursor) -> Any:
        return super().cursor(factory)


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


STYLES: list[dict[str, Any]] = [
    {},
    {"isolation_level": "IMMEDIATE"},
    {"isolation_level": None},
    {"factory": OddConnection},
    *([{"autocommit": True}, {"autocommit": False}] if sys.version_info >= (3, 12) else []),
]


def call(execution_id: str, **options: Any) -> NewExecution:
    return NewExecution(execution_id, Work("mail"), Cause.ENQUEUE, T0, **options)


def note(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("INSERT INTO notes VALUES (?)", (text,))


def notes(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes")]


def begin(connection: sqlite3.Connection) -> None:
    """As somebody does who knows this style of connection."""
    if not connection.in_transaction:
        connection.execute("BEGIN")


def commit(connection: sqlite3.Connection) -> None:
    if getattr(connection, "autocommit", None) is True:
        connection.execute("COMMIT")  # its commit() does nothing
    else:
        connection.commit()


def running(storage: SQLiteStorage, execution_id: str) -> Outcome:
    """An execution that runs, and its success."""
    storage.add_executions([call(execution_id)], T0)
    storage.start(NODE.id, T0, items=[execution_id])
    return Outcome(execution_id, execution_id, NODE.id, Ending.SUCCEEDED, T0 + 1)


# ---- Adding


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_it_is_there_if_and_only_if_the_caller_commits(
    store: SQLiteStorage, connect: Connect, path: Path, style: dict[str, Any], ending: str
) -> None:
    connection = connect(**style)
    connection.row_factory, connection.text_factory = as_dict, bytes
    begin(connection)
    note(connection, "effect")

    results = store.on_connection(connection).add_executions([call("a"), call("b")], T0)

    assert results == [AddResult("a", True), AddResult("b", True)]
    assert store.get_executions(["a", "b"]) == {}
    assert (connection.row_factory, connection.text_factory) == (as_dict, bytes)
    if ending == "commit":
        commit(connection)
    else:
        connection.execute("ROLLBACK")
    there = ending == "commit"
    assert set(store.get_executions(["a", "b"])) == ({"a", "b"} if there else set())
    assert notes(path) == (["effect"] if there else [])


def test_it_begins_a_transaction_as_a_statement_of_the_callers_would(store: SQLiteStorage, connect: Connect) -> None:
    connection = connect()

    store.on_connection(connection).add_executions([call("a")], T0)

    assert connection.in_transaction
    connection.rollback()
    assert store.get_executions(["a"]) == {}


@pytest.mark.parametrize(
    "style", [{"isolation_level": None}, *([{"autocommit": True}] if sys.version_info >= (3, 12) else [])], ids=str
)
def test_a_connection_that_commits_by_itself_must_have_begun(
    store: SQLiteStorage, connect: Connect, style: dict[str, Any]
) -> None:
    connection = connect(**style)

    with pytest.raises(InvalidArgument, match="begin one first"):
        store.on_connection(connection).add_executions([call("a")], T0)

    assert store.get_executions(["a"]) == {}


@pytest.mark.parametrize("begun", [True, False])
def test_what_is_refused_leaves_the_callers_transaction_as_it_was(
    store: SQLiteStorage, connect: Connect, path: Path, begun: bool
) -> None:
    store.add_executions([call("a", key="k")], T0)
    connection = connect()
    if begun:
        note(connection, "effect")

    with pytest.raises(DuplicateKey):
        store.on_connection(connection).add_executions([call("b"), call("c", key="k", on_conflict="raise")], T0)

    assert connection.in_transaction == begun
    connection.commit()
    assert store.get_executions(["b", "c"]) == {}
    assert notes(path) == ["effect"] * begun


def test_a_key_is_unique_across_the_callers_transaction(store: SQLiteStorage, connect: Connect) -> None:
    connection = connect()
    store.on_connection(connection).add_executions([call("a", key="k")], T0)

    with pytest.raises(StoreUnavailable, match="locked"):
        store.add_executions([call("b", key="k")], T0)
    connection.commit()

    assert store.add_executions([call("b", key="k")], T0) == [AddResult("a", False)]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_the_store_knows_when_the_callers_transaction_has_ended(
    store: SQLiteStorage, connect: Connect, ending: str
) -> None:
    connection = connect()
    joined = store.on_connection(connection)
    joined.add_executions([call("a")], T0)
    mark = joined.mark()

    assert not store.has_ended(mark)
    getattr(connection, ending)()
    assert store.has_ended(mark)
    store.add_executions([call("b")], T0)  # asking has left nothing behind


def test_a_transaction_that_has_read_before_others_wrote_is_told_to_begin_anew(
    store: SQLiteStorage, connect: Connect
) -> None:
    connection = connect(isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM notes").fetchall()
    store.add_executions([call("a")], T0)

    with pytest.raises(StoreError, match="begin anew, with BEGIN IMMEDIATE") as caught:
        store.on_connection(connection).add_executions([call("b")], T0)

    assert caught.value.transient


def test_a_row_that_cannot_be_understood_is_told_to_the_store(
    store: SQLiteStorage, connect: Connect, path: Path
) -> None:
    store.add_executions([call("a", key="k")], T0)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE executions SET cause = 'nonsense'")
    connection = connect()

    store.on_connection(connection).add_executions([call("b", key="k")], T0)

    connection.rollback()
    assert [row.row_id for row in store.take_quarantined()] == ["a"]


# ---- Finishing


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("ending", ["commit", "roll_back"])
def test_effect_and_finish_commit_together_or_not_at_all(
    store: SQLiteStorage, connect: Connect, path: Path, style: dict[str, Any], ending: str
) -> None:
    outcome = running(store, "a")
    connection = connect(**style)
    joined: Joined = store.on_connection(connection)
    joined.begin()
    note(connection, "effect")

    finished = joined.finish_running(outcome, T0 + 1)
    getattr(joined, ending)()

    done = ending == "commit"
    assert finished is not None
    assert finished.applied == {"a"}
    assert notes(path) == (["effect"] if done else [])
    assert store.get_executions(["a"])["a"].state is (State.SUCCEEDED if done else State.RUNNING)
    assert store.has_ended(joined.mark())
    if done:  # what the pool reports afterwards is its own repeat
        assert store.finish([outcome], T0 + 2).applied == {"a"}


def test_what_was_begun_before_the_block_is_committed_with_it(
    store: SQLiteStorage, connect: Connect, path: Path
) -> None:
    connection = connect()
    note(connection, "before")
    joined = store.on_connection(connection)
    joined.begin()
    note(connection, "inside")

    joined.commit()

    assert notes(path) == ["before", "inside"]


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_a_block_whose_transaction_was_ended_inside_is_refused(
    store: SQLiteStorage, connect: Connect, how: str
) -> None:
    outcome = running(store, "a")
    connection = connect()
    joined = store.on_connection(connection)
    joined.begin()
    note(connection, "effect")
    getattr(connection, how)()

    with pytest.raises(StoreError, match="inside the block"):
        joined.finish_running(outcome, T0 + 1)
    connection.execute("INSERT INTO notes VALUES ('as if nothing were')")
    with pytest.raises(StoreError, match="inside the block"):
        joined.commit()
    joined.roll_back()

    assert store.get_executions(["a"])["a"].state is State.RUNNING


def test_an_error_of_the_callers_own_constraints_stays_what_it_is(store: SQLiteStorage, connect: Connect) -> None:
    connection = connect()
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("CREATE TABLE lines (note REFERENCES notes (text) DEFERRABLE INITIALLY DEFERRED)")
    joined = store.on_connection(connection)
    joined.begin()
    connection.execute("INSERT INTO lines VALUES ('nothing')")

    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        joined.commit()
    joined.roll_back()


# ---- Which connections will do


def elsewhere(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path.with_name("app.db"))


def in_memory(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


def no_connection(path: Path) -> Path:
    return path


def hiding(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TEMP TABLE executions (id)")
    return connection


def attached(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path.with_name("app.db"))
    connection.execute("ATTACH ? AS jobs", (str(path),))
    return connection


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (elsewhere, r"is to '.*app\.db', .* keeps its work in '.*jobs\.db'"),
        (in_memory, "is to a database without a file"),
        (attached, r"is to '.*app\.db'"),
        (hiding, "a temporary table 'executions' that hides the store's"),
        (no_connection, r"must be a sqlite3\.Connection to .*jobs\.db"),
    ],
)
def test_a_connection_that_leads_elsewhere_is_refused(
    store: SQLiteStorage, path: Path, make: Callable[[Path], Any], why: str
) -> None:
    connection = make(path)

    with pytest.raises(InvalidArgument, match=why):
        store.on_connection(connection)

    if isinstance(connection, sqlite3.Connection):
        connection.close()


def test_a_link_to_the_file_leads_there(store: SQLiteStorage, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)

    with closing(sqlite3.connect(link)) as connection, connection:
        store.on_connection(connection).add_executions([call("a")], T0)

    assert set(store.get_executions(["a"])) == {"a"}


def test_a_store_that_is_not_open_here_can_be_added_to(store: SQLiteStorage, path: Path, connect: Connect) -> None:
    connection = connect()

    SQLiteStorage(path).on_connection(connection).add_executions([call("a")], T0)
    connection.commit()

    assert set(store.get_executions(["a"])) == {"a"}


def test_a_file_without_our_tables_is_told_apart(path: Path, connect: Connect) -> None:
    connection = connect()
    with pytest.raises(StoreError, match="no tables of clepsydra yet"):
        SQLiteStorage(path).on_connection(connection)

    connection.execute("CREATE TABLE notes (text)")
    with pytest.raises(StoreError, match="no tables of clepsydra yet"):
        SQLiteStorage(path, with_app_tables=True).on_connection(connection)


def test_the_errors_of_the_connection_name_the_file(store: SQLiteStorage, connect: Connect) -> None:
    connection = connect()
    connection.close()

    with pytest.raises(StoreError, match=r"jobs\.db: Cannot operate on a closed database"):
        store.on_connection(connection)


def test_a_store_without_transactions_names_those_that_have_them() -> None:
    with pytest.raises(StoreError, match=r"MemoryStorage cannot .* SQLiteStorage\(path\).* PostgresStorage\(dsn\)"):
        joining(MemoryStorage())
