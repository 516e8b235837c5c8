"""Several processes on one SQLite file: who is alive, what a fork inherits, and that nothing is done twice."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from clepsydra.model.errors import StoreError, StoreUnavailable
from clepsydra.model.execution import Cause, State
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage.protocol import NewExecution
from clepsydra.storage.sqlite import SQLiteStorage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no lock files on Windows")

T0: Instant = 1_767_614_400 * SECOND
PATIENCE = 60.0
PREAMBLE = """
import sys
from clepsydra.model.execution import Ending, Outcome
from clepsydra.model.strategies import Node
from clepsydra.storage.sqlite import SQLiteStorage
path, name, now = sys.argv[1], sys.argv[2], int(sys.argv[3])
storage = SQLiteStorage(path, synchronous="NORMAL", busy_timeout=30)
storage.open(Node(name, "", now, 0), now)
"""
STAYS = PREAMBLE + "print('open', flush=True); sys.stdin.read(); storage.close()"
WORKS = (
    PREAMBLE
    + """
while claims := storage.start(name, now, free={"default": 7}).claims:
    print(*(claim.execution_id for claim in claims), flush=True)
    done = [Outcome(claim.execution_id, claim.attempt_id, name, Ending.SUCCEEDED, now) for claim in claims]
    storage.finish(done, now)
storage.close()
"""
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStorage]:
    storage = SQLiteStorage(path, synchronous="NORMAL", busy_timeout=30)
    storage.open(Node("here", "", T0, 0), T0)
    yield storage
    storage.close()


@contextmanager
def another_process(path: Path, name: str) -> Generator[subprocess.Popen[str]]:
    """A process that has the store open until its standard input ends."""
    command = [sys.executable, "-c", STAYS, str(path), name, str(T0)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def alive(storage: SQLiteStorage) -> dict[str, bool | None]:
    return {node.id: node.alive for node in storage.nodes()}


# ---- Who is alive


def test_a_process_that_is_killed_is_known_to_be_dead_at_once(store: SQLiteStorage, path: Path) -> None:
    with another_process(path, "there") as process:
        before = alive(store)

        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)

        assert before == {"here": True, "there": True}
        assert alive(store) == {"here": True, "there": False}


def test_a_process_that_ends_well_leaves_no_trace(store: SQLiteStorage, path: Path) -> None:
    with another_process(path, "there") as process:
        process.communicate(timeout=PATIENCE)

        assert alive(store) == {"here": True}
        assert len(list(Path(f"{path}-nodes").iterdir())) == 1


def test_two_stores_of_one_process_are_two_nodes(store: SQLiteStorage, path: Path) -> None:
    other = SQLiteStorage(path)
    other.open(Node("other", "", T0, 0), T0)

    assert alive(store) == alive(other) == {"here": True, "other": True}

    other.close()
    assert alive(store) == {"here": True}


def test_those_who_come_by_another_name_of_the_file_see_the_same_locks(store: SQLiteStorage, path: Path) -> None:
    link = path.parent / "link.db"
    link.symlink_to(path)
    other = SQLiteStorage(link)
    other.open(Node("other", "", T0, 0), T0)

    assert alive(store) == {"here": True, "other": True}

    other.close()


def test_a_node_without_a_lock_file_is_dead(store: SQLiteStorage) -> None:
    with store.transaction():
        store.save_node(Node("gone", "", T0, 0))

    assert alive(store) == {"gone": False, "here": True}


def test_a_lock_file_that_somebody_removed_is_made_again_with_the_next_heartbeat(
    store: SQLiteStorage, path: Path
) -> None:
    other = SQLiteStorage(path)
    other.open(Node("other", "", T0, 0), T0)
    shutil.rmtree(f"{path}-nodes")

    other.heartbeat_node("other", T0)

    assert alive(store) == {"here": True, "other": True}
    other.close()


def test_lock_files_of_nodes_that_are_forgotten_are_swept_away(store: SQLiteStorage, path: Path) -> None:
    folder = Path(f"{path}-nodes")
    (folder / "forgotten.lock").touch()
    (folder / "notes.txt").touch()

    other = SQLiteStorage(path)
    other.open(Node("other", "", T0, 0), T0)

    assert sorted(file.name for file in folder.iterdir()) == ["here.lock", "notes.txt", "other.lock"]
    other.close()


@pytest.mark.parametrize("name", ["../outside", "a/b", "ü ?", ".", "n" * 60])
def test_any_id_of_a_node_is_the_name_of_a_lock_file_beside_the_store(path: Path, name: str) -> None:
    storage, other = SQLiteStorage(path), SQLiteStorage(path)
    storage.open(Node(name, "", T0, 0), T0)
    other.open(Node("other", "", T0, 0), T0)

    assert alive(other) == {name: True, "other": True}
    assert len(list(Path(f"{path}-nodes").iterdir())) == 2
    assert len(list(path.parent.iterdir())) == 4

    other.close()
    storage.close()


def test_an_id_that_another_process_holds_is_refused(
    store: SQLiteStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clepsydra.storage.sqlite_locks._TRIES", 3)
    other = SQLiteStorage(path)

    with pytest.raises(StoreUnavailable, match="held by another process"):
        other.open(Node("here", "", T0, 0), T0)

    assert alive(store) == {"here": True}


def test_many_who_come_and_go_never_take_a_living_one_for_dead(store: SQLiteStorage, path: Path) -> None:
    def come_and_go(number: int) -> None:
        for round_ in range(10):
            storage = SQLiteStorage(path, synchronous="NORMAL", busy_timeout=30)
            storage.open(Node(f"{number}-{round_}", "", T0, 0), T0)
            assert alive(storage)["here"]
            assert alive(storage)[f"{number}-{round_}"]
            assert alive(store)[f"{number}-{round_}"]
            storage.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(come_and_go, range(4)))

    assert alive(store) == {"here": True}


# ---- Forks


def in_child(action: object) -> int:
    """Run in a forked child; its exit code: 0 when nothing was raised."""
    child = os.fork()
    if child == 0:
        try:
            assert callable(action)
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_of_a_fork_may_open_the_store_for_itself(store: SQLiteStorage) -> None:
    def open_as_another() -> None:
        store.open(Node("child", "", T0, 0), T0)
        store.add_executions([NewExecution("of the child", Work("mail"), Cause.ENQUEUE, T0)], T0)
        assert alive(store) == {"child": True, "here": True}
        store.close()

    code = in_child(open_as_another)

    assert code == 0
    assert list(store.get_executions(["of the child"])) == ["of the child"]
    assert alive(store) == {"here": True}


def test_a_child_of_a_fork_does_not_work_with_what_it_inherits(store: SQLiteStorage) -> None:
    def use_what_is_inherited() -> None:
        with pytest.raises(StoreError, match="is not open"):
            store.count_executions()
        store.close()

    assert in_child(use_what_is_inherited) == 0
    assert alive(store) == {"here": True}


def test_a_child_of_a_fork_does_not_keep_its_parent_alive(path: Path) -> None:
    reader, writer = os.pipe()
    child_runs, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        storage = SQLiteStorage(path)
        storage.open(Node("parent", "", T0, 0), T0)
        if os.fork() == 0:
            os.close(writer)
            os.write(tell, b"!")
            os.read(reader, 1)  # until the test has ended
        os._exit(0)
    os.waitpid(parent, 0)
    os.read(child_runs, 1)
    storage = SQLiteStorage(path)
    storage.open(Node("here", "", T0, 0), T0)

    seen = alive(storage)
    for end in (reader, writer, child_runs, tell):
        os.close(end)
    storage.close()

    assert seen == {"here": True, "parent": False}


def test_a_store_that_is_dropped_without_being_closed_is_dead(store: SQLiteStorage, path: Path) -> None:
    dropped = SQLiteStorage(path)
    dropped.open(Node("dropped", "", T0, 0), T0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del dropped
        gc.collect()

    assert alive(store) == {"dropped": False, "here": True}


# ---- Working together


def test_processes_that_start_from_one_file_start_each_execution_once(store: SQLiteStorage, path: Path) -> None:
    ids = [f"{number:04}" for number in range(600)]
    store.add_executions([NewExecution(one, Work("mail"), Cause.ENQUEUE, T0) for one in ids], T0)

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKS, str(path), f"worker-{number}", str(T0)], stdout=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    started = [one for process in processes for one in process.communicate(timeout=PATIENCE)[0].split()]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(started) == ids
    assert store.stats()[State.SUCCEEDED] == len(ids)


def test_threads_that_enqueue_and_start_at_once_lose_nothing(store: SQLiteStorage) -> None:
    def enqueue(number: int) -> None:
        for batch in range(20):
            ids = [f"{number}-{batch}-{one}" for one in range(5)]
            store.add_executions([NewExecution(one, Work("mail"), Cause.ENQUEUE, T0) for one in ids], T0)

    def start(number: int) -> list[str]:
        claims: list[str] = []
        for _ in range(40):
            claims += [claim.execution_id for claim in store.start("here", T0, free={"default": 10}).claims]
        return claims

    with ThreadPoolExecutor(4) as threads:
        enqueued = [threads.submit(enqueue, number) for number in range(2)]
        started = [threads.submit(start, number) for number in range(2)]
        for future in enqueued:
            future.result(PATIENCE)
        claims = [one for future in started for one in future.result(PATIENCE)]
    claims += [claim.execution_id for claim in store.start("here", T0, free={"default": 1000}).claims]

    assert sorted(claims) == sorted(
        f"{number}-{batch}-{one}" for number in range(2) for batch in range(20) for one in range(5)
    )
