"""A store call that hangs delays only what needs its durability."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import anyio
import pytest

from clepsydra import Every, ExecutionFailed, Job, Misfire, Scheduler, SQLiteStorage, Stages, StoreBusy
from clepsydra.model.events import StoreDegraded, StoreRecovered
from clepsydra.model.filters import JobFilter
from clepsydra.storage import protocol
from clepsydra.storage.protocol import Fire, JobChange, NewJob

from .hosts import Fired, Happenings, assert_unbroken, restarts, until, until_set
from .inquest import violations_of_law_1

pytestmark = pytest.mark.anyio


class HangingStorage(SQLiteStorage):
    """A store whose calls of one kind hang, each in its thread, for as long as the test wants."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.hangs = ""
        self.entered, self.released = Event(), Event()

    @contextmanager
    def hanging(self, method: str) -> Generator[None]:
        """From the next call of this method on; at the end all go on."""
        self.hangs = method
        self.entered.clear()
        self.released.clear()
        try:
            yield
        finally:
            self.hangs = ""
            self.released.set()

    def _pass(self, method: str) -> None:
        if self.hangs == method:
            self.entered.set()
            self.released.wait()

    def put_jobs(self, jobs: Sequence[NewJob], now: int, *, unless: JobFilter | None = None) -> Sequence[JobChange]:
        """As ever, or never."""
        self._pass("put_jobs")
        return super().put_jobs(jobs, now, unless=unless)

    def fire(self, fires: Sequence[Fire], now: int) -> protocol.Fired:
        """As ever, or never."""
        self._pass("fire")
        return super().fire(fires, now)


@pytest.fixture
def storage(tmp_path: Path) -> HangingStorage:
    return HangingStorage(tmp_path / "jobs.db")


async def test_while_a_call_hangs_commands_are_accepted_and_all_else_answers(storage: HangingStorage) -> None:
    scheduler = Scheduler(storage)
    steps: list[str] = []

    @scheduler.task(name="beats")
    async def beats() -> None:
        while True:
            await anyio.sleep(0.01)
            steps.append("beat")

    async with scheduler, anyio.create_task_group() as commands:
        running = await scheduler.enqueue(beats.call())
        kept = await scheduler.enqueue(beats.call())
        await scheduler.add_job(Job("known", beats, Every(3600)))
        await until(lambda: steps, "a running task")
        with storage.hanging("put_jobs"):
            commands.start_soon(scheduler.add_job, Job("first", beats, Every(3600)))
            await until_set(storage.entered)
            commands.start_soon(scheduler.add_job, Job("second", beats, Every(3600)))
            commands.start_soon(running.cancel)

            await until(lambda: scheduler.health().commands == 2, "two accepted commands")
            await until(lambda: pool_of(scheduler) == 1, "the end of the cancelled task")
            assert scheduler.find_job("known") is not None
            assert scheduler.find_job("first") is None
            assert not (await kept.fetch()).finished, "reads do not wait for the writer"
            steps.clear()
            await until(lambda: len(steps) > 2, "a task that goes on")

        await until(lambda: scheduler.find_job("first") and scheduler.find_job("second"), "both jobs")
        with pytest.raises(ExecutionFailed, match="cancelled"):
            await running.result()
        await kept.cancel()


async def test_a_command_waits_no_longer_than_its_deadline(storage: HangingStorage) -> None:
    fired = Fired()
    scheduler = Scheduler(storage, stages=Stages(command_deadline=0.1))
    scheduler.task(name="note")(fired.note)

    async with scheduler:
        with storage.hanging("put_jobs"):
            with pytest.raises(StoreBusy, match=r"not known yet|not done within"):
                await scheduler.add_job(Job("late", "note", Every(0.05)))
            with pytest.raises(StoreBusy):
                await scheduler.add_job(Job("never", "note", Every(0.05)))

        # It had begun, so it is done; and this process comes to know of it.
        await fired.wait_for("late")
        assert scheduler.find_job("never") is None


async def test_a_thread_that_hangs_is_left_to_itself_and_cannot_commit_any_more(storage: HangingStorage) -> None:
    fired = Fired()
    scheduler = Scheduler(storage, stages=Stages(call_deadline=0.3))
    scheduler.task(name="note")(fired.note)
    happenings = Happenings(scheduler)

    async with scheduler:
        await scheduler.add_job(Job("steady", "note", Every(0.05), misfire=Misfire(take="all"), overlap="allow"))
        await fired.wait_for("steady")
        with storage.hanging("fire"):
            await until_set(storage.entered)
            storage.hangs = ""
            await happenings.wait_for(StoreDegraded)
            # Until it comes back it holds the lock of the file; nothing else can be written.
            await until(lambda: abandoned_of(scheduler), "an abandoned thread")
        await happenings.wait_for(StoreRecovered)
        await fired.wait_for("steady", 20)
        await until(lambda: not abandoned_of(scheduler), "the end of the abandoned thread")
        assert restarts(scheduler.health()) == 0

    assert_unbroken(fired.times["steady"], 50_000)
    assert violations_of_law_1(Path(storage.path), ["steady"]) == []


def pool_of(scheduler: Scheduler) -> int:
    """How many tasks run."""
    pool = scheduler.health().pool
    assert pool is not None
    return pool.running


def abandoned_of(scheduler: Scheduler) -> int:
    """How many threads of the store were given up on."""
    store = scheduler.health().store
    assert store is not None
    return store.abandoned
