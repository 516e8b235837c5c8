"""Callers who enqueue in a transaction of their own: in their thread, on their connection.

The store works on the connection; whether the work exists is then up to the caller, who commits or does not. The chain,
if it runs here, is told at once that there may be work soon, and looks for it until the transaction has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from ..model.clock import Clock
from ..model.ids import IdMaker
from ..storage.joining import in_thread, joining
from ..storage.protocol import AddResult, NewExecution


class Callers:
    """Used from any thread, whether or not the scheduler runs."""

    def __init__(self, storage: object, clock: Clock, promise: Callable[[str], object]) -> None:
        self._storage, self._clock, self._promise = storage, clock, promise
        self._ids = IdMaker(clock.now)
        self._guard = threading.Lock()

    def make_id(self) -> str:
        """An id, for any thread."""
        with self._guard:
            return self._ids()

    def add(self, connection: object, items: Sequence[NewExecution]) -> Sequence[AddResult]:
        """Add the executions in the connection's transaction."""
        joined = joining(self._storage).on_connection(connection)
        results = joined.add_executions(items, self._clock.now())
        if results:
            self._promise(joined.mark())
        return results

    async def add_awaited(self, connection: object, items: Sequence[NewExecution]) -> Sequence[AddResult]:
        """The same, on a connection whose methods are awaited."""
        return await in_thread(partial(self.add, connection, items))
