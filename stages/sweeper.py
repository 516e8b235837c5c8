"""The sweeper: deletes history that is older than the retention allows, a bounded batch at a time."""

from __future__ import annotations

import logging

from ..model.clock import Clock
from ..model.instants import Micros
from ..storage.lane import StorageLane
from .channel import Channel

log = logging.getLogger("clepsydra.sweeper")


class Sweeper:
    """Keeps the store within its retention.

    Receives  nothing but the time
    """

    def __init__(
        self, inbox: Channel[object], lane: StorageLane, clock: Clock, *, retention: Micros, interval: float, batch: int
    ) -> None:
        self._inbox, self._lane, self._clock = inbox, lane, clock
        self._retention, self._interval, self._batch = retention, interval, batch

    async def run(self) -> None:
        """Sweep, rest, and sweep again until cancelled."""
        with self._inbox.attended():
            while True:
                more = await self._sweep()
                # A full batch means that there is more: others get their turn at the store, then it goes on.
                await self._inbox.receive(0 if more else self._interval)

    async def _sweep(self) -> bool:
        before = self._clock.now() - self._retention
        deleted = await self._lane.write(lambda store: store.delete_history(before, self._batch))
        if deleted.total:
            log.debug("deleted %d executions, %d ranges, %d jobs", deleted.executions, deleted.ranges, deleted.jobs)
        return deleted.total >= self._batch
