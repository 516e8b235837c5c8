"""Processes on one store: from the first second they share jobs and work, and a frozen one does no harm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from clepsydra import Every, Job, JobRecord, Scheduler, SQLiteStorage, State
from clepsydra.storage.protocol import Storage

from .scene import Scene


def test_two_that_make_the_store_at_once_fire_each_time_once(scene: Scene) -> None:
    workers = [scene.start("--backend", backend) for backend in ("asyncio", "trio")]
    for worker in workers:
        for job in ("allow", "skip"):
            scene.wait_for(worker, "begun", job=job)
    for worker in workers:
        scene.processes.stop(worker)
    scene.settle()

    inquest = scene.audit()
    assert {line["process"] for line in inquest.lines} >= {worker.name for worker in workers}


def test_a_job_that_is_added_in_one_is_seen_and_fired_by_the_other(scene: Scene) -> None:
    worker = scene.start(jobs=())
    scene.wait_for(worker, "entered")

    anyio.run(add_and_leave, scene.place.storage())

    scene.wait_for(worker, "begun", job="added")
    scene.processes.stop(worker)


async def add_and_leave(storage: Storage) -> None:
    """The other process: it is gone before the job is due."""
    scheduler = Scheduler(storage)

    @scheduler.task(name="quick")
    async def quick() -> None:
        """What the worker calls by this name."""

    async with scheduler:
        await scheduler.add_job(Job("added", quick, Every(0.3)))


class SlowStorage(SQLiteStorage):
    """A store that takes its time to say which jobs it has."""

    def load_jobs(self) -> Sequence[JobRecord] | None:
        """As ever, later."""
        time.sleep(0.2)
        return super().load_jobs()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_stored_jobs_are_known_as_soon_as_a_scheduler_is_entered(tmp_path: Path, backend: str) -> None:
    database = tmp_path / "jobs.db"
    anyio.run(add_and_leave, SQLiteStorage(database), backend=backend)

    async def enter_and_look() -> None:
        async with Scheduler(SlowStorage(database)) as scheduler:
            assert scheduler.find_job("added") is not None

    anyio.run(enter_and_look, backend=backend)


def test_a_process_frozen_past_its_lease_is_taken_for_dead_stops_what_it_ran_and_is_refused(scene: Scene) -> None:
    timeout = ("--timeout", "3")  # so long may a frozen process hold what it has locked on a server
    zombie = scene.start(*timeout, "--run", "until", jobs=("until", "all"))
    scene.wait_for(zombie, "begun", job="until")
    other = scene.start(*timeout, jobs=("until",))
    scene.wait_for(other, "entered")

    scene.freeze(zombie)
    scene.wait_for(other, "begun", job="until")
    before = len(scene.effects.of(zombie.name))
    zombie.thaw()
    scene.wait_for(zombie, "failed", job="until")
    scene.wait_for(zombie, "refused", job="until")
    scene.release()
    scene.wait_for(other, "ended", job="until")
    scene.processes.wait_for(
        lambda: any(line.get("job") == "all" for line in scene.effects.of(zombie.name)[before:]),
        "the zombie, at work again",
    )
    for worker in (zombie, other):
        scene.processes.stop(worker)
    scene.settle()

    inquest = scene.audit_without_overlaps()
    (row,) = [row for row in inquest.rows.values() if row.job_name == "until"]
    (by_other,) = [line for line in scene.effects.of(other.name) if line["what"] == "begun" and line["job"] == "until"]
    assert (row.state, row.recoveries) == (State.SUCCEEDED, 1)
    assert row.attempt_id == by_other["lease"]
    assert "was not this node's any more" in zombie.errors.read_text()
