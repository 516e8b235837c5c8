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
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from importlib.util import find_spec
from typing import Any

import anyio

from .. import ClepsydraError, JobRecord, JobState, Scheduler
from .errors import UsageError
from .journal import Entry, Journal, as_json, json_line, plain
from .output import NOBODY_READS, Output
from .service import Service
from .target import is_file, load_scheduler
from .words import length, plural, stamp, utc

_MOST_NAMED = 20  # jobs that are listed at the start


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


async def reloaded(scheduler: Scheduler) -> str:
    """Read its file again, and say what came of it. A file that cannot be used leaves everything as it was."""
    try:
        needs_restart = await scheduler.reload()
    except ClepsydraError as error:
        return f"not reloaded, everything stays as it was: {error}"
    after = f"; only after a restart: {', '.join(needs_restart)}" if needs_restart else ""
    return f"reloaded: {plural(len(scheduler.declared_jobs), 'job')} declared{after}"


def greeting(scheduler: Scheduler) -> Iterator[str]:
    """What has been started: node, store, jobs with their next times, and what does not look right."""
    jobs = scheduler.jobs
    yield f"started: node {scheduler.name}, {store_of(scheduler)}, {plural(len(jobs), 'job')}"
    for record in jobs[:_MOST_NAMED]:
        yield f"job {record.name}: {_prospect(record, scheduler.next_run(record.name))}"
    if len(jobs) > _MOST_NAMED:
        yield f"and {plural(len(jobs) - _MOST_NAMED, 'more job')}"
    health = scheduler.health()
    if health.undeclared_jobs:
        yield f"declared by earlier code and not by this, so not fired: {', '.join(health.undeclared_jobs)}"
    if health.unknown_tasks:
        yield f"tasks that jobs name and this code does not have: {', '.join(health.unknown_tasks)}"


def store_of(scheduler: Scheduler) -> str:
    kind = type(scheduler.storage)
    return kind.__name__ if kind.__repr__ is object.__repr__ else repr(scheduler.storage)


def _prospect(record: JobRecord, next_run: datetime | None) -> str:
    if record.state is not JobState.ACTIVE:
        return f"{record.state.value}, {record.reason}" if record.reason else record.state.value
    if next_run is not None:
        return f"next {utc(next_run)}"
    return record.schedule.describe() if record.schedule else "runs when it is called"


def draining(scheduler: Scheduler, why: str) -> str:
    """What is waited for."""
    pool = scheduler.health().pool
    running = 0 if pool is None else pool.running
    waited = f"waiting for {plural(running, 'run')}; once more cancels them" if running else "nothing is running"
    return f"{why}: draining, {waited}"
