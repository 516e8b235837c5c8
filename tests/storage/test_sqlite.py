"""What is the SQLite store's own: its file, its connections, and what befalls them.

What every store promises is checked by the conformance suite; rows and indexes have `test_sqlite_tables.py`, several
processes `test_sqlite_processes.py`.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from clepsydra.model.errors import InvalidArgument, StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable
from clepsydra.model.execution import Cause, Execution
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage import sqlite, sqlite_schema
from clepsydra.storage.protocol import NewExecution
from clepsydra.storage.sqlite import SQLiteStorage

T0: Instant = 1_767_614_400 * SECOND
NODE = Node("node-1", "here", T0, 0)
PATIENCE = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStorage]:
    storage = SQLiteStorage(path, synchronous="NORMAL")
    storage.open(NODE, T0)
    yield storage
    storage.close()


def enqueue(storage: SQLiteStorage, *ids: str, args: str = "{}") -> None:
    storage.add_executions([NewExecution(one, Work("mail", args), Cause.ENQUEUE, T0) for one in ids], T0)


def query(path: Path, sql: str) -> Any:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


# ---- Arguments


def test_nothing_is_touched_before_the_store_is_opened(path: Path) -> None:
    storage = SQLiteStorage(path)
    storage.close()

    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", [":memory:", "file::memory:?cache=shared", "file:jobs.db"])
def test_a_database_in_memory_is_refused_and_the_memory_store_named(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"MemoryStorage\(\)"):
        SQLiteStorage(name)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: SQLiteStorage(""), "path"),
        (lambda: SQLiteStorage("a\0b"), "path"),
        (lambda: SQLiteStorage(cast(Any, 7)), "path"),
        (lambda: SQLiteStorage("a", synchronous=cast(Any, "OFF")), "synchronous"),
        (lambda: SQLiteStorage("a", busy_timeout=-1), "busy_timeout"),
        (lambda: SQLiteStorage("a", busy_timeout=float("nan")), "busy_timeout"),
        (lambda: SQLiteStorage("a", busy_timeout=timedelta(days=1)), "busy_timeout"),
    ],
)
def test_arguments_are_checked_when_the_store_is_made(make: Callable[[], SQLiteStorage], argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()

    assert caught.value.argument == argument


@pytest.mark.parametrize("name", ["job's %20 #1?.db", "jöbs.db", "a;b.db"])
def test_any_name_of_a_file_will_do(tmp_path: Path, name: str) -> None:
    storage = SQLiteStorage(tmp_path / name)
    storage.open(NODE, T0)
    enqueue(storage, "x")
    storage.close()

    assert query(tmp_path / name, "SELECT id FROM executions") == [("x",)]


# ---- Opening and closing


def test_the_file_is_in_wal_mode_and_says_whose_it_is(store: SQLiteStorage, path: Path) -> None:
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "PRAGMA application_id") == [(sqlite_schema.APPLICATION_ID,)]
    assert query(path, "PRAGMA user_version") == [(sqlite_schema.VERSION,)]


def test_a_store_can_be_closed_and_opened_again(store: SQLiteStorage) -> None:
    enqueue(store, "x")

    store.close()
    store.close()
    store.open(NODE, T0)
    store.open(NODE, T0)

    assert list(store.get_executions(["x"])) == ["x"]
    assert [node.id for node in store.nodes()] == [NODE.id]


def test_a_store_that_is_opened_as_another_node_is_that_node_only(store: SQLiteStorage) -> None:
    store.open(Node("node-2", "", T0, 0), T0)

    assert [(node.id, node.alive) for node in store.nodes()] == [("node-2", True)]


def test_a_closed_store_leaves_one_file(store: SQLiteStorage, path: Path) -> None:
    enqueue(store, "x")

    store.close()

    assert [file.name for file in path.parent.iterdir() if file.is_file()] == [path.name]
    assert list(Path(f"{path}-nodes").iterdir()) == []


def test_a_store_that_is_not_open_says_so(path: Path) -> None:
    storage = SQLiteStorage(path)

    with pytest.raises(StoreError, match="is not open"):
        storage.count_jobs()


@pytest.mark.parametrize("_round", range(10))  # what went wrong here went wrong in one of twenty
def test_many_who_open_a_new_file_at_once_make_one_schema(path: Path, _round: int) -> None:
    stores = [SQLiteStorage(path) for _ in range(8)]
    ready = threading.Barrier(len(stores))

    def open_one(number: int) -> None:
        ready.wait()
        stores[number].open(Node(f"node-{number}", "", T0, 0), T0)

    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(open_one, range(len(stores))))

    assert len(stores[0].nodes()) == len(stores)
    for storage in stores:
        storage.close()


def test_a_migration_that_fails_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "STEPS", ("CREATE TABLE first (a); CREATE TABLE nonsense (;",))
    storage = SQLiteStorage(path)

    with pytest.raises(StoreError):
        storage.open(NODE, T0)
    tables = query(path, "SELECT name FROM sqlite_master")
    monkeypatch.undo()
    storage.open(NODE, T0)
    storage.close()

    assert tables == []


def test_an_older_file_is_brought_to_the_present_schema(
    store: SQLiteStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(store, "x")
    store.close()
    monkeypatch.setattr(sqlite, "STEPS", (*sqlite_schema.STEPS, "CREATE TABLE later (a)"))
    monkeypatch.setattr(sqlite, "VERSION", sqlite_schema.VERSION + 1)

    store.open(NODE, T0)

    assert query(path, "SELECT * FROM later") == []
    assert list(store.get_executions(["x"])) == ["x"]


@pytest.mark.parametrize("found", range(1, sqlite_schema.VERSION))
def test_a_file_of_each_earlier_version_becomes_what_a_new_one_is(
    store: SQLiteStorage, path: Path, tmp_path: Path, found: int
) -> None:
    old = tmp_path / "old.db"
    connection = sqlite3.connect(old)
    for step in sqlite_schema.STEPS[:found]:
        connection.executescript(step)
    for mark in sqlite_schema.marks(found, with_app_tables=False):
        connection.execute(mark)
    connection.commit()
    connection.close()

    storage = SQLiteStorage(old)
    storage.open(NODE, T0)
    storage.close()

    layout = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
    assert query(old, layout) == query(path, layout)


def test_each_table_and_index_is_made_by_a_statement_of_its_own() -> None:
    script = ";".join(sqlite_schema.STEPS)

    found = [statement for step in sqlite_schema.STEPS for statement in sqlite_schema.statements(step)]

    assert len(found) == sum(map(script.count, ("CREATE", "INSERT", "DROP")))


# ---- Files that are no store of this version


def test_a_newer_file_is_refused_and_left_as_it_is(store: SQLiteStorage, path: Path) -> None:
    store.close()
    query(path, "PRAGMA user_version = 99")
    before = path.read_bytes()

    with pytest.raises(StoreTooNew) as caught:
        store.open(NODE, T0)

    assert (caught.value.found, caught.value.known) == (99, sqlite_schema.VERSION)
    assert path.read_bytes() == before
    assert not caught.value.transient


def test_a_file_that_becomes_newer_while_it_is_open_is_left_alone(store: SQLiteStorage, path: Path) -> None:
    query(path, "PRAGMA user_version = 99")
    store.interrupt()

    with pytest.raises(StoreTooNew):
        enqueue(store, "x")


def test_the_database_of_another_program_is_refused_and_left_as_it_is(path: Path) -> None:
    query(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()

    with pytest.raises(StoreCorrupt, match="another program"):
        SQLiteStorage(path).open(NODE, T0)

    assert path.read_bytes() == before


# ---- A file that also holds the tables of an app


def test_an_app_that_was_there_first_keeps_its_tables_and_marks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query(path, "CREATE TABLE theirs (a)")
    query(path, "PRAGMA user_version = 7")
    query(path, "PRAGMA application_id = 5")

    for options in ({"with_app_tables": True}, {}):  # once it is known, it is known to everybody
        storage = SQLiteStorage(path, **cast(Any, options))
        storage.open(NODE, T0)
        enqueue(storage, "x")
        assert list(storage.get_executions(["x"])) == ["x"]
        storage.close()
    monkeypatch.setattr(sqlite, "STEPS", (*sqlite_schema.STEPS, "CREATE TABLE later (a)"))
    monkeypatch.setattr(sqlite, "VERSION", sqlite_schema.VERSION + 1)
    later = SQLiteStorage(path)
    later.open(NODE, T0)
    later.close()

    assert query(path, "SELECT count(*) FROM theirs, later") == [(0,)]
    assert query(path, "PRAGMA user_version") == [(7,)]
    assert query(path, "PRAGMA application_id") == [(5,)]
    assert query(path, "SELECT value FROM facts WHERE key = 'schema'") == [(sqlite_schema.VERSION + 1,)]


def test_a_file_of_ours_stays_as_it_is_when_an_app_comes_to_it(store: SQLiteStorage, path: Path) -> None:
    store.close()
    query(path, "CREATE TABLE theirs (a)")

    beside = SQLiteStorage(path, with_app_tables=True)
    beside.open(NODE, T0)
    beside.close()

    assert query(path, "PRAGMA user_version") == [(sqlite_schema.VERSION,)]
    assert query(path, "SELECT * FROM facts WHERE key = 'schema'") == []


@pytest.mark.parametrize("taken", ["CREATE TABLE Tasks (a)", "CREATE TABLE a (b); CREATE INDEX ready ON a (b)"])
def test_an_app_that_has_a_name_of_ours_is_refused_and_the_name_told(path: Path, taken: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(taken)
    before = path.read_bytes()

    with pytest.raises(StoreCorrupt, match=r"has '(Tasks|ready)' of another program, and this store needs that name"):
        SQLiteStorage(path, with_app_tables=True).open(NODE, T0)

    assert path.read_bytes() == before


def test_a_newer_store_beside_an_app_is_refused(path: Path) -> None:
    storage = SQLiteStorage(path, with_app_tables=True)
    storage.open(NODE, T0)
    storage.close()
    query(path, "UPDATE facts SET value = 99 WHERE key = 'schema'")

    with pytest.raises(StoreTooNew):
        storage.open(NODE, T0)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)

    with pytest.raises(StoreCorrupt, match="no SQLite database"):
        SQLiteStorage(path).open(NODE, T0)

    assert path.read_bytes() == b"Dear diary, " * 1000


def test_a_damaged_file_is_reported_as_such(store: SQLiteStorage, path: Path) -> None:
    enqueue(store, *map(str, range(500)))
    store.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xaa" * (os.path.getsize(path) - 3 * 4096))

    def open_and_read() -> None:
        store.open(NODE, T0)
        store.count_executions()

    with pytest.raises(StoreCorrupt, match="backup"):
        open_and_read()


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    storage = SQLiteStorage(path)

    storage.open(NODE, T0)
    storage.close()

    assert query(path, "PRAGMA user_version") == [(sqlite_schema.VERSION,)]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no directory .*/nowhere; create it first") as caught:
        SQLiteStorage(tmp_path / "nowhere" / "jobs.db").open(NODE, T0)

    assert not caught.value.transient


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a directory; name a file in it"):
        SQLiteStorage(tmp_path).open(NODE, T0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs users and permissions")
@pytest.mark.parametrize("read_only", ["file", "directory"])
def test_what_cannot_be_written_is_refused_with_what_would_be_right(read_only: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = Path(folder, "jobs.db")
        storage = SQLiteStorage(path)
        storage.open(NODE, T0)
        storage.close()
        os.chmod(path, 0o444 if read_only == "file" else 0o666)
        os.chmod(folder, 0o555 if read_only == "directory" else 0o777)

        message = as_nobody(lambda: storage.open(NODE, T0))

        os.chmod(folder, 0o777)
    assert message.startswith("StoreError: ")
    assert "the right to write the file and its directory" in message


def as_nobody(action: Callable[[], None]) -> str:
    """What the action raises in a child without the rights of root."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            action()
            os.write(writer, b"nothing was raised")
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


# ---- Transactions


def test_a_reader_does_not_wait_for_the_writer_and_sees_what_was_committed(store: SQLiteStorage) -> None:
    enqueue(store, "committed")

    with store.transaction(), ThreadPoolExecutor(1) as thread:
        enqueue(store, "not yet")
        seen = thread.submit(store.count_executions).result(PATIENCE)

    assert seen == 1
    assert store.count_executions() == 2


def test_a_snapshot_does_not_change_while_it_is_read(store: SQLiteStorage) -> None:
    with store.reading(), ThreadPoolExecutor(1) as thread:
        before = store.count_executions()
        thread.submit(enqueue, store, "x").result(PATIENCE)
        after = store.count_executions()

    assert before == after == 0


def test_what_is_raised_undoes_everything(store: SQLiteStorage) -> None:
    with suppress(ZeroDivisionError), store.transaction():
        enqueue(store, "x")
        raise ZeroDivisionError

    assert store.count_executions() == 0


def test_a_failure_inside_that_is_swallowed_undoes_everything_as_well(store: SQLiteStorage) -> None:
    def swallow_a_failure() -> None:
        with store.transaction():
            enqueue(store, "x")
            with suppress(ZeroDivisionError), store.transaction():
                raise ZeroDivisionError

    with pytest.raises(StoreError, match="all of it is undone"):
        swallow_a_failure()

    assert store.count_executions() == 0


def test_a_second_nominal_time_is_refused_as_a_whole(store: SQLiteStorage) -> None:
    twice = [
        Execution(one, Work("mail"), Cause.SCHEDULE, T0, T0, T0, one, job_id="j", job_name="j", nominal=T0)
        for one in ("a", "b")
    ]

    with pytest.raises(StoreError, match="UNIQUE") as caught, store.transaction():
        store.insert_executions(twice)

    assert not caught.value.transient
    assert store.count_executions() == 0


def test_a_file_that_another_one_writes_is_unavailable_for_a_while(path: Path) -> None:
    first, second = SQLiteStorage(path), SQLiteStorage(path, busy_timeout=0.05)
    first.open(NODE, T0)
    second.open(Node("node-2", "", T0, 0), T0)

    with first.transaction(), pytest.raises(StoreUnavailable, match="locked") as caught:
        enqueue(second, "x")
    enqueue(second, "x")

    assert caught.value.transient
    assert first.count_executions() == 1
    second.close()
    first.close()


def test_tables_are_touched_inside_a_block_only(store: SQLiteStorage) -> None:
    with pytest.raises(RuntimeError, match=r"transaction\(\) or reading\(\)"):
        store.get_fact("revision")


def test_a_snapshot_cannot_become_a_transaction(store: SQLiteStorage) -> None:
    with store.reading(), pytest.raises(RuntimeError, match="inside a snapshot"), store.transaction():
        pass


# ---- Outages


def test_a_full_disk_is_an_outage_that_changes_nothing(store: SQLiteStorage) -> None:
    connection_of(store).execute("PRAGMA max_page_count = 1")

    with pytest.raises(StoreError, match="disk is full") as caught:
        enqueue(store, *map(str, range(100)), args='"' + 10_000 * "x" + '"')
    connection_of(store).execute("PRAGMA max_page_count = 1000000")
    enqueue(store, "x")

    assert caught.value.transient
    assert store.count_executions() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of resources")
def test_a_disk_that_fails_is_an_outage(store: SQLiteStorage) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="disk reports an error") as caught:
            enqueue(store, *map(str, range(100)), args='"' + 10_000 * "x" + '"')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    enqueue(store, "x")

    assert caught.value.transient
    assert store.count_executions() == 1


def connection_of(storage: SQLiteStorage) -> sqlite3.Connection:
    """The connection of this thread."""
    with storage.reading():
        return storage._session().connection  # pyright: ignore[reportPrivateUsage]


def test_a_number_that_no_column_can_hold_is_an_error_of_the_store(store: SQLiteStorage) -> None:
    with pytest.raises(StoreError) as caught:
        store.add_executions([NewExecution("x", Work("mail"), Cause.ENQUEUE, 2**70)], T0)

    assert not caught.value.transient


def test_a_file_that_was_moved_away_is_noticed_and_may_come_back(store: SQLiteStorage, path: Path) -> None:
    path.rename(f"{path}.moved")
    with pytest.raises(StoreUnavailable, match="moved or deleted"):
        store.heartbeat_node(NODE.id, T0)

    Path(f"{path}.moved").rename(path)

    assert len(store.heartbeat_node(NODE.id, T0)) == 1


def test_a_file_that_was_replaced_is_not_gone_on_with(store: SQLiteStorage, path: Path) -> None:
    other = SQLiteStorage(f"{path}.other")
    other.open(NODE, T0)
    other.close()
    os.replace(f"{path}.other", path)

    with pytest.raises(StoreError, match="was replaced while it was open") as caught:
        store.heartbeat_node(NODE.id, T0)

    assert not caught.value.transient


# ---- Calls that are given up on


class HangingThread:
    """A thread that begins a transaction, writes, and then hangs until it is told to go on."""

    def __init__(self, storage: SQLiteStorage) -> None:
        self.storage = storage
        self.error: BaseException | None = None
        self._hangs, self._goes_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._hangs.wait(PATIENCE)

    def _run(self) -> None:
        try:
            with self.storage.transaction():
                enqueue(self.storage, "of the one that hangs")
                self._hangs.set()
                self._goes_on.wait(PATIENCE)
        except BaseException as error:
            self.error = error

    def come_back(self) -> None:
        """Let it go on, and wait for its end."""
        self._goes_on.set()
        self._thread.join(PATIENCE)


def test_a_thread_that_was_given_up_on_cannot_commit_when_it_comes_back(store: SQLiteStorage) -> None:
    hanging = HangingThread(store)

    store.interrupt()
    hanging.come_back()
    enqueue(store, "of the next one")

    assert isinstance(hanging.error, StoreUnavailable)
    assert [row.id for row in store.list_executions().items] == ["of the next one"]


def test_while_a_hanging_thread_holds_the_file_others_read_and_writers_are_told_to_wait(path: Path) -> None:
    storage = SQLiteStorage(path, busy_timeout=0.05)
    storage.open(NODE, T0)
    hanging = HangingThread(storage)

    storage.interrupt()
    seen = storage.count_executions()
    with pytest.raises(StoreUnavailable):
        enqueue(storage, "of the next one")
    hanging.come_back()
    enqueue(storage, "of the next one")

    assert seen == 0
    assert storage.count_executions() == 1
    storage.close()


def test_an_interrupt_breaks_off_a_statement_that_takes_too_long(store: SQLiteStorage) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    begun = threading.Event()

    def count_forever() -> None:
        with store.reading():
            begun.set()
            store._session().fetch(endless)  # pyright: ignore[reportPrivateUsage]

    with ThreadPoolExecutor(1) as thread:
        counting = thread.submit(count_forever)
        assert begun.wait(PATIENCE)
        store.interrupt()

        assert isinstance(counting.exception(PATIENCE), StoreUnavailable)
    assert store.count_executions() == 0


def test_closing_does_not_wait_for_a_reader(store: SQLiteStorage) -> None:
    reads, closed = threading.Event(), threading.Event()

    def read() -> None:
        with store.reading():
            store.count_executions()
            reads.set()
            closed.wait(PATIENCE)
            store.count_executions()

    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read)
        assert reads.wait(PATIENCE)
        store.close()
        closed.set()

        assert isinstance(reading.exception(PATIENCE), StoreUnavailable)


def test_connections_of_threads_that_have_ended_are_closed(store: SQLiteStorage) -> None:
    for _ in range(20):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(store.count_executions).result(PATIENCE)

    assert len(store._connections._sessions) <= 3  # pyright: ignore[reportPrivateUsage]


def test_interrupting_a_store_that_is_not_open_does_nothing(path: Path) -> None:
    SQLiteStorage(path).interrupt()

    assert not path.exists()


def test_a_store_that_is_forgotten_in_an_ended_process_is_no_trouble_for_the_next(path: Path) -> None:
    script = (
        "import sys; from clepsydra.storage.sqlite import SQLiteStorage; from clepsydra.model.strategies import Node\n"
        "SQLiteStorage(sys.argv[1]).open(Node('gone', '', 0, 0), 0)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=PATIENCE)
    storage = SQLiteStorage(path)

    storage.open(NODE, T0)

    assert {node.id: node.alive for node in storage.nodes()} == {"gone": False, NODE.id: True}
    storage.close()
