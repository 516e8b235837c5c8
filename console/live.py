"""The live screen of `clepsydra run`: what a scheduler does, on a terminal, and keys to act on it.

It asks the scheduler's memory once a second and after each key, never the store but for the one job that is looked
into. Frames are drawn in a thread, and of a frame only the lines that have changed go to the terminal, so it costs the
event loop next to nothing. What the library and the user's code have to say meanwhile is shown, too.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import termios
import tty
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import StringIO
from typing import Final

import anyio
import anyio.to_thread
from rich.console import Console

from .. import (
    ClepsydraError,
    Execution,
    ExecutionFilter,
    Instant,
    JobNotFound,
    JobRecord,
    JobState,
    Scheduler,
    State,
    job_to_data,
    to_instant,
)
from .journal import Entry, Journal, plain
from .live_view import JobLook, Look, Mode, Queue, Vessel, frame
from .words import one_line

log = logging.getLogger("clepsydra.console")

_REFRESH: Final = 1.0
_KEPT: Final = 200
_SHOWN: Final = 100
"""Rows of a list at most: no terminal is longer."""
_NAMES: Final = {b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"\r": "enter", b"\n": "enter"}
_UTF_8: Final = ((0xF0, 4), (0xE0, 3), (0xC0, 2))
_NAMES_ALONE: Final = {b"\x1b": "back", b"\x7f": "erase", b"\x08": "erase"}


class Live:
    """The screen of one scheduler. `ask_to_stop` is what `q` does; asked twice, `insist`."""

    def __init__(
        self, scheduler: Scheduler, store: str, ask_to_stop: Callable[[str], None], insist: Callable[[], None]
    ) -> None:
        self._scheduler, self._store = scheduler, store
        self._ask_to_stop, self._insist = ask_to_stop, insist
        self._clock = scheduler.clock
        self._since = self._clock.now()
        self._recent: deque[Entry] = deque(maxlen=_KEPT)
        self._failures: deque[Entry] = deque(maxlen=_KEPT)
        self._said: deque[str] = deque(maxlen=_KEPT)
        self._mode: Mode = "overview"
        self._chosen, self._sought, self._message = 0, "", ""
        self._names: Sequence[str] = ()
        """What can be chosen in the frame that is shown."""
        self._job: str | None = None
        self._runs: Sequence[Execution] = ()
        self._draining = ""
        self._plain = False
        """Whether the screen has failed."""
        self._pen = _Pen()
        self._drawing = anyio.Lock()
        self.journal = Journal(self.add)

    # ---- what it is told

    def add(self, entry: Entry) -> None:
        """Something has happened."""
        if self._plain:
            self._pen.line(plain(entry))
        self._recent.appendleft(entry)
        if entry.happened in ("failed", "retrying"):
            self._failures.appendleft(entry)

    def say(self, text: str) -> None:
        """A line of the log."""
        if self._plain:
            self._pen.line(text)
        self._said.append(text)

    def drain(self, told: str) -> None:
        """It is ending."""
        self._draining = told

    def last_words(self, most: int) -> list[str]:
        """What stays on the terminal when the screen is gone: the last failures, and what was said."""
        failures = [plain(entry) for entry in list(self._failures)[:most]]
        return [*reversed(failures), *list(self._said)[-most:]]

    # ---- while it runs

    async def run(self) -> None:
        """Draw and obey keys until cancelled."""
        try:
            with self._pen.at_work():
                try:
                    async with anyio.create_task_group() as group:
                        if sys.stdin.isatty():
                            group.start_soon(self._obey_keys)
                        while True:
                            await self._draw()
                            await self._clock.sleep(_REFRESH)
                finally:
                    with anyio.CancelScope(shield=True):
                        async with self._drawing:  # a thread that still draws would draw on the user's screen
                            pass
        except* Exception as errors:  # a screen that fails must not take down what it shows
            log.error("the live screen has failed; plain lines from here on", exc_info=errors.exceptions[0])
            self._plain = True

    async def _draw(self) -> None:
        async with self._drawing:
            await self._look_into_job()
            await anyio.to_thread.run_sync(self._pen.draw, self._look())

    async def _look_into_job(self) -> None:
        if self._mode != "job" or self._job is None:
            return
        try:
            page = await self._scheduler.executions(ExecutionFilter(jobs=[self._job]), order="-id", limit=_SHOWN)
        except ClepsydraError as error:
            self._message = str(error)
        else:
            self._runs = page.items

    def _look(self) -> Look:
        health = self._scheduler.health()
        due = [(to_instant(at), name) for at, name in self._next_runs()]
        found = self._found() if self._mode == "search" else ()
        self._names = found if self._mode == "search" else [name for _, name in due]
        self._chosen = max(0, min(self._chosen, len(self._names) - 1))
        return Look(
            now=self._clock.now(),
            node=self._scheduler.name,
            store=self._store,
            since=self._since,
            status=health.status,
            reasons=health.reasons,
            jobs=health.jobs,
            counted=self.journal.summary(),
            vessels=[
                Vessel("commands", health.commands, None),
                *(Vessel(fill.name, fill.waiting, fill.capacity, fill.oldest) for fill in health.vessels),
                *([Vessel("running", health.pool.running, None)] if health.pool else []),
                *([Vessel("store", health.store.queued, None, health.store.longest_wait)] if health.store else []),
            ],
            queues=[Queue(level.name, level.busy, level.slots, level.credit) for level in health.queues],
            due=due,
            recent=list(self._recent)[:_SHOWN],
            failures=list(self._failures)[:_SHOWN],
            said=list(self._said),
            mode=self._mode,
            chosen=self._chosen,
            sought=self._sought,
            found=found,
            job=self._job_look(),
            message=self._message,
            draining=self._draining,
        )

    def _next_runs(self) -> Sequence[tuple[datetime, str]]:
        try:
            return self._scheduler.next_runs(_SHOWN)
        except ClepsydraError:  # it has not started yet, or has ended
            return ()

    def _found(self) -> Sequence[str]:
        try:
            names = [record.name for record in self._scheduler.jobs]
        except ClepsydraError:
            return ()
        sought = self._sought.casefold()
        return [name for name in names if sought in name.casefold()]

    def _job_look(self) -> JobLook | None:
        if self._mode != "job" or self._job is None:
            return None
        try:
            record = self._scheduler.get_job(self._job)
        except JobNotFound:
            return JobLook(self._job, [("", "it has been removed")])
        except ClepsydraError as error:
            return JobLook(self._job, [("", str(error))])
        failed = next((run for run in self._runs if run.error), None)
        trace = (failed.error or "").rstrip().splitlines() if failed else ()
        return JobLook(
            record.name, _facts(record), _upcoming(record, self._clock.now()), [*map(_as_entry, self._runs)], trace
        )

    # ---- keys

    async def _obey_keys(self) -> None:
        source = sys.stdin.fileno()
        while True:
            await anyio.wait_readable(source)
            data = os.read(source, 1024)
            if not data:
                return
            for key in keys_of(data):
                await self.press(key)
            await self._draw()

    async def press(self, key: str) -> None:
        """What a key does."""
        self._message = ""
        match self._mode, key:
            case _, "up":
                self._chosen = max(0, self._chosen - 1)
            case _, "down":
                self._chosen += 1
            case "job", "back" | "erase":
                self._turn_to("overview")
            case "search", "back":
                self._turn_to("overview")
            case "overview" | "search", "enter":
                self._enter()
            case "search", "erase":
                self._sought = self._sought[:-1]
            case "search", sign if len(sign) == 1 and sign.isprintable():
                self._sought += sign
                self._chosen = 0
            case _, "/":
                self._sought = ""
                self._turn_to("search")
            case _, "p":
                await self._act(self._scheduler.pause_job, "paused")
            case _, "r":
                await self._act(self._scheduler.resume_job, "resumed")
            case _, "n":
                await self._act(self._scheduler.run_job, "runs now")
            case _, "q":
                self._quit()
            case _:
                return

    def _turn_to(self, mode: Mode) -> None:
        self._mode, self._chosen = mode, 0
        if mode != "job":
            self._job, self._runs = None, ()

    def _enter(self) -> None:
        if self._names:
            name = self._names[min(self._chosen, len(self._names) - 1)]
            self._turn_to("job")
            self._job = name

    def _meant(self) -> str | None:
        if self._mode == "job":
            return self._job
        return self._names[min(self._chosen, len(self._names) - 1)] if self._names else None

    async def _act(self, command: Callable[[str], Awaitable[object]], done: str) -> None:
        name = self._meant()
        if name is None:
            self._message = "no job is chosen; / finds one"
            return
        try:
            await command(name)
        except ClepsydraError as error:
            self._message = one_line(str(error))
        else:
            self._message = f"{name}: {done}"

    def _quit(self) -> None:
        if self._draining:
            self._insist()
        else:
            self._ask_to_stop("q")


def keys_of(data: bytes) -> list[str]:
    """The keys that a terminal has sent: signs, and `up`, `down`, `enter`, `back`, `erase`."""
    keys: list[str] = []
    while data:
        known = next((code for code in _NAMES if data.startswith(code)), None)
        if known is not None:
            keys.append(_NAMES[known])
            data = data[len(known) :]
        elif data[:2] in (b"\x1b[", b"\x1bO"):  # a key that means nothing here
            end = next((at for at in range(2, len(data)) if 0x40 <= data[at] <= 0x7E), len(data) - 1)
            data = data[end + 1 :]
        elif data[:1] in _NAMES_ALONE:
            keys.append(_NAMES_ALONE[data[:1]])
            data = data[1:]
        else:
            size = next((size for least, size in _UTF_8 if data[0] >= least), 1)
            keys.append(data[:size].decode("utf-8", "replace"))
            data = data[size:]
    return keys


# --- of one job -----------------------------------------------------------------------------------------------------


def _facts(record: JobRecord) -> list[tuple[str, str]]:
    state = f"{record.state.value}, {record.reason}" if record.reason else record.state.value
    facts = [("state", state)]
    if record.schedule is not None:
        facts.append(("schedule", record.schedule.describe()))
    return facts + [(key, str(fact)) for key, fact in job_to_data(record.job).items() if key != "schedule"]


def _upcoming(record: JobRecord, now: Instant) -> list[Instant]:
    bound = record.bind() if record.state is JobState.ACTIVE else None
    times: list[Instant] = []
    at = max(now, record.cursor)
    while bound is not None and bound.driven_by == "time" and len(times) < 5:
        following = bound.next_after(at)
        if following is None:
            break
        times.append(at := following)
    return times


def _as_entry(run: Execution) -> Entry:
    began, ended = run.started_at, run.finished_at
    return Entry(
        ended or began or run.due_at,
        run.verdict.value if run.verdict else run.cause.value,
        run.state.value if run.state is not State.RUNNING else "running",
        nominal=run.nominal,
        late=None if began is None else began - run.due_at,
        took=None if began is None or ended is None else ended - began,
        attempt=run.attempt,
        note=one_line(run.error) if run.error else "",
    )


# --- the terminal ---------------------------------------------------------------------------------------------------


class _Pen:
    """Draws frames on the terminal's other screen, and gives the user's own back at the end."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._size = (0, 0)

    @contextmanager
    def at_work(self) -> Generator[None]:
        """The other screen, without a cursor; keys come as they are pressed, and Ctrl-C is still a signal."""
        keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        before = None if keyboard is None else termios.tcgetattr(keyboard)
        if keyboard is not None:
            tty.setcbreak(keyboard)
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")
        try:
            yield
        finally:
            self._write("\x1b[?25h\x1b[?1049l")
            if keyboard is not None and before is not None:
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def draw(self, look: Look) -> None:
        """The frame of this look. In a thread: a terminal may be slow, or held."""
        width, height = shutil.get_terminal_size()
        lines = self._coded(look, width, height)
        if self._size != (width, height):
            self._size, self._shown = (width, height), []
            self._write("\x1b[2J")
        changed = [
            f"\x1b[{number + 1};1H{line}\x1b[K"
            for number, line in enumerate(lines)
            if number >= len(self._shown) or self._shown[number] != line
        ]
        self._shown = lines
        if changed:
            self._write("".join(changed))

    def _coded(self, look: Look, width: int, height: int) -> list[str]:
        """The lines with the colours that this terminal has."""
        paper = Console(file=StringIO(), force_terminal=True, width=width, legacy_windows=False, highlight=False)
        coded: list[str] = []
        for line in frame(look, width, height):
            with paper.capture() as captured:
                paper.print(line, end="", no_wrap=True, crop=True, soft_wrap=True)
            coded.append(captured.get())
        return coded

    def line(self, text: str) -> None:
        """A plain line, where there is no screen any more."""
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        sys.__stdout__.write(text)  # type: ignore[union-attr]  # there is a terminal
        sys.__stdout__.flush()  # type: ignore[union-attr]


class SayingHandler(logging.Handler):
    """Sends the log to the screen."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """A line for each record."""
        self._say(f"{record.levelname} {record.name}: {record.getMessage()}")
