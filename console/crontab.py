"""`clepsydra crontab FILE`: what a crontab says, run by the scheduler, in the place of cron and of a container's init.

A job is a line of the file. What the lines mean is in `crontab_lines.py`, what they come to on this machine in
`crontab_files.py`, how a command runs in `errands.py`, and how processes are reaped in `children.py`. Here is what
holds them together: the check, the service, and what happens when a file changes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint
from attrs import evolve

from .. import (
    ClepsydraError,
    Clock,
    Cron,
    ExecutorSettings,
    InvalidArgument,
    Misfire,
    Overlap,
    Reboot,
    ScheduleError,
    Scheduler,
    Stages,
    Storage,
    SystemClock,
    Task,
    to_datetime,
)
from .announcing import draining, greeting
from .check import all_findings, overview
from .children import Children, adopt_orphans
from .crontab_files import TASK, Loaded, Stamp, Wanted, load, stamp_of
from .errands import CommandFailed, Errands, Spoken
from .errors import OK, PROBLEM, CommandError, UsageError
from .journal import Entry, Journal, as_json, json_line, plain
from .output import NOBODY_READS, Output
from .run import configure_logging, in_event_loop
from .service import Service
from .stores import VARIABLE, store_at
from .words import Paint, length, plural, stamp, value

_SLACK: Final = 10.0  # seconds for a killed process to be gone, and for what became of it to be written down
_FAILED: Final = f"{CommandFailed.__module__}.{CommandFailed.__qualname__}: "


def crontab(arguments: argparse.Namespace) -> int:
    """Check crontabs, or run them until a signal ends it."""
    wanted = Wanted(
        files=tuple(Path(path).absolute() for path in arguments.files),
        system=arguments.system,
        tz=_zone(arguments.tz or local_zone()),
        clean=arguments.clean_env,
        overlap=Overlap.ALLOW if arguments.overlap else Overlap.SKIP,
        timeout=None if arguments.timeout is None else timedelta(seconds=arguments.timeout),
        misfire=Misfire(arguments.misfire),
    )
    if arguments.check:
        return check_files(wanted, Paint(sys.stdout))
    configure_logging(arguments.log_level)
    return in_event_loop(_serve, wanted, arguments, backend=arguments.backend)


def local_zone(environment: Mapping[str, str] = os.environ, localtime: Path = Path("/etc/localtime")) -> str:
    """The name of this machine's zone; UTC where it has none."""
    if named := environment.get("TZ", "").removeprefix(":"):
        return named
    try:
        _, found, name = str(localtime.resolve(strict=True)).partition("/zoneinfo/")
        return name if found else (localtime.parent / "timezone").read_text("utf-8").strip()
    except OSError:
        return "UTC"


def _zone(tz: str) -> str:
    try:
        return Cron("* * * * *", tz=tz).tz
    except ScheduleError as error:
        raise UsageError(f"{error}; give one with --tz") from None


def _store(given: str | None) -> Storage:
    url = given or os.environ.get(VARIABLE) or "memory:"
    try:
        return store_at(url)
    except InvalidArgument as error:  # the URL is not repeated: it may hold a password
        raise UsageError(f"{'--store' if given else VARIABLE}: {error.expected}") from error


# --- the check -----------------------------------------------------------------------------------------------------


def check_files(wanted: Wanted, paint: Paint, clock: Clock | None = None) -> int:
    """Print the jobs of crontabs, and what is wrong or to be known about each line."""
    loaded = load(wanted)
    now = to_datetime((clock or SystemClock()).now())
    jobs = list(loaded.jobs.values())
    for line in overview(jobs, now) if jobs else ():
        print(line)
    for complaint in loaded.complaints:
        print(paint("red" if complaint.is_error else "yellow", str(complaint)))
    for finding in all_findings(jobs, now) if jobs else ():
        errand = loaded.errands[finding.job]
        print(f"{errand.where}: {finding.level}: {finding.text}")
    print(f"{plural(len(jobs), 'job')}, {plural(len(loaded.errors), 'error')}")
    return PROBLEM if loaded.errors else OK


# --- the service ---------------------------------------------------------------------------------------------------


class Log:
    """Lines for people, or JSON lines for programs: what jobs write, what became of them, and news of the service."""

    def __init__(self, output: Output, clock: Clock, *, json: bool, quiet: bool) -> None:
        self.output = output
        self._clock, self._json, self._quiet = clock, json, quiet

    def say(self, text: str) -> None:
        """News."""
        now = stamp(self._clock.now())
        self.output.line(json_line({"time": now, "note": text}) if self._json else f"{now} {text}")

    def entry(self, entry: Entry) -> None:
        """What has become of a run."""
        if entry.is_bad or not self._quiet:
            entry = evolve(entry, note=entry.note.removeprefix(_FAILED))
            self.output.line(as_json(entry) if self._json else plain(entry))

    def spoken(self, spoken: Spoken) -> None:
        """What a job has written, in one piece: a job that writes much must not keep others waiting."""
        now = stamp(self._clock.now())
        if self._json:
            facts = {"time": now, "job": spoken.job, "pid": spoken.pid, "stream": spoken.stream}
            lines = [json_line({**facts, "text": text}) for text in spoken.lines]
        else:
            before = f"{now} job={value(spoken.job)} pid={spoken.pid} {spoken.stream}: "
            lines = [before + text for text in spoken.lines]
        self.output.line("\n".join(lines))


async def _serve(wanted: Wanted, arguments: argparse.Namespace) -> int:
    clock = SystemClock()
    log = Log(Output(sys.stdout), clock, json=arguments.json, quiet=arguments.quiet)
    children = Children(clock)
    errands = Errands(children, log.spoken, arguments.kill_after)
    service = Crond(wanted, errands, log, clock, arguments)
    if arguments.reap:
        adopt_orphans()
    code: int | CommandError = OK
    async with anyio.create_task_group() as group:
        errands.group = group
        await group.start(children.watch)
        try:
            code = await service.run()
        except CommandError as error:  # the group would wrap it
            code = error
        finally:
            children.kill_all()
            group.cancel_scope.cancel()
    if isinstance(code, CommandError):
        raise code
    return NOBODY_READS if log.output.broken else code


class Crond:
    """One life of the service."""

    def __init__(self, wanted: Wanted, errands: Errands, log: Log, clock: Clock, arguments: argparse.Namespace) -> None:
        self._wanted, self._errands, self._log = wanted, errands, log
        self._poll: float = arguments.poll
        self._grace: float = arguments.grace
        self._loaded = self._first()
        self._declared = self._loaded.jobs
        self._looked_at: Stamp | None = self._loaded.stamp
        self._ready, self._hangup = anyio.Event(), anyio.Event()
        self.scheduler = Scheduler(
            _store(arguments.store),
            tasks=[Task(errands.run, TASK)],
            jobs=self._loaded.jobs.values(),
            clock=clock,
            stages=Stages(
                grace=self._grace + arguments.kill_after + _SLACK,  # commands are ended before, and tell it
                executor=ExecutorSettings(concurrency=arguments.concurrency),
            ),
        )

    def _first(self) -> Loaded:
        """What is wrong in the first place ends it; later on there is what was before."""
        loaded = load(self._wanted)
        for complaint in loaded.errors:
            print(complaint, file=sys.stderr)
        if loaded.errors:
            raise CommandError(f"{plural(len(loaded.errors), 'error')} in the crontab: nothing is started")
        self._errands.known = loaded.errands
        return loaded

    async def run(self) -> int:
        """Until a signal, or a scheduler that gives up."""
        scheduler, log = self.scheduler, self._log
        journal, began = Journal(log.entry), scheduler.clock.now()
        service = Service(
            scheduler,
            beside=self._beside,
            on_start=self._on_start,
            on_hangup=self._on_hangup,
            on_drain=self._on_drain,
            on_insist=self._errands.hurry,
        )
        log.output.on_broken = lambda: service.ask_to_stop("nobody reads the output")
        detach = scheduler.attach(journal.hear)
        try:
            return await service.run()
        finally:
            detach()
            log.say(f"ended: {journal.summary()} in {length(scheduler.clock.now() - began)}")

    async def _on_start(self) -> None:
        stored = [record.name for record in self.scheduler.jobs if record.job.work.task == TASK]
        try:
            await self._remove(name for name in stored if name not in self._loaded.jobs)
        except ClepsydraError as error:  # nothing fires them, either
            self._log.say(f"lines that are gone could not be removed from the store: {error}")
        self._log.say(f"times are those of {self._wanted.tz}, unless a line of CRON_TZ stands above")
        for line in greeting(self.scheduler):
            self._log.say(line)
        self._tell(self._loaded)
        self._ready.set()

    def _on_drain(self, why: str) -> None:
        self._log.say(draining(self.scheduler, why))
        self._errands.end_after(self._grace, self._log.say)

    # ---- when a file changes

    async def _on_hangup(self) -> None:
        """Not here and now: the next signal must find somebody who listens."""
        self._hangup.set()
        await checkpoint()

    async def _beside(self) -> None:
        await self._ready.wait()
        while True:
            with anyio.move_on_after(self._poll):
                await self._hangup.wait()
            if self._hangup.is_set():
                self._hangup = anyio.Event()
                self._log.say("SIGHUP: the crontab is read again")
            elif await anyio.to_thread.run_sync(self._stamp) != self._looked_at:
                self._log.say("the crontab has changed")
            else:
                continue
            await self._reload()

    def _stamp(self) -> Stamp | None:
        try:
            return stamp_of(self._wanted.files)
        except CommandError:
            return None

    async def _reload(self) -> None:
        """Take over what has changed. What runs goes on; a crontab that cannot be used changes nothing."""
        self._looked_at = await anyio.to_thread.run_sync(self._stamp)
        try:
            loaded = await anyio.to_thread.run_sync(load, self._wanted)
        except CommandError as error:
            self._log.say(f"{error}; the jobs stay as they were")
            return
        self._tell(loaded)
        if loaded.errors:
            self._log.say(f"{plural(len(loaded.errors), 'error')} in the crontab: the jobs stay as they were")
            return
        try:
            await self._take_over(loaded)
        except ClepsydraError as error:
            self._looked_at = None
            self._log.say(f"not all has been taken over, which is tried again: {error}")

    async def _take_over(self, loaded: Loaded) -> None:
        """The redeploy rules: another schedule counts from now, other changes keep the times, equal is no change."""
        before, jobs = self._loaded.jobs, loaded.jobs
        # The moment of the start has passed for those that were not there.
        late = [name for name, job in jobs.items() if job.schedule == Reboot() and job != self._declared.get(name)]
        self._errands.known = loaded.errands  # first: from here on nothing runs as it was
        declared = {name: job for name, job in jobs.items() if name not in late}
        await self.scheduler.redeclare(declared.values())
        await self._remove(name for name in self._declared if name not in declared)
        self._loaded, self._declared = loaded, declared
        gone, new = len(before.keys() - jobs.keys()), len(jobs.keys() - before.keys())
        changed = sum(job != before[name] for name, job in jobs.items() if name in before)
        self._log.say(f"{plural(len(jobs), 'job')}: {new} new, {changed} changed, {gone} removed")
        if late:
            self._log.say(f"@reboot counts from the next start on: {', '.join(late)}")

    async def _remove(self, names: Iterable[str]) -> None:
        for name in list(names):
            await self.scheduler.remove_job(name, missing_ok=True)

    def _tell(self, loaded: Loaded) -> None:
        for complaint in loaded.complaints:
            self._log.say(str(complaint))
