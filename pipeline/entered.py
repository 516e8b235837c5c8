"""What every part of the face stands on: the scheduler's own things, and the run of it that is entered now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint

from ..model.clock import Clock
from ..model.errors import NotInExecution, SchedulerNotRunning
from ..model.ids import IdMaker
from ..model.strategies import RunStrategy
from ..model.task import Task
from ..stages.running import current_execution
from ..storage.lane import Companion
from ..storage.protocol import Storage
from .registry import Registry
from .runtime import Runtime
from .settings import Stages
from .telemetry import Telemetry

R = TypeVar("R")
T = TypeVar("T")

BATCH = 64
"""Of what is done one after another on the loop (law 6)."""
LONGEST_PAGE = 1000


class Entered:
    """A scheduler while it runs: the store behind its lane, its clock, its chain."""

    storage: Storage
    clock: Clock
    telemetry: Telemetry
    _stages: Stages
    _strategies: Mapping[str, RunStrategy]
    _registry: Registry
    _make_id: IdMaker
    _runtime: Runtime | None

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The registered tasks, by name and alias."""
        return dict(self._registry.tasks)

    def _running(self) -> Runtime:
        runtime = self._runtime
        if runtime is None or runtime.ended.is_set():
            if runtime is not None and runtime.failure is not None:
                raise runtime.failure
            raise SchedulerNotRunning("the scheduler is not running; enter it first: `async with scheduler:`")
        return runtime

    def _accepting(self) -> Runtime:
        """Running, and not draining, but for the tasks that still run: those may add work."""
        runtime = self._running()
        if runtime.draining and not _in_a_task():
            raise SchedulerNotRunning("the scheduler is draining; it takes no new work")
        return runtime

    def _deadline(self) -> float:
        return self.clock.monotonic() + self._stages.command_deadline.total_seconds()

    async def _read(self, call: Callable[[Storage], R]) -> R:
        deadline = self._stages.command_deadline.total_seconds()
        return await self._running().lane.read(call, deadline=deadline, counted=False)

    async def _write(self, call: Callable[[Storage], R], bring: Callable[[], Companion | None] | None = None) -> R:
        deadline = self._stages.command_deadline.total_seconds()
        return await self._running().lane.write(call, deadline=deadline, command=True, counted=False, bring=bring)


async def in_turns(items: Iterable[T]) -> list[T]:
    """All of them, made one by one, and others have their turn after each 64 (law 6)."""
    taken: list[T] = []
    for item in items:
        taken.append(item)
        if len(taken) % BATCH == 0:
            await checkpoint()
    return taken


def _in_a_task() -> bool:
    try:
        current_execution()
    except NotInExecution:
        return False
    return True
