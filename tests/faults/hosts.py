"""What the tests share whose scheduler runs in the test's own process: facts to wait for, events, effects."""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import Event

import anyio
import anyio.to_thread

from clepsydra import Health, Scheduler, current_execution
from clepsydra.model.events import TelemetryEvent
from clepsydra.pipeline.supervisor import Branch

PATIENCE = 10.0
"""Seconds after which what a test waits for is taken to never come."""
LOOK = 0.01


async def until(fact: Callable[[], object], what: str) -> None:
    """Wait until the fact is true."""
    with anyio.move_on_after(PATIENCE):
        while not fact():  # noqa: ASYNC110 - the facts of another thread or of the store set no event
            await anyio.sleep(LOOK)
        return
    raise AssertionError(f"within {PATIENCE:g} s there was no sign of: {what}")


async def until_set(event: Event) -> None:
    """Wait until another thread has set it."""
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE)


class Happenings:
    """The telemetry of a scheduler, from now on."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.events: list[TelemetryEvent] = []
        scheduler.attach(self.events.append)

    def of(self, kind: type[TelemetryEvent]) -> list[TelemetryEvent]:
        """Those of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, kind: type[TelemetryEvent]) -> None:
        """Until there is one."""
        await until(lambda: self.of(kind), kind.__name__)


class Fired:
    """Which nominal times have run, by job."""

    def __init__(self) -> None:
        self.times: dict[str, list[int]] = {}

    async def note(self) -> None:
        """A task."""
        claim = current_execution().claim
        assert claim.job_name is not None
        assert claim.nominal is not None
        self.times.setdefault(claim.job_name, []).append(claim.nominal)

    def count(self, job: str) -> int:
        """How often a job has run."""
        return len(self.times.get(job, ()))

    async def wait_for(self, job: str, more: int = 1) -> None:
        """Until it has run so many times more."""
        before = self.count(job)
        await until(lambda: self.count(job) >= before + more, f"{more} runs of {job}")


def assert_unbroken(times: Collection[int], interval: int) -> None:
    """Each nominal time once, with none left out."""
    assert sorted(times) == list(range(min(times), max(times) + 1, interval))


def restarts(health: Health) -> int:
    """How often any part of a scheduler was restarted."""
    assert health.stages is not None
    return _restarts(health.stages)


def _restarts(branch: Branch) -> int:
    return branch.restarts + sum(map(_restarts, branch.children))
