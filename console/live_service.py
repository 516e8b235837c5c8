"""`clepsydra run` on a terminal: the service with its live screen, and what was said meanwhile when that is gone."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from .. import Scheduler, SQLiteStorage
from .announcing import draining, greeting, reloaded, store_of
from .live import Live, SayingHandler
from .service import Service
from .words import length, stamp

_LAST_WORDS: Final = 10


async def serve_live(scheduler: Scheduler, log_level: str, reloads: bool) -> int:
    """Run it under the live screen. The exit code."""
    clock, began = scheduler.clock, scheduler.clock.now()

    def stop(why: str) -> None:
        service.ask_to_stop(why)

    live = Live(scheduler, _place_of(scheduler), stop, lambda: service.insist(signal.SIGINT))

    async def on_start() -> None:
        for line in greeting(scheduler):
            if not line.startswith(("started", "job ", "and ")):  # the screen has those
                live.say(line)

    async def on_hangup() -> None:
        live.say(await reloaded(scheduler))

    service = Service(
        scheduler,
        beside=live.run,
        on_start=on_start,
        on_hangup=on_hangup if reloads else None,
        on_drain=lambda why: live.drain(draining(scheduler, why)),
    )
    detach = scheduler.attach(live.journal.hear)
    try:
        with _heard(live.say, log_level):
            code = await service.run()
    finally:
        detach()
        for line in live.last_words(_LAST_WORDS):
            print(line)
        print(f"{stamp(clock.now())} ended: {live.journal.summary()} in {length(clock.now() - began)}")
    return code


def _place_of(scheduler: Scheduler) -> str:
    """Its store, in few words."""
    storage = scheduler.storage
    return f"SQLite {os.path.basename(storage.path)}" if isinstance(storage, SQLiteStorage) else store_of(scheduler)


@contextmanager
def _heard(say: Callable[[str], None], log_level: str) -> Generator[None]:
    """What would be written over the screen is shown on it: the log, and what code prints."""
    handler = SayingHandler(say)
    logging.basicConfig(level=log_level.upper(), handlers=[handler])
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = _Listener(say)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr
        logging.getLogger().removeHandler(handler)


class _Listener(io.TextIOBase):
    """A stream whose lines are said."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)
