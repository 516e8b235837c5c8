"""A PostgreSQL server in trouble under processes at work: they say so, go on, and take up the work by themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from random import Random

import pytest

from clepsydra import State

from ..postgres import NoServer
from .hosts import assert_unbroken
from .places import Place, ServerPlace
from .processes import Program
from .scene import JOBS, Scene
from .servers import Server, server

STEADY = 50_000
"""The interval of the job `allow`, of which no time may be left out."""
_numbers = count()


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server that nobody else uses."""
    try:
        with server() as started:
            yield started
    except NoServer as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def place(own: Server) -> Place:
    """A schema on it."""
    return ServerPlace(own.dsn, f"test_{next(_numbers)}")


@pytest.fixture
def workers(scene: Scene) -> list[Program]:
    """Two at work, of whom neither may take the other for dead when both do not reach the server."""
    workers = [
        scene.start("--backend", backend, "--lease", "15", "--timeout", "2", jobs=(*JOBS, "bulky"))
        for backend in ("asyncio", "trio")
    ]
    for worker in workers:
        scene.wait_for(worker, "begun", job="allow")
    return workers


def test_through_every_trouble_of_the_server_no_time_is_lost_or_fired_twice(
    scene: Scene, own: Server, workers: list[Program], random: Random, long_run: bool
) -> None:
    troubles = [own.stopped, own.killed, own.frozen, own.full]
    for _ in range(5 if long_run else 1):
        random.shuffle(troubles)
        for trouble in troubles:
            suffer(scene, workers, trouble, seconds=5 if long_run else 1)
    for worker in workers:
        scene.processes.stop(worker)
    scene.settle()

    assert_nothing_was_missed_or_rescued(scene)


def assert_nothing_was_missed_or_rescued(scene: Scene) -> None:
    """Every time of a steady job was run; and nobody was taken for dead."""
    inquest = scene.audit()
    begun = {line["nominal"] for line in inquest.lines if line["what"] == "begun" and line["job"] == "allow"}
    assert_unbroken(begun, STEADY)
    assert {row.recoveries for row in inquest.rows.values()} == {0}


def suffer(
    scene: Scene, workers: list[Program], trouble: Callable[[], AbstractContextManager[None]], *, seconds: float
) -> None:
    """Each host goes on and says that it is degraded, and afterwards that all is well; then it is at work again."""
    began = time.time_ns()
    with trouble():
        for worker in workers:
            scene.wait_for_next(worker, "degraded", began)
        scene.processes.wait_for(lambda: time.time_ns() - began > seconds * 1e9, "the end of the trouble")
    ended = time.time_ns()
    for worker in workers:
        # It may have been well again before the end: a server on a full disk takes a write now and then.
        scene.processes.wait_for(partial(is_well, scene, worker), "the end of its outage")
        scene.wait_for_next(worker, "begun", ended, job="allow")


def is_well(scene: Scene, worker: Program) -> bool:
    """Whether that is what it has said of its health last."""
    said = [line["what"] for line in scene.effects.of(worker.name) if line["what"] in ("degraded", "ok")]
    return said[-1:] == ["ok"]


def test_connections_that_are_cut_are_replaced_and_what_they_did_is_done_once(
    scene: Scene, own: Server, workers: list[Program], long_run: bool
) -> None:
    for _ in range(100 if long_run else 4):
        own.cut_connections()
        cut_at = time.time_ns()
        for worker in workers:
            scene.wait_for_next(worker, "begun", cut_at)
    for worker in workers:
        scene.processes.stop(worker)
    scene.settle()

    assert_nothing_was_missed_or_rescued(scene)


def test_while_the_server_is_silent_only_what_must_not_run_without_a_lease_is_stopped(
    scene: Scene, own: Server
) -> None:
    worker = scene.start("--run", "until", "strict", jobs=("until", "strict"))
    for job in ("until", "strict"):
        scene.wait_for(worker, "begun", job=job)

    with own.stopped():
        scene.wait_for(worker, "failed", job="strict")
    scene.release()
    scene.wait_for(worker, "ended", job="until")
    scene.processes.stop(worker)
    scene.settle()

    states = {row.job_name: row.state for row in scene.audit().rows.values()}
    assert states == {"until": State.SUCCEEDED, "strict": State.CANCELLED}
    assert not scene.says(worker, "refused")
