"""A store that fails for a while degrades the scheduler; then it catches up, no nominal time is lost or fired twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from clepsydra import (
    Every,
    Job,
    JobRecord,
    Misfire,
    Node,
    Scheduler,
    SQLiteStorage,
    Stages,
    StoreUnavailable,
    SystemClock,
)
from clepsydra.model.events import StoreDegraded, StoreRecovered
from clepsydra.model.instants import SECOND
from clepsydra.storage.protocol import TaskRow

from .hosts import PATIENCE, Fired, Happenings, assert_unbroken, restarts, until
from .inquest import violations_of_law_1

pytestmark = pytest.mark.anyio

TENTH = SECOND // 10


@contextmanager
def locked(database: Path) -> Generator[None]:
    """Another program has the file for itself."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


class MuteStorage(SQLiteStorage):
    """A store that does not take signs of life while it is mute."""

    mute = False

    def heartbeat_node(self, node_id: str, now: int) -> Sequence[Node]:
        """As ever, or an outage."""
        if self.mute:
            raise StoreUnavailable("nobody can be heard just now")
        return super().heartbeat_node(node_id, now)


async def test_a_node_that_has_lost_its_lease_starts_nothing_until_it_has_it_again(tmp_path: Path) -> None:
    storage, fired = MuteStorage(tmp_path / "jobs.db"), Fired()
    scheduler = Scheduler(storage, stages=Stages(lease=0.3, heartbeat=0.1))
    scheduler.task(name="note")(fired.note)

    async with scheduler:
        await scheduler.add_job(Job("all", "note", Every(0.05), misfire=Misfire(take="all"), overlap="allow"))
        await fired.wait_for("all")
        storage.mute = True
        await until(lambda: any("lease" in reason for reason in scheduler.health().reasons), "a lost lease")
        storage.mute = False
        await until(lambda: scheduler.health().ok, "the lease, again")
        await fired.wait_for("all", 20)

    assert_unbroken(fired.times["all"], TENTH // 2)


class LateStorage(SQLiteStorage):
    """A store of which one call fails for the first seconds of its life."""

    def __init__(self, path: Path, call: str) -> None:
        super().__init__(path)
        self.call = call
        self.mended_at = SystemClock().monotonic() + PATIENCE

    def _pass(self, call: str) -> None:
        if call == self.call and SystemClock().monotonic() < self.mended_at:
            raise StoreUnavailable("it is not there yet")

    def open(self, node: Node, now: int) -> None:
        """As ever, in the end."""
        self._pass("open")
        super().open(node, now)

    def put_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """As ever, in the end."""
        self._pass("put_tasks")
        super().put_tasks(tasks)

    def load_jobs(self) -> Sequence[JobRecord] | None:
        """As ever, in the end."""
        self._pass("load_jobs")
        return super().load_jobs()


@pytest.mark.parametrize("call", ["open", "put_tasks", "load_jobs"])
async def test_a_host_that_is_cancelled_while_it_waits_for_its_store_ends_at_once(tmp_path: Path, call: str) -> None:
    storage = LateStorage(tmp_path / "jobs.db", call)
    scheduler = Scheduler(storage)
    happenings = Happenings(scheduler)

    async with anyio.create_task_group() as host:
        host.start_soon(scheduler.run)
        await happenings.wait_for(StoreDegraded)
        host.cancel_scope.cancel()

    assert SystemClock().monotonic() < storage.mended_at
    assert scheduler.health().status == "stopped"
    storage.mended_at = 0
    async with scheduler:
        assert scheduler.health().ok


async def test_a_locked_file_degrades_the_scheduler_which_then_catches_up(tmp_path: Path, long_run: bool) -> None:
    outage = (20 if long_run else 2) * SECOND
    database, clock, fired = tmp_path / "jobs.db", SystemClock(), Fired()
    scheduler = Scheduler(SQLiteStorage(database, busy_timeout=0.05), stages=Stages(lease=0.9, heartbeat=0.3))
    scheduler.task(name="note")(fired.note)
    happenings = Happenings(scheduler)

    async with scheduler:
        await scheduler.add_job(Job("all", "note", Every(0.1), misfire=Misfire(take="all"), overlap="allow"))
        await scheduler.add_job(Job("latest", "note", Every(0.1)))
        await fired.wait_for("all")
        with locked(database):
            began = clock.now()
            await happenings.wait_for(StoreDegraded)
            await until(lambda: not scheduler.health().ok, "a degraded scheduler")
            await until(lambda: clock.now() > began + outage, "the end of the outage")
            assert scheduler.find_job("all") is not None
        await happenings.wait_for(StoreRecovered)
        await until(lambda: scheduler.health().ok, "a healthy scheduler")
        await until(lambda: max(fired.times["all"]) > clock.now() - 3 * TENTH, "the present")
        await until(lambda: max(fired.times["latest"]) > clock.now() - 3 * TENTH, "the present")
        assert restarts(scheduler.health()) == 0

    assert_unbroken(fired.times["all"], TENTH)
    latest = fired.times["latest"]
    assert len(latest) == len(set(latest)) < len(fired.times["all"])
    assert violations_of_law_1(database, ["all", "latest"]) == []
