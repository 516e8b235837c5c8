"""Real processes for the tests of faults: started, killed, frozen, and quoted when a test waits for them in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from attrs import define, field

T = TypeVar("T")

HERE = Path(__file__).parent
PYTHON = (sys.executable, "-u", "-X", "faulthandler", "-W", "error")
PATIENCE = 60.0
"""Seconds after which what a test waits for is taken to never come: far more than a busy machine needs."""
LOOK = 0.02


@define(eq=False)
class Program:
    """A child process whose output goes to files."""

    name: str
    output: Path
    errors: Path
    process: subprocess.Popen[bytes]
    killed_at: int | None = None
    """By this process' clock, in nanoseconds."""

    @property
    def pid(self) -> int:
        """The process id, also when it has ended."""
        return self.process.pid

    def kill(self) -> None:
        """At once, by the kernel: nothing is flushed, unlocked or said."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.killed_at = time.time_ns()

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Let it stand still, as on a host that is suspended."""
        self.send(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def said(self) -> str:
        """What it has written to its standard output so far."""
        return self.output.read_text()

    def complaint(self) -> str:
        """Its standard error, for the report of a failure."""
        state = "running" if self.process.poll() is None else f"ended with {self.process.returncode}"
        return f"---- {self.name} (pid {self.pid}, {state}):\n{self.errors.read_text()[-6000:]}"


@define(eq=False)
class Nursery:
    """The processes of one test. None outlives it."""

    folder: Path
    programs: list[Program] = field(factory=list[Program])

    def start(self, program: str, *arguments: str | Path, name: str = "") -> Program:
        """Start a program of this folder."""
        name = name or f"{program}-{len(self.programs)}"
        output, errors = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [*PYTHON, str(HERE / f"{program}.py"), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        started = Program(name, output, errors, process)
        self.programs.append(started)
        return started

    def wait_for(self, fact: Callable[[], T | None], what: str, within: float = PATIENCE) -> T:
        """Look until `fact()` gives something true. Else the test fails and shows what the processes said."""
        deadline = time.monotonic() + within
        while not (found := fact()):
            if time.monotonic() > deadline:
                self.fail(f"within {within:g} s there was no sign of: {what}")
            time.sleep(LOOK)
        return found

    def wait_for_end(self, program: Program, within: float = PATIENCE) -> int:
        """Its exit code."""
        self.wait_for(lambda: program.process.poll() is not None, f"the end of {program.name}", within)
        return program.process.returncode

    def stop(self, program: Program, within: float = PATIENCE) -> None:
        """Ask it to drain and end, as a service manager does; it must end well."""
        program.send(signal.SIGTERM)
        code = self.wait_for_end(program, within)
        if code != 0:
            self.fail(f"{program.name} ended with {code} when it was asked to end")

    def fail(self, why: str) -> None:
        """Fail the test, with the last words of every process that still runs or ended badly."""
        shown = [program for program in self.programs if program.killed_at is None and program.process.poll() != 0]
        pytest.fail("\n".join([why, *(program.complaint() for program in shown[-4:])]))

    def end_all(self) -> None:
        """Whatever still runs is killed; a frozen process, too."""
        for program in self.programs:
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait(PATIENCE)


@contextmanager
def nursery(folder: Path) -> Generator[Nursery]:
    """For the length of one test."""
    started = Nursery(folder)
    try:
        yield started
    finally:
        started.end_all()
