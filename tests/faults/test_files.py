"""Files in a bad state: a clear error or a row that is put aside with an event; the rest runs and the app stays up."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from clepsydra import Every, Job, Scheduler, SQLiteStorage, State, StoreCorrupt, StoreTooNew
from clepsydra.model.events import RowQuarantined

from .hosts import Fired, Happenings, restarts
from .inquest import violations_of_law_1
from .processes import Nursery

pytestmark = pytest.mark.anyio


@contextmanager
def editing(database: Path) -> Generator[sqlite3.Connection]:
    """The file in the hands of somebody else."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        yield connection


def scheduler_on(database: Path, fired: Fired, *jobs: str) -> Scheduler:
    scheduler = Scheduler(SQLiteStorage(database))
    note = scheduler.task(name="note")(fired.note)
    for job in jobs:
        scheduler.job(Every(0.05), name=job)(note)
    return scheduler


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    async with scheduler_on(database, Fired()):
        pass
    with editing(database) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreTooNew, match=r"jobs\.db has schema version 99.*upgrade clepsydra"):
        async with scheduler_on(database, Fired()):
            pass

    with editing(database) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    database.write_text("dear diary, " * 1000)

    with pytest.raises(StoreCorrupt, match="no SQLite database"):
        async with scheduler_on(database, Fired()):
            pass

    assert database.read_text().startswith("dear diary")


async def test_a_scheduler_whose_store_was_refused_may_be_entered_when_it_is_mended(tmp_path: Path) -> None:
    database, fired = tmp_path / "jobs.db", Fired()
    database.write_text("dear diary, " * 1000)
    scheduler = scheduler_on(database, fired, "note")
    with pytest.raises(StoreCorrupt):
        async with scheduler:
            pass

    database.unlink()

    async with scheduler:
        await fired.wait_for("note")


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions as on Unix")
@pytest.mark.parametrize("backend", ["asyncio"])
def test_a_read_only_file_is_refused_and_the_app_stays_up(processes: Nursery, backend: str) -> None:
    # Not in tmp_path, which only its owner may enter: as root the program makes itself somebody else.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        database = Path(folder) / "jobs.db"
        database.touch()
        database.chmod(0o444)

        program = processes.start("odd_program", "read_only", database, backend)

        assert processes.wait_for_end(program) == 0, program.complaint()
        error, rest = program.said().splitlines()
        assert error.startswith("StoreError: ")
        assert "needs the right to write the file and its directory" in error
        assert rest == "the app is up"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_full_disk_is_waited_out(processes: Nursery, tmp_path: Path, backend: str) -> None:
    database = tmp_path / "jobs.db"

    program = processes.start("odd_program", "full_disk", database, backend)

    assert processes.wait_for_end(program) == 0, program.complaint()
    degraded, rest = program.said().splitlines()
    assert "disk" in degraded
    assert rest == "caught up"
    assert violations_of_law_1(database, ["all"]) == []


async def test_a_corrupt_row_is_put_aside_with_an_event_and_the_rest_runs(tmp_path: Path) -> None:
    database, fired = tmp_path / "jobs.db", Fired()
    async with scheduler_on(database, fired, "sound", "broken") as scheduler:
        await scheduler.add_job(Job("unreadable", "note", Every(0.05)))
        later = await scheduler.enqueue(scheduler.tasks["note"].call(), after=3600)
        await fired.wait_for("broken")
    with editing(database) as connection:
        connection.execute("UPDATE jobs SET definition = '{' WHERE name = 'broken'")
        connection.execute("UPDATE jobs SET definition = X'FF00' WHERE name = 'unreadable'")
        connection.execute("UPDATE executions SET rules = '[', not_before = 0, delayed = 0 WHERE id = ?", (later.id,))

    scheduler = scheduler_on(database, fired, "sound")
    happenings = Happenings(scheduler)
    async with scheduler:
        await fired.wait_for("sound", 5)
        assert scheduler.find_job("broken") is None
        assert scheduler.health().ok
        assert restarts(scheduler.health()) == 0

    put_aside = [event for event in happenings.events if isinstance(event, RowQuarantined)]
    assert [event.table for event in put_aside].count("jobs") == 2
    # Work of the two jobs may have waited as well, which is put aside with them.
    assert ("executions", later.id) in [(event.table, event.row_id) for event in put_aside]
    with editing(database) as connection:
        assert connection.execute("SELECT rules FROM executions WHERE id = ?", (later.id,)).fetchone() == ("[",)


async def test_work_of_a_task_that_no_longer_exists_waits_for_it_and_the_rest_runs(tmp_path: Path) -> None:
    database, fired = tmp_path / "jobs.db", Fired()
    scheduler = scheduler_on(database, fired)
    old = scheduler.task(name="old.name")(fired.note)
    async with scheduler:
        await scheduler.add_job(Job("of_old", old, Every(0.05)))
        await scheduler.add_job(Job("of_note", "note", Every(0.05)))
        await fired.wait_for("of_old")

    async with scheduler_on(database, fired) as without:
        seen = fired.count("of_old")
        await fired.wait_for("of_note", 10)
        assert without.health().unknown_tasks == ["old.name"]
        assert without.health().ok
        assert fired.count("of_old") == seen
        waiting = await without.stats()
        assert waiting[State.FAILED] == 0

    renamed = scheduler_on(database, fired)
    renamed.task(name="new.name", aliases=["old.name"])(fired.note)
    async with renamed:
        await fired.wait_for("of_old", 2)
    assert violations_of_law_1(database, ["of_old", "of_note"]) == []
