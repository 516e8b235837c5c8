"""What the processes on one SQLite file say to each other: that there is something new."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clepsydra.model.execution import Cause
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.job import Job
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage.protocol import NewExecution, NewJob
from clepsydra.storage.sqlite import SQLiteStorage
from clepsydra.storage.sqlite_bells import Bells

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes on Windows")

T0: Instant = 1_767_614_400 * SECOND
PATIENCE = 60.0


class Ear:
    """Waits for the hints that a store gives."""

    def __init__(self, storage: SQLiteStorage) -> None:
        self._hints = threading.Semaphore(0)
        self.stop = storage.listen(self._hints.release)

    def hears(self) -> bool:
        """Whether a hint comes."""
        return self._hints.acquire(timeout=PATIENCE)

    def has_heard(self) -> bool:
        """Whether one has come."""
        return self._hints.acquire(blocking=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def stores(path: Path) -> Iterator[tuple[SQLiteStorage, SQLiteStorage]]:
    pair = SQLiteStorage(path, synchronous="NORMAL"), SQLiteStorage(path, synchronous="NORMAL")
    for storage, name in zip(pair, ("speaker", "hearer"), strict=True):
        storage.open(Node(name, "", T0, 0), T0)
    yield pair
    for storage in pair:
        storage.close()


def enqueue(storage: SQLiteStorage, execution_id: str) -> None:
    storage.add_executions([NewExecution(execution_id, Work("mail"), Cause.ENQUEUE, T0)], T0)


def bells(path: Path) -> list[Path]:
    return sorted(Path(f"{path}-nodes").glob("*.bell*"))


def test_a_node_hears_of_what_another_one_adds(stores: tuple[SQLiteStorage, SQLiteStorage]) -> None:
    speaker, hearer = stores
    ear = Ear(hearer)

    enqueue(speaker, "x")
    assert ear.hears()
    speaker.put_jobs([NewJob("job", Job("nightly", "mail"))], T0)
    assert ear.hears()

    ear.stop()


def test_a_node_does_not_hear_itself_nor_what_is_no_news(stores: tuple[SQLiteStorage, SQLiteStorage]) -> None:
    speaker, hearer = stores
    mouth, ear = Ear(speaker), Ear(hearer)

    enqueue(speaker, "x")
    assert ear.hears()
    speaker.heartbeat_node("speaker", T0)
    enqueue(hearer, "y")  # the bells ring in order: what was to be heard before has been heard when this is
    assert mouth.hears()

    assert not mouth.has_heard()
    assert not ear.has_heard()
    mouth.stop()
    ear.stop()


def test_one_who_is_no_node_is_heard(stores: tuple[SQLiteStorage, SQLiteStorage], path: Path) -> None:
    _, hearer = stores
    ear = Ear(hearer)
    visitor = SQLiteStorage(path)

    with visitor.looking():
        enqueue(visitor, "x")

    assert ear.hears()
    ear.stop()


def test_the_end_of_a_caller_s_transaction_is_heard(stores: tuple[SQLiteStorage, SQLiteStorage], path: Path) -> None:
    speaker, hearer = stores
    ear = Ear(hearer)
    with closing(sqlite3.connect(path)) as connection:
        joined = speaker.on_connection(connection)
        joined.add_executions([NewExecution("x", Work("mail"), Cause.ENQUEUE, T0)], T0)
        assert not speaker.has_ended("")
        assert not ear.has_heard()
        connection.commit()

        assert speaker.has_ended("")

    assert ear.hears()
    ear.stop()


def test_the_bell_of_one_who_stops_is_taken_down(stores: tuple[SQLiteStorage, SQLiteStorage], path: Path) -> None:
    _, hearer = stores
    ear = Ear(hearer)
    assert [bell.name for bell in bells(path)] == ["hearer.bell"]

    ear.stop()

    assert bells(path) == []


def test_the_bell_of_a_killed_process_is_removed_by_who_rings_it(
    stores: tuple[SQLiteStorage, SQLiteStorage], path: Path
) -> None:
    os.mkfifo(f"{path}-nodes/killed.bell")

    enqueue(stores[0], "x")

    assert bells(path) == []


def test_a_bell_whose_owner_is_forgotten_is_removed_at_the_next_start(path: Path) -> None:
    os.mkdir(f"{path}-nodes")
    forgotten = os.open(_pipe(f"{path}-nodes/forgotten.bell"), os.O_RDWR)  # a child of `fork` may hold it open

    storage = SQLiteStorage(path)
    storage.open(Node("new", "", T0, 0), T0)

    assert bells(path) == []
    storage.close()
    os.close(forgotten)


def test_a_bell_that_nobody_listens_to_keeps_nobody_waiting(path: Path) -> None:
    path.mkdir()
    deaf = os.open(_pipe(f"{path}/deaf.bell"), os.O_RDWR | os.O_NONBLOCK)
    assert os.write(deaf, bytes(1 << 24)) < 1 << 24, "it is full"

    Bells(str(path)).ring()

    os.close(deaf)


def test_where_there_can_be_no_pipe_nothing_is_heard(
    stores: tuple[SQLiteStorage, SQLiteStorage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    caplog.set_level("INFO", "clepsydra.storage")
    monkeypatch.setattr(os, "mkfifo", refuse)
    stop = stores[0].listen(lambda: None)
    stop()

    assert "work of other processes is polled: there can be no named pipe in" in caplog.text


def _pipe(path: str) -> str:
    os.mkfifo(path)
    return path
