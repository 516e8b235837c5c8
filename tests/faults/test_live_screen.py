"""The live screen in a real terminal: what it shows, what its keys do, and what it leaves behind."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("it needs a POSIX terminal", allow_module_level=True)

import fcntl
import pty
import termios

import pyte
from attrs import define, field

PATIENCE = 60.0
JOBS = """
import logging
import anyio
from clepsydra import Every, Scheduler

scheduler = Scheduler(name="node")

@scheduler.job(Every(0.2), name="ticks")
async def ticks():
    pass

@scheduler.job(Every(0.3), name="fails")
def fails():
    logging.getLogger("app").warning("about to fail")
    print("printed by a task")
    raise ValueError("boom")

@scheduler.job(Every(hours=1), name="rare")
async def rare():
    pass
"""


@define
class Terminal:
    """A terminal with the program in it."""

    descriptor: int
    process: subprocess.Popen[bytes]
    columns: int
    lines: int
    screen: pyte.Screen = field(init=False)
    stream: pyte.ByteStream = field(init=False)
    written: bytearray = field(factory=bytearray)

    def __attrs_post_init__(self) -> None:
        self.screen = pyte.Screen(self.columns, self.lines)
        self.stream = pyte.ByteStream(self.screen)

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def press(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def wait_for(self, fact: Callable[[str], object], what: str) -> None:
        """Read until the screen shows it."""
        deadline = time.monotonic() + PATIENCE
        while not fact(self.text):
            assert time.monotonic() < deadline, f"no sign of {what}:\n{self.text}"
            if not self.read() and self.process.poll() is not None:
                raise AssertionError(f"it ended without {what}:\n{self.text}")

    def shows(self, pattern: str) -> None:
        self.wait_for(lambda text: re.search(pattern, text), pattern)

    def read(self) -> bool:
        ready, _, _ = select.select([self.descriptor], [], [], 0.1)
        try:
            data = os.read(self.descriptor, 65_536) if ready else b""
        except OSError:  # the other end is closed
            return False
        self.written += data
        self.stream.feed(data)
        return bool(data)

    def ended(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            self.read()
        while self.read():
            pass
        return self.process.wait()


@contextmanager
def terminal(folder: Path, *arguments: str, columns: int = 80, lines: int = 24) -> Generator[Terminal]:
    (folder / "jobs.py").write_text(JOBS)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "clepsydra", "run", "jobs:scheduler", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process, columns, lines)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize(("backend", "columns"), [("asyncio", 80), ("trio", 160)])
def test_it_shows_what_happens_and_obeys_keys(tmp_path: Path, backend: str, columns: int) -> None:
    with terminal(tmp_path, "--backend", backend, columns=columns) as shown:
        shown.shows(r"clepsydra node .*3 jobs +ok")
        shown.shows(r"due next[^∎]*in .*ticks[^∎]*in \d+m \d+s  rare")
        shown.shows(r"ticks .*succeeded")
        shown.shows(r"failures[^∎]*fails  ValueError: boom")
        shown.shows(r"log[^∎]*(printed by a task|about to fail)")

        shown.press(b"/rar")
        shown.shows(r"/ rar.*\n▸ rare")
        shown.press(b"\r")
        shown.shows(r"rare ─[^∎]*state +active[^∎]*every hour[^∎]*none that the store remembers")
        shown.press(b"n")
        shown.shows(r"rare: runs now")
        shown.shows(r"last runs[^∎]*succeeded")
        shown.press(b"p")
        shown.shows(r"state +paused")
        shown.press(b"r")
        shown.shows(r"state +active")
        shown.press(b"\x1b")
        shown.shows("just ran")
        shown.press(b"q")

        assert shown.ended() == 0
        assert re.search(rb"ended: \d+ runs, \d+ failed", bytes(shown.written))
        assert shown.written.count(b"\x1b[?1049h") == shown.written.count(b"\x1b[?1049l") == 1
        assert shown.written.rindex(b"\x1b[?25h") > shown.written.rindex(b"\x1b[?25l")


def test_a_signal_ends_it_and_the_terminal_is_as_it_was(tmp_path: Path) -> None:
    with terminal(tmp_path) as shown:
        before = termios.tcgetattr(shown.descriptor)
        shown.shows("ticks .*succeeded")
        assert termios.tcgetattr(shown.descriptor) != before
        shown.process.send_signal(signal.SIGTERM)

        assert shown.ended() == 0
        assert termios.tcgetattr(shown.descriptor) == before


def test_plain_lines_are_to_be_had_on_a_terminal_too(tmp_path: Path) -> None:
    with terminal(tmp_path, "--plain", columns=160) as shown:
        shown.shows(r"job=ticks .*verdict=fired state=succeeded")

        assert b"\x1b[?1049h" not in shown.written
