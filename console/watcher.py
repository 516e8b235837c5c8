"""`clepsydra demo`: a small service that watches the machine it runs on, to see a scheduler at work.

Its jobs do real work: they read the load, the memory and the room on the disk, ask a TCP port whether anybody is there,
back up the service's own database, and read each backup again. The port is a real one, too: a small server of this
process, which opens late and restarts now and then, so that probes fail and are tried again. What is printed are the
scheduler's own telemetry events, and at the end what its store has to say: one verdict for each nominal time, those at
which the service was down included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict

import anyio
from anyio.abc import SocketAttribute, SocketStream

from .. import (
    Cron,
    Every,
    ExecutionFilter,
    Instant,
    Job,
    Misfire,
    Order,
    Retry,
    Scheduler,
    SQLiteStorage,
    Stages,
    State,
    Task,
    current_execution,
    to_datetime,
)
from .errors import CommandError
from .journal import Entry, Journal
from .output import NOBODY_READS, Output
from .run import configure_logging, in_event_loop
from .service import Service
from .words import SECOND, Paint, length, local_time, plural, table

KEPT_BACKUPS: Final = 3
MICROSECOND: Final = timedelta(microseconds=1)
OPENS_AFTER, OPEN_FOR, CLOSED_FOR = 1.5, 11.0, 1.5
"""Seconds in the life of the server that is probed."""

_COLOURS: Final = {
    "succeeded": "green",
    "failed": "red",
    "retrying": "yellow",
    "skipped": "yellow",
    "not run": "yellow",
}
_SAID: Final = {"succeeded": "ok", "pending": "later"}


def demo(arguments: argparse.Namespace) -> int:
    """Run the watcher until a signal, or the time that was asked for, ends it."""
    configure_logging("warning")
    path = _database(arguments.db)
    return in_event_loop(_watch, path, arguments.seconds, backend=arguments.backend)


def _database(given: str | None) -> Path:
    if given is not None:
        return Path(given).absolute()
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"clepsydra-demo-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder} cannot be made ({error.strerror}); name a database with --db PATH") from error
    return folder / "demo.db"


# --- what it watches -----------------------------------------------------------------------------------------------


class _Work(TypedDict):
    tasks: Sequence[Task[..., Any]]
    jobs: Sequence[Job]


class Watcher:
    """The tasks of the service. What a run has found is its result, and stands in `found` until it is printed."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.backups = database.parent / f"{database.name}-backups"
        self.server = Server()
        self.found: dict[str, str] = {}
        self.verify = Task(self.read_backup, "watcher.verify")
        stages = Stages(grace=10)
        self.scheduler = Scheduler(SQLiteStorage(database), name="watcher", stages=stages, **self._work())

    def _work(self) -> _Work:
        load = Task(self.sample_load, "watcher.load")
        port = Task(self.probe_port, "watcher.port")
        disk = Task(self.measure_disk, "watcher.disk")
        backup = Task(self.back_up, "watcher.backup")
        patient = Retry(attempts=6, backoff=0.3, factor=1.5, on=[ConnectionError])
        jobs = [
            Job("load", load, Cron("* * * * * *")),
            Job("port", port, Cron("*/2 * * * * *"), retry=patient, timeout=5),
            Job("disk", disk, Every(seconds=5), misfire=Misfire("none")),
            Job("backup", backup, Every(seconds=10), timeout=30),
        ]
        return {"tasks": [load, port, disk, backup, self.verify], "jobs": jobs}

    def _tell(self, finding: str) -> str:
        self.found[current_execution().id] = finding
        return finding

    async def sample_load(self) -> str:
        """Load averages and memory in use."""
        loads = " ".join(f"{load:.2f}" for load in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
        return self._tell(f"load {loads}, memory {_memory()}")

    async def probe_port(self) -> str:
        """Whether the server answers, and how fast. Raises `ConnectionError` when nobody is there."""
        clock = self.scheduler.clock
        asked = clock.monotonic()
        try:
            async with await anyio.connect_tcp("127.0.0.1", self.server.port) as stream:
                answer = await stream.receive()
        except OSError as error:
            raise ConnectionError(f"nobody answers on port {self.server.port}") from error
        took = round((clock.monotonic() - asked) * SECOND)
        return self._tell(f"port {self.server.port} says {answer.decode().strip()!r} after {took / 1000:.1f} ms")

    def measure_disk(self) -> str:
        """Room on the disk of the database. A plain function: it runs in a thread."""
        usage = shutil.disk_usage(self.database.parent)
        return self._tell(f"{_size(usage.free)} free of {_size(usage.total)}, {usage.used / usage.total:.0%} used")

    def back_up(self) -> str:
        """Copy the database while it is in use, keep the last few copies, and have the new one read again."""
        self.backups.mkdir(exist_ok=True)
        nominal = current_execution().nominal or to_datetime(self.scheduler.clock.now())
        copy = self.backups / f"demo-{nominal:%Y%m%d-%H%M%S}.db"
        with closing(sqlite3.connect(self.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        for old in sorted(self.backups.glob("demo-*.db"))[:-KEPT_BACKUPS]:
            old.unlink(missing_ok=True)
        self.scheduler.from_thread.enqueue(self.verify.call(copy=str(copy)), after=1)
        return self._tell(f"{_size(copy.stat().st_size)} to {copy.name}")

    def read_backup(self, copy: str) -> str:
        """Let SQLite check a backup, and count the runs in it."""
        with closing(sqlite3.connect(f"{Path(copy).as_uri()}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
            (runs,) = connection.execute("SELECT count(*) FROM executions").fetchone()
        return self._tell(f"{Path(copy).name}: {verdict}, {plural(runs, 'execution')} in it")


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return "unknown"
    facts = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    total, available = facts["MemTotal"], facts.get("MemAvailable", facts["MemFree"])
    return f"{(total - available) / total:.0%} of {_size(total)}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class Server:
    """A small TCP server on a port of this machine. It opens late, and restarts again and again."""

    def __init__(self) -> None:
        self.port = 0

    async def choose_port(self) -> None:
        """A port that is free now; nobody answers there yet."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(SocketAttribute.local_port)

    async def live(self) -> None:
        """Open, close, and so on."""
        await anyio.sleep(OPENS_AFTER)
        while True:
            with suppress(OSError):  # somebody else has taken the port meanwhile: it stays closed for this time
                await self.open_for(OPEN_FOR)
            await anyio.sleep(CLOSED_FOR)

    async def open_for(self, seconds: float) -> None:
        """Answer for so long."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port) as listener:
            with anyio.move_on_after(seconds):
                await listener.serve(self._answer)

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            await stream.send(b"all is well\n")


# --- what it shows -------------------------------------------------------------------------------------------------


async def _watch(path: Path, seconds: float | None) -> int:
    watcher = Watcher(path)
    await watcher.server.choose_port()
    view = View(watcher, Output(sys.stdout), Paint(sys.stdout))
    service = Service(
        watcher.scheduler,
        beside=watcher.server.live,
        on_start=view.greet,
        on_drain=view.draining,
        on_end=view.sum_up,
        end_after=seconds,
    )
    view.output.on_broken = partial(service.ask_to_stop, "nobody reads the output")
    detach = watcher.scheduler.attach(view.journal.hear)
    try:
        code = await service.run()
    finally:
        detach()
    return NOBODY_READS if view.output.broken else code


_WIDTHS: Final = (12, 14, 12, -6, 15, 8, -6)
_TITLES: Final = ("TIME", "JOB", "NOMINAL", "LATE", "VERDICT", "STATE", "TOOK", "RESULT")
_LONGEST_LOOK_BACK: Final = timedelta(hours=1)


def _columns(cells: Sequence[str]) -> list[str]:
    """Cells as wide as their columns; a negative width aligns to the right. The last cell is as long as it is."""
    padded = [
        cell.rjust(-width) if width < 0 else cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)
    ]
    return [*padded, *cells[len(_WIDTHS) :]]


class View:
    """The watcher's terminal: a line for each run, in columns, and a summary at the end."""

    def __init__(self, watcher: Watcher, output: Output, paint: Paint) -> None:
        self.watcher, self.output = watcher, output
        self.journal = Journal(self.show)
        self._paint = paint
        self._began = watcher.scheduler.clock.now()
        self._last_seen: Instant | None = None
        self._early: list[Entry] | None = []
        """What happens before the greeting is said, which it then follows."""

    def show(self, entry: Entry) -> None:
        """Print a line of the journal."""
        if self._early is not None:
            self._early.append(entry)
            return
        cells = _columns(self._cells(entry))
        cells[5] = self._paint(_COLOURS.get(entry.happened), cells[5])
        self.output.line("  ".join(cells).rstrip())

    def _cells(self, entry: Entry) -> list[str]:
        return [
            local_time(entry.at),
            entry.name or "(scheduler)",
            "" if entry.nominal is None else local_time(entry.nominal),
            "" if entry.late is None else length(entry.late),
            entry.verdict or "-",
            _SAID.get(entry.happened, entry.happened),
            "" if entry.took is None else length(entry.took),
            self._result(entry),
        ]

    def _result(self, entry: Entry) -> str:
        if entry.span is None:
            return self.watcher.found.pop(entry.execution_id, entry.note)
        first, last = map(local_time, entry.span)
        return " ".join(filter(None, (entry.note, f"due from {first} to {last}")))

    async def greet(self) -> None:
        """What has been started, whether it ran before, and what the columns are."""
        watcher, say = self.watcher, self.output.line
        self._last_seen = await self._last_end()
        say(f"A watcher of this machine, on {watcher.database}")
        say(f"Port {watcher.server.port} is a server of its own, which opens late and restarts now and then.")
        if self._last_seen is not None:
            ago = length(self._began - self._last_seen)
            say(f"It ran before, until {ago} ago: what became of the times since then is told below.")
        say("Ctrl-C ends it in good order.")
        say()
        for line in table(self._schedules(), indent="  "):
            say(line)
        say()
        say(self._paint("bold", "  ".join(_columns(_TITLES))))
        self._show_early()

    def _show_early(self) -> None:
        early, self._early = self._early, None
        for entry in early or ():
            self.show(entry)

    async def _last_end(self) -> Instant | None:
        """When a run last ended before this start."""
        before = ExecutionFilter(finished=(None, self._began))
        page = await self.watcher.scheduler.executions(before, order=Order.FINISHED_DESC, limit=1)
        return next((row.finished_at for row in page.items), None)

    def _schedules(self) -> Iterator[tuple[str, str]]:
        for job in self.watcher.scheduler.declared_jobs:
            yield job.name, job.schedule.describe() if job.schedule else ""
        yield self.watcher.verify.name, "enqueued by each backup, one second later"

    def draining(self, why: str) -> None:
        """It has been asked to end."""
        self.output.line(f"{why}: nothing new is started, what runs may end")

    async def sum_up(self) -> None:
        """A table of what ran, and what the store says of each nominal time."""
        now = self.watcher.scheduler.clock.now()
        say = self.output.line
        say()
        say(f"{length(now - self._began)} of work: {self.journal.summary()}")
        say()
        titles = ("JOB", "RUNS", "OK", "FAILED", "RETRIES", "SKIPPED", "LATE (MEDIAN)", "LATE (MOST)", "VERDICTS")
        rows = [await self._row(name, now) for name in self._names()]
        for line in table([titles, *rows], right=frozenset(range(1, 8)), indent="  "):
            say(line)
        for line in await self._while_away():
            say(line)
        waiting = await self._waiting()
        if waiting:
            say()
            say(f"{plural(waiting, 'run')} still to come, a retry or a check that was not due yet: for the next start.")
        say()
        say(f"All of it is kept in {self.watcher.database}; start it again, and it goes on from here.")

    def _names(self) -> list[str]:
        declared = [job.name for job in self.watcher.scheduler.declared_jobs]
        return [*declared, *sorted(self.journal.tallies.keys() - set(declared))]

    async def _row(self, name: str, now: Instant) -> list[str]:
        tally = self.journal.tally(name)
        counts = (tally.runs, tally.succeeded, tally.failed, tally.retries, tally.skipped)
        lateness = ["-" if late is None else length(late) for late in (tally.late_median, tally.late_most)]
        return [name, *map(str, counts), *lateness, await self._verdicts(name, self._began, now)]

    async def _while_away(self) -> list[str]:
        """What became of the nominal times between the last run of an earlier start and this one."""
        if self._last_seen is None:
            return []
        since = max(self._last_seen + 1, self._began - round(_LONGEST_LOOK_BACK / MICROSECOND))
        rows = [(job.name, await self._verdicts(job.name, since, self._began)) for job in self._jobs()]
        return ["", f"The {length(self._began - since)} before it started:", "", *table(rows, indent="  ")]

    async def _waiting(self) -> int:
        """How many executions are stored and not finished."""
        counts = await self.watcher.scheduler.stats()
        return sum(counts.get(state, 0) for state in (State.PENDING, State.PLACING, State.HELD))

    def _jobs(self) -> Sequence[Job]:
        return self.watcher.scheduler.declared_jobs

    async def _verdicts(self, name: str, start: Instant, end: Instant) -> str:
        """How many of a job's nominal times have which verdict, asked from the store."""
        if self.watcher.scheduler.find_job(name) is None:
            return "-"
        told = self.watcher.scheduler.verdicts(name, to_datetime(start), to_datetime(end))
        counts = Counter([verdict.kind or "open" async for verdict in told])
        return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "none"
