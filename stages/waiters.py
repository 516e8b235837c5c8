"""Who waits in this process for an execution to end. A hint only: whoever is woken looks into the store."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import anyio


class Waiters:
    """Events by execution id, as many as there are callers waiting. Used on the event loop only."""

    def __init__(self) -> None:
        self._events: dict[str, list[anyio.Event]] = {}

    @contextmanager
    def waiting_for(self, execution_id: str) -> Generator[anyio.Event]:
        """An event that is set when the execution may have ended. Made before the store is asked, so no end is
        missed.
        """
        event = anyio.Event()
        self._events.setdefault(execution_id, []).append(event)
        try:
            yield event
        finally:
            events = self._events.get(execution_id, [])
            if event in events:
                events.remove(event)
            if not events:
                self._events.pop(execution_id, None)

    def notify(self, execution_ids: Iterable[str]) -> None:
        """These have ended, or may have."""
        if not self._events:
            return
        for execution_id in execution_ids:
            for event in self._events.pop(execution_id, ()):
                event.set()

    def notify_all(self) -> None:
        """Anything may have happened."""
        self.notify(list(self._events))
