"""A scheduler run as a service: how it starts, drains and ends."""

from __future__ import annotations

import io

import anyio
import pytest

from clepsydra import Every, Job, Scheduler, SQLiteStorage, Stages, Task, events
from clepsydra.console.errors import CommandError
from clepsydra.console.output import Output
from clepsydra.console.service import Service

pytestmark = pytest.mark.anyio


async def run_work(scheduler: Scheduler) -> None:
    """Run the job called work, and wait until it has begun."""
    begun = anyio.Event()
    detach = scheduler.attach(lambda event: begun.set(), [events.ExecutionStarted])
    await scheduler.run_job("work")
    await begun.wait()
    detach()


async def test_it_starts_drains_and_ends_in_this_order() -> None:
    said: list[str] = []

    async def start() -> None:
        said.append("start")
        service.ask_to_stop("enough")

    async def end() -> None:
        said.append(f"end, {service.scheduler.health().status}")

    service = Service(Scheduler(), on_start=start, on_drain=said.append, on_end=end)
    code = await service.run()

    assert (code, said) == (0, ["start", "enough", "end, degraded"])
    assert service.scheduler.health().status == "stopped"


async def test_what_runs_may_end_before_it_does() -> None:
    release, ended = anyio.Event(), anyio.Event()

    async def work() -> None:
        await release.wait()
        ended.set()

    async def start() -> None:
        await run_work(scheduler)
        service.ask_to_stop("enough")

    scheduler = Scheduler(tasks=[task := Task(work, "work")], jobs=[Job("work", task)])
    service = Service(scheduler, on_start=start, on_drain=lambda why: release.set())
    code = await service.run()

    assert code == 0
    assert ended.is_set()


async def test_insisting_does_not_wait_for_what_runs() -> None:
    async def start() -> None:
        await run_work(scheduler)
        service.ask_to_stop("enough")

    scheduler = Scheduler(tasks=[task := Task(anyio.sleep_forever, "work")], jobs=[Job("work", task)])
    service = Service(scheduler, on_start=start, on_drain=lambda why: service.insist(2))

    with anyio.fail_after(10):
        assert await service.run() == 130


async def test_the_grace_is_given_once() -> None:
    async def start() -> None:
        await run_work(scheduler)
        service.ask_to_stop("enough")

    stages = Stages(grace=0.2)
    scheduler = Scheduler(stages=stages, tasks=[task := Task(anyio.sleep_forever, "work")], jobs=[Job("work", task)])
    service = Service(scheduler, on_start=start)
    began = scheduler.clock.monotonic()

    assert await service.run() == 0
    assert scheduler.clock.monotonic() - began < 5


async def test_a_store_that_cannot_be_opened_is_told_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    service = Service(Scheduler(SQLiteStorage(folder / "missing" / "jobs.db")))

    with pytest.raises(CommandError, match="there is no directory"):
        await service.run()


async def test_it_ends_by_itself_after_the_time_that_was_asked_for() -> None:
    said: list[str] = []

    assert await Service(Scheduler(), end_after=0.05, on_drain=said.append).run() == 0
    assert said == ["0.05 s are over"]


async def test_a_task_that_stops_the_scheduler_ends_it() -> None:
    scheduler = Scheduler()

    @scheduler.job(Every(seconds=0.01))
    async def end() -> None:
        scheduler.stop()

    with anyio.fail_after(10):
        assert await Service(scheduler).run() == 0


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


async def test_output_that_nobody_reads_asks_for_the_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("clepsydra.console.output.forget_stdout", lambda: None)
    output = Output(Closed(), lambda: asked.append("end"))

    output.line("one")
    output.line("two")

    assert (asked, output.broken) == (["end"], True)
