"""Loops of other makes, and several of them in one process."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import anyio
import pytest

from clepsydra import Every, Job, Scheduler, SQLiteStorage

from .hosts import PATIENCE, Fired
from .inquest import violations_of_law_1


async def run_a_while(database: Path, fired: Fired, job: str) -> None:
    """A scheduler until its job has run ten times."""
    scheduler = Scheduler(SQLiteStorage(database))
    scheduler.task(name="note")(fired.note)

    @scheduler.task(name="plain")
    def plain() -> int:
        return 7

    async with scheduler:
        await scheduler.add_job(Job(job, "note", Every(0.02)))
        assert await (await scheduler.enqueue(plain.call())).result(PATIENCE) == 7
        await fired.wait_for(job, 10)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_it_runs_on_uvloop(tmp_path: Path) -> None:
    database, fired = tmp_path / "jobs.db", Fired()

    anyio.run(run_a_while, database, fired, "note", backend_options={"use_uvloop": True})

    assert violations_of_law_1(database, ["note"]) == []


@pytest.mark.parametrize("backends", [("asyncio", "trio"), ("asyncio", "asyncio")])
@pytest.mark.parametrize("files", [1, 2])
def test_two_schedulers_in_two_threads_do_not_meet(tmp_path: Path, backends: tuple[str, str], files: int) -> None:
    databases = [tmp_path / f"{number % files}.db" for number in range(2)]
    fired = [Fired(), Fired()]
    errors: list[BaseException] = []

    def live(number: int) -> None:
        try:
            anyio.run(run_a_while, databases[number], fired[number], f"job-{number}", backend=backends[number])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=live, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive()

    assert errors == []
    for number in range(2):
        assert violations_of_law_1(databases[number], [f"job-{number}"]) == []
