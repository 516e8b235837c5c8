"""kill -9 at any instant: after a restart no nominal time is lost or has two executions, all work is accounted for."""

from __future__ import annotations

import time
from random import Random

import pytest

from .scene import JOBS, Scene

CALLS = ("fire", "start", "finish", "add_executions", "put_jobs", "rescue")
SHORT_ON_SERVERS = ("finish",)
"""The rules are the same on both databases: every day these on a server, too, and all with --long."""


def live(scene: Scene, random: Random) -> None:
    """Until the instant of a death. On a server a life is sometimes long enough to take others for dead."""
    most = 0.9 if scene.on_file else random.choice((0.9, 0.9, 3))
    time.sleep(random.uniform(0, most))


def test_killed_at_any_instant_it_loses_nothing_and_repeats_nothing(
    scene: Scene, random: Random, long_run: bool
) -> None:
    worker = scene.start("--restless")
    for job in JOBS:
        scene.wait_for(worker, "begun", job=job)
    scene.kill(worker)
    for _ in range(300 if long_run else 7 if scene.on_file else 3):
        worker = scene.start("--restless")
        live(scene, random)
        scene.kill(worker)
        scene.audit_recent(10)
    scene.settle()

    scene.audit()


@pytest.mark.parametrize(
    ("place", "call"),
    [
        *(("sqlite", call) for call in CALLS),
        *(("postgres", call) for call in SHORT_ON_SERVERS),
        *(pytest.param("postgres", call, marks=pytest.mark.long) for call in CALLS if call not in SHORT_ON_SERVERS),
    ],
    indirect=["place"],
)
def test_killed_around_a_transaction_it_loses_nothing_and_repeats_nothing(scene: Scene, call: str) -> None:
    first = scene.start()
    scene.wait_for(first, "begun", job="skip")
    scene.kill(first)
    for instant in ("inside", "committed"):
        victim = scene.start("--die-in", f"{call}:{instant}:{1 if call in ('put_jobs', 'rescue') else 4}")
        scene.await_death(victim)
        scene.audit_recent(10)
    scene.settle()

    scene.audit()


def test_two_processes_on_one_store_share_the_work_and_either_may_be_killed(
    scene: Scene, random: Random, long_run: bool
) -> None:
    workers = [scene.start("--restless"), scene.start("--restless")]
    for _ in range(150 if long_run else 5 if scene.on_file else 3):
        for worker in workers:
            scene.wait_for(worker, "entered")
        live(scene, random)
        victim = workers.pop(random.randrange(2))
        scene.kill(victim)
        scene.audit_recent(10)
        workers.append(scene.start("--restless"))
    for worker in workers:
        scene.processes.stop(worker)
    scene.settle()

    scene.audit()
