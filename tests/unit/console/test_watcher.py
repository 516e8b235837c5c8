"""The jobs of the demo: each does what it says, on this machine."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from clepsydra import Call, ExecutionFailed
from clepsydra.console.watcher import KEPT_BACKUPS, Watcher

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def watching(folder: Path) -> AsyncGenerator[Watcher]:
    """A watcher whose own jobs are paused, so that only what a test asks for runs."""
    watcher = Watcher(folder / "demo.db")
    await watcher.server.choose_port()
    async with watcher.scheduler as scheduler:
        for job in scheduler.jobs:
            await scheduler.pause_job(job.name)
        yield watcher


async def result(watcher: Watcher, task: str, **arguments: Any) -> str:
    known = watcher.scheduler.tasks[task]
    handle = await watcher.scheduler.enqueue(known.call(**arguments))
    return str(await handle.result(10))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watcher")


async def test_it_samples_load_memory_and_disk(folder: Path) -> None:
    async with watching(folder) as watcher:
        load, disk = await result(watcher, "watcher.load"), await result(watcher, "watcher.disk")

    assert re.match(r"load .+, memory ", load)
    assert re.fullmatch(r"[\d.]+ \w+ free of [\d.]+ \w+, \d+% used", disk)


async def test_it_probes_a_port_that_answers_or_does_not(folder: Path) -> None:
    answer = ""
    async with watching(folder) as watcher, anyio.create_task_group() as group:
        with pytest.raises(ExecutionFailed, match="nobody answers on port"):
            await result(watcher, "watcher.port")
        group.start_soon(watcher.server.open_for, 60)
        await anyio.wait_all_tasks_blocked()
        answer = await result(watcher, "watcher.port")
        group.cancel_scope.cancel()

    assert "says 'all is well' after" in answer


async def test_it_backs_up_its_database_keeps_a_few_and_reads_them_again(folder: Path) -> None:
    async with watching(folder) as watcher:
        watcher.backups.mkdir()
        for day in range(1, 6):
            (watcher.backups / f"demo-2020010{day}-000000.db").touch()
        saved = await result(watcher, "watcher.backup")
        copies = sorted(watcher.backups.glob("*.db"))
        read = await result(watcher, "watcher.verify", copy=str(copies[-1]))

    assert len(copies) == KEPT_BACKUPS
    assert saved.endswith(copies[-1].name)
    told = rf"{copies[-1].name}: ok, \d executions? in it"  # another one may have been due just then
    assert re.fullmatch(told, read)


async def test_what_a_run_has_found_is_its_result_in_the_store(folder: Path) -> None:
    async with watching(folder) as watcher:
        handle = await watcher.scheduler.enqueue(Call("watcher.load"))
        kept = await handle.result(10)

        assert watcher.found[handle.id] == kept  # what was due meanwhile may stand there too
