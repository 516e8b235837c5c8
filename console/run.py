"""`clepsydra run module:scheduler`: a scheduler as a service.

On a terminal it has a live screen (`live.py`). Elsewhere, and on request, each run is a plain line or one of JSON on
standard output, and what the library itself has to say goes to standard error.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import anyio

from .. import Scheduler
from .announcing import draining, greeting, reloaded
from .errors import UsageError
from .journal import Entry, Journal, as_json, json_line, plain
from .output import NOBODY_READS, Output
from .service import Service
from .target import is_file, load_scheduler
from .words import length, stamp


def run(arguments: argparse.Namespace) -> int:
    """Run a scheduler until a signal ends it."""
    scheduler = load_scheduler(arguments.target)
    reloads = is_file(arguments.target)
    if not (arguments.plain or arguments.json) and screen_is_possible():
        from .live_service import serve_live  # it needs a terminal, and an extra

        return in_event_loop(serve_live, scheduler, arguments.log_level, reloads, backend=arguments.backend)
    configure_logging(arguments.log_level)
    return in_event_loop(_serve, scheduler, arguments.quiet, arguments.json, reloads, backend=arguments.backend)


def screen_is_possible() -> bool:
    """Whether there is a terminal for the live screen, and what draws it."""
    if sys.platform == "win32" or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    if find_spec("rich") is None:
        print("the live screen needs rich: pip install 'clepsydra[console]'; these are plain lines", file=sys.stderr)
        return False
    return True


def configure_logging(level: str) -> None:
    """The log to standard error, in the form of the other lines; unless the user's module has set logging up itself."""
    form = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    logging.basicConfig(level=level.upper(), handlers=[handler])


def in_event_loop(function: Callable[..., Coroutine[Any, Any, int]], *arguments: object, backend: str) -> int:
    """Run an async function of the command line. Raises `UsageError` when the backend is not installed."""
    if find_spec(backend) is None:
        raise UsageError(f"{backend} is not installed here: pip install 'clepsydra[{backend}]'")
    return anyio.run(function, *arguments, backend=backend)


async def _serve(scheduler: Scheduler, quiet: bool, json: bool, reloads: bool) -> int:
    output = Output(sys.stdout)
    clock = scheduler.clock
    shown = as_json if json else plain

    def say(text: str) -> None:
        at = stamp(clock.now())
        output.line(json_line({"time": at, "note": text}) if json else f"{at} {text}")

    def write(entry: Entry) -> None:
        if entry.is_bad or not quiet:
            output.line(shown(entry))

    async def on_start() -> None:
        for line in greeting(scheduler):
            say(line)

    async def on_hangup() -> None:
        say(await reloaded(scheduler))

    journal, began = Journal(write), clock.now()
    service = Service(
        scheduler,
        on_start=on_start,
        on_hangup=on_hangup if reloads else None,
        on_drain=lambda why: say(draining(scheduler, why)),
    )
    output.on_broken = lambda: service.ask_to_stop("nobody reads the output")
    detach = scheduler.attach(journal.hear)
    try:
        code = await service.run()
    finally:
        detach()
        say(f"ended: {journal.summary()} in {length(clock.now() - began)}")
    return NOBODY_READS if output.broken else code
