"""kill -9 at any instant: after a restart no nominal time is lost or has two executions, all work is accounted for."""

from __future__ import annotations

import time
from random import Random

import pytest

from .scene import JOBS, Scene


def test_killed_at_any_instant_it_loses_nothing_and_repeats_nothing(
    scene: Scene, random: Random, long_run: bool
) -> None:
    for _ in range(300 if long_run else 8):
        worker = scene.start("--restless")
        time.sleep(random.uniform(0, 0.9))  # not a wait: this is the instant
        scene.kill(worker)
        scene.audit_recent(10)
    scene.settle()

    inquest = scene.audit()
    assert {line.get("job") for line in inquest.lines} >= set(JOBS)


@pytest.mark.parametrize("call", ["fire", "start", "finish", "add_executions", "put_jobs", "rescue"])
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


def test_two_processes_on_one_file_share_the_work_and_either_may_be_killed(
    scene: Scene, random: Random, long_run: bool
) -> None:
    workers = [scene.start("--restless"), scene.start("--restless")]
    for _ in range(150 if long_run else 5):
        for worker in workers:
            scene.wait_for(worker, "entered")
        time.sleep(random.uniform(0, 0.6))  # not a wait: this is the instant
        victim = workers.pop(random.randrange(2))
        scene.kill(victim)
        scene.audit_recent(10)
        workers.append(scene.start("--restless"))
    for worker in workers:
        scene.processes.stop(worker)
    scene.settle()

    scene.audit()
