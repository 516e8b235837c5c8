"""The PostgreSQL store on a connection of its caller's, blocking or awaited: what is done there is the caller's to
commit. What is the same on every store is checked in `test_sqlite_joining.py` in more ways.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import anyio
import psycopg
import pytest
from psycopg.rows import dict_row

from clepsydra.model.errors import DuplicateKey, InvalidArgument, StoreError, StoreUnavailable
from clepsydra.model.execution import Cause, Ending, Outcome, State
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage import postgres as postgres_storage
from clepsydra.storage import postgres_joining
from clepsydra.storage.joining import in_thread
from clepsydra.storage.postgres import PostgresStorage
from clepsydra.storage.postgres_joining import place_of
from clepsydra.storage.postgres_schema import quoted
from clepsydra.storage.protocol import AddResult, NewExecution

from ..postgres import Schemas, say

T0: Instant = 1_767_614_400 * SECOND
NODE = Node("node-1", "here", T0, 0)

Connection: TypeAlias = psycopg.Connection[Any]
Connect: TypeAlias = Callable[..., Connection]


@pytest.fixture
def store(postgres: Schemas) -> Iterator[PostgresStorage]:
    schema = postgres.take()
    storage = PostgresStorage(postgres.dsn, schema=schema)
    storage.open(NODE, T0)
    say(postgres.dsn, "DROP TABLE IF EXISTS public.notes; CREATE TABLE public.notes (text text UNIQUE)")
    yield storage
    storage.close()
    say(postgres.dsn, "DROP TABLE public.notes")
    postgres.give_back(schema)


@pytest.fixture
def connect(postgres: Schemas) -> Iterator[Connect]:
    opened: list[Connection] = []

    def make(**options: Any) -> Connection:
        opened.append(psycopg.connect(postgres.dsn, **options))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


def call(execution_id: str, **options: Any) -> NewExecution:
    return NewExecution(execution_id, Work("mail"), Cause.ENQUEUE, T0, **options)


def running(storage: PostgresStorage, execution_id: str) -> Outcome:
    """An execution that runs, and its success."""
    storage.add_executions([call(execution_id)], T0)
    storage.start(NODE.id, T0, items=[execution_id])
    return Outcome(execution_id, execution_id, NODE.id, Ending.SUCCEEDED, T0 + 1)


# ---- Adding


@pytest.mark.parametrize(
    "style", [{}, {"autocommit": True}, {"row_factory": dict_row}, {"prepare_threshold": 0}], ids=str
)
@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_it_is_there_if_and_only_if_the_caller_commits(
    store: PostgresStorage, postgres: Schemas, connect: Connect, style: dict[str, Any], ending: str
) -> None:
    connection = connect(**style)
    connection.execute("SET search_path TO public, pg_catalog")
    if connection.autocommit:
        connection.execute("BEGIN")
    connection.execute("INSERT INTO notes VALUES ('effect')")
    joined = store.on_connection(connection)

    results = joined.add_executions([call("a"), call("b", key="k")], T0)
    results = [*results, *joined.add_executions([call("c", key="k")], T0)]

    assert results == [AddResult("a", True), AddResult("b", True), AddResult("b", False)]
    assert store.get_executions(["a", "b"]) == {}
    connection.execute("INSERT INTO notes VALUES ('on the path')")  # which is the caller's again
    mark = joined.mark()
    assert not store.has_ended(mark)
    connection.execute(ending.encode())
    there = ending == "COMMIT"
    assert store.has_ended(mark)
    assert set(store.get_executions(["a", "b"])) == ({"a", "b"} if there else set())
    assert len(say(postgres.dsn, "SELECT * FROM public.notes")) == 2 * there


def test_a_number_that_the_server_does_not_know_has_ended(store: PostgresStorage) -> None:
    assert store.has_ended("999999999999")


@pytest.mark.parametrize("begun", [True, False])
def test_what_is_refused_leaves_the_callers_transaction_as_it_was(
    store: PostgresStorage, postgres: Schemas, connect: Connect, begun: bool
) -> None:
    store.add_executions([call("a", key="k")], T0)
    connection = connect()
    if begun:
        connection.execute("INSERT INTO notes VALUES ('effect')")

    with pytest.raises(DuplicateKey):
        store.on_connection(connection).add_executions([call("b"), call("c", key="k", on_conflict="raise")], T0)

    assert (connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS) == begun
    connection.commit()
    assert store.get_executions(["b", "c"]) == {}
    assert say(postgres.dsn, "SELECT * FROM public.notes") == [("effect",)] * begun


def test_a_connection_that_commits_by_itself_must_have_begun(store: PostgresStorage, connect: Connect) -> None:
    connection = connect(autocommit=True)

    with pytest.raises(InvalidArgument, match="begin one first"):
        store.on_connection(connection).add_executions([call("a")], T0)
    with connection.transaction():
        store.on_connection(connection).add_executions([call("a")], T0)

    assert set(store.get_executions(["a"])) == {"a"}


def test_a_key_needs_a_transaction_that_sees_what_others_commit(store: PostgresStorage, connect: Connect) -> None:
    connection = connect()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    joined = store.on_connection(connection)

    with pytest.raises(InvalidArgument, match="'repeatable read', which does not see the keys"):
        joined.add_executions([call("a", key="k")], T0)
    joined.add_executions([call("a")], T0)


def test_a_caller_who_keeps_a_key_does_not_keep_the_store(store: PostgresStorage, connect: Connect) -> None:
    """Its writes go down together: one that waits for the caller must not have the others wait for half a minute."""
    connection = connect()
    store.on_connection(connection).add_executions([call("a", key="k")], T0)

    with pytest.raises(StoreUnavailable, match="stands in the way"):
        store.add_executions([call("b", key="k")], T0)
    connection.commit()

    assert store.add_executions([call("b", key="k")], T0) == [AddResult("a", False)]


@pytest.mark.parametrize("said", [None, "50ms"])
def test_a_caller_does_not_wait_for_another_without_end(
    store: PostgresStorage, postgres: Schemas, connect: Connect, said: str | None
) -> None:
    store.on_connection(connect()).add_executions([call("a", key="k")], T0)
    patience = 3600.0 if said else 0.05
    impatient = PostgresStorage(postgres.dsn, schema=store.settings.schema, statement_timeout=patience)
    connection = connect()
    if said:
        connection.execute(f"SET lock_timeout = '{said}'".encode())

    joined = impatient.on_connection(connection)
    with pytest.raises(StoreUnavailable, match="stands in the way"):
        joined.add_executions([call("b", key="k")], T0)
    joined.add_executions([call("b")], T0)

    assert connection.execute("SHOW lock_timeout").fetchone() == (said or "0",)


# ---- What other nodes hear of it


@pytest.fixture
def heard(store: PostgresStorage, postgres: Schemas) -> Iterator[threading.Event]:
    """Set when another node on the schema gets a hint."""
    other = PostgresStorage(postgres.dsn, schema=store.settings.schema)
    other.open(Node("node-2", "there", T0, 0), T0)
    hint = threading.Event()
    stop = other.listen(hint.set)
    assert hint.wait(20), "it hears itself first"
    hint.clear()
    yield hint
    stop()
    other.close()


@pytest.mark.parametrize("here", ["a scheduler that speaks", "no scheduler"])
def test_other_nodes_hear_of_what_a_caller_has_committed(
    store: PostgresStorage, postgres: Schemas, connect: Connect, heard: threading.Event, here: str
) -> None:
    if here == "no scheduler":
        store = PostgresStorage(postgres.dsn, schema=store.settings.schema)
        stop = store.close
    else:
        ready = threading.Event()
        stop = store.listen(ready.set)
        assert ready.wait(20)
    connection = connect()
    joined = store.on_connection(connection)
    joined.add_executions([call("a")], T0)
    mark = joined.mark()
    heard.clear()

    connection.commit()
    if here != "no scheduler":
        assert store.has_ended(mark)  # which its chain asks, and then tells

    assert heard.wait(20)
    stop()


# ---- Finishing


@pytest.mark.parametrize("style", [{}, {"autocommit": True}, {"row_factory": dict_row}], ids=str)
@pytest.mark.parametrize("ending", ["commit", "roll_back"])
def test_effect_and_finish_commit_together_or_not_at_all(
    store: PostgresStorage, postgres: Schemas, connect: Connect, style: dict[str, Any], ending: str
) -> None:
    outcome = running(store, "a")
    connection = connect(**style)
    joined = store.on_connection(connection)
    joined.begin()
    connection.execute("INSERT INTO notes VALUES ('effect')")

    finished = joined.finish_running(outcome, T0 + 1)
    getattr(joined, ending)()

    done = ending == "commit"
    assert finished is not None
    assert say(postgres.dsn, "SELECT * FROM public.notes") == [("effect",)] * done
    assert store.get_executions(["a"])["a"].state is (State.SUCCEEDED if done else State.RUNNING)
    if done:  # what the pool reports afterwards is its own repeat
        assert store.finish([outcome], T0 + 2).applied == {"a"}


@pytest.mark.parametrize("how", ["commit", "rollback"])
@pytest.mark.parametrize("autocommit", [True, False])
def test_a_block_whose_transaction_was_ended_inside_is_refused(
    store: PostgresStorage, connect: Connect, how: str, autocommit: bool
) -> None:
    outcome = running(store, "a")
    connection = connect(autocommit=autocommit)
    joined = store.on_connection(connection)
    joined.begin()
    getattr(connection, how)()

    with pytest.raises(StoreError, match="inside the block"):
        joined.finish_running(outcome, T0 + 1)
    joined.roll_back()

    assert store.get_executions(["a"])["a"].state is State.RUNNING


def test_a_block_inside_a_block_of_psycopgs_is_refused(store: PostgresStorage, connect: Connect) -> None:
    connection = connect()

    with connection.transaction(), pytest.raises(InvalidArgument, match=r"use execution\.transaction\(\) alone"):
        store.on_connection(connection).begin()


def test_an_error_of_the_callers_own_constraints_stays_what_it_is(store: PostgresStorage, connect: Connect) -> None:
    connection = connect()
    joined = store.on_connection(connection)
    joined.begin()
    connection.execute(
        "CREATE TEMP TABLE lines (a int PRIMARY KEY, b int REFERENCES lines DEFERRABLE INITIALLY DEFERRED)"
    )
    connection.execute("INSERT INTO lines VALUES (1, 2)")

    with pytest.raises(psycopg.IntegrityError, match="foreign key"):
        joined.commit()
    joined.roll_back()


# ---- A connection whose methods are awaited


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # psycopg's runs on no other
async def test_an_awaited_connection_is_spoken_to_on_its_loop(store: PostgresStorage, postgres: Schemas) -> None:
    outcome = running(store, "a")
    async with await psycopg.AsyncConnection[Any].connect(postgres.dsn, row_factory=dict_row) as connection:
        joined = store.on_connection(connection)

        added = await in_thread(lambda: joined.add_executions([call("b")], T0))
        mark = await in_thread(joined.mark)
        assert added == [AddResult("b", True)]
        assert not await anyio.to_thread.run_sync(store.has_ended, mark)
        await connection.rollback()
        assert await anyio.to_thread.run_sync(store.has_ended, mark)

        await in_thread(joined.begin)
        await connection.execute("INSERT INTO notes VALUES ('effect')")
        finished = await in_thread(lambda: joined.finish_running(outcome, T0 + 1))
        await in_thread(joined.commit)

    assert finished is not None
    assert store.get_executions(["b"]) == {}
    assert store.get_executions(["a"])["a"].state is State.SUCCEEDED
    assert say(postgres.dsn, "SELECT * FROM public.notes") == [("effect",)]


# ---- Which connections will do


def test_a_connection_to_another_database_is_refused(store: PostgresStorage, postgres: Schemas) -> None:
    say(postgres.dsn, "CREATE DATABASE elsewhere")
    try:
        with (
            psycopg.connect(postgres.dsn, dbname="elsewhere") as connection,
            pytest.raises(InvalidArgument, match=r"is to the database 'elsewhere', .* keeps its work in schema"),
        ):
            store.on_connection(connection).add_executions([call("a")], T0)
    finally:
        say(postgres.dsn, "DROP DATABASE elsewhere")


def test_a_role_that_may_not_ask_which_server_it_is_is_taken_at_the_name_of_the_database(
    store: PostgresStorage, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_mark(fetch: Callable[[str], Any]) -> postgres_joining.Place:
        return place_of(fetch)[0], None

    monkeypatch.setattr(postgres_joining, "place_of", without_the_mark)

    assert store.on_connection(connect()).add_executions([call("a")], T0) == [AddResult("a", True)]


def test_a_server_that_does_not_say_which_it_is_is_an_error_of_the_store(
    store: PostgresStorage, postgres: Schemas, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(connection: Connection) -> Any:
        raise psycopg.OperationalError("it has gone away")

    monkeypatch.setattr(postgres_storage, "_place_of", ends)
    elsewhere = PostgresStorage(postgres.dsn, schema=store.settings.schema)

    with pytest.raises(StoreUnavailable, match="it has gone away"):
        elsewhere.on_connection(connect()).add_executions([call("a")], T0)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("awaited", [False, True])
async def test_a_schema_may_have_any_name(postgres: Schemas, awaited: bool) -> None:
    schema = 'odd%s? %% "{name}'
    store = PostgresStorage(postgres.dsn, schema=schema)
    try:
        store.open(NODE, T0)
        if awaited:
            async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
                await in_thread(lambda: store.on_connection(connection).add_executions([call("a")], T0))
        else:
            with psycopg.connect(postgres.dsn) as blocking:
                store.on_connection(blocking).add_executions([call("a")], T0)

        assert set(store.get_executions(["a"])) == {"a"}
    finally:
        store.close()
        say(postgres.dsn, f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")


def test_what_is_no_connection_of_psycopgs_is_refused(store: PostgresStorage) -> None:
    with pytest.raises(InvalidArgument, match=r"must be a psycopg\.Connection or AsyncConnection"):
        store.on_connection("dsn")


def test_a_schema_without_our_tables_is_told_apart(postgres: Schemas, connect: Connect) -> None:
    with pytest.raises(StoreError, match="no tables of clepsydra yet"):
        PostgresStorage(postgres.dsn, schema="nowhere").on_connection(connect()).add_executions([call("a")], T0)


def test_a_store_that_is_open_needs_no_further_connection(
    store: PostgresStorage, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool may have none left, and every one of its connections wait for one."""
    monkeypatch.delattr(postgres_storage, "connect")

    results = store.on_connection(connect()).add_executions([call("a")], T0)

    assert results == [AddResult("a", True)]


def test_a_store_that_is_not_open_here_can_be_added_to(
    store: PostgresStorage, postgres: Schemas, connect: Connect
) -> None:
    connection = connect()

    elsewhere = PostgresStorage(postgres.dsn, schema=store.settings.schema)
    elsewhere.on_connection(connection).add_executions([call("a")], T0)
    connection.commit()

    assert set(store.get_executions(["a"])) == {"a"}
