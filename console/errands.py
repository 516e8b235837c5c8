"""Commands as runs of jobs: a shell in a process group of its own, its output line by line, its exit status as the
outcome.

An errand is what a line of a crontab comes to on this machine. What is run is what `Errands` holds under the job's
name, and never what a store says: whoever can write to the store cannot make this process run anything.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final, Literal, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field, frozen

from .. import Cancel, current_execution
from .children import Child, Children, Identity, ending
from .spoken import Lines
from .words import utc

_CHUNK: Final = 4_096
"""Bytes that are taken from a process before others have their turn."""
_PIPE: Final = 1_048_576
"""What a pipe can hold at the most: so much may have been written before its writer has ended."""
_MOST_OF_LAST_WORDS: Final = 200

Stream: TypeAlias = Literal["out", "err"]


@frozen
class Errand:
    """A command, ready to be run."""

    name: str
    where: str
    """File and line, for messages."""
    command: str
    stdin: bytes
    shell: str
    folder: str
    environment: Mapping[str, str] = field(hash=False)
    identity: Identity | None
    """None: as this process."""


class CommandFailed(Exception):
    """The command has ended otherwise than with exit status 0, or could not be started."""


@frozen
class Spoken:
    """Lines that a process has written."""

    job: str
    pid: int
    stream: Stream
    lines: Sequence[str]


@define(eq=False)
class _Ear:
    """Hears one stream of one process, until nobody can write to it any more."""

    job: str
    pid: int
    stream: Stream
    pipe: IO[bytes]
    write: Callable[[Spoken], None]
    lines: Lines = field(factory=Lines)
    count: int = 0
    last: str = ""
    closed: bool = False

    def hear(self) -> bool:
        """Take a chunk. False: there was none."""
        if self.closed:
            return False
        try:
            chunk = os.read(self.pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        self._say(self.lines.feed(chunk))
        if not chunk:
            self.close()
        return not self.closed

    async def hear_out(self) -> None:
        """Take all that was written before now, and not wait for more."""
        left = _PIPE
        while left > 0 and self.hear():
            left -= _CHUNK
            await checkpoint()

    def close(self) -> None:
        """Nobody writes any more, or nobody wants to know."""
        if not self.closed:
            self.closed = True
            anyio.notify_closing(self.pipe.fileno())
            self.pipe.close()
            self._say(self.lines.rest())

    async def listen(self) -> None:
        """Until it is closed."""
        try:
            while not self.closed:
                await anyio.wait_readable(self.pipe.fileno())
                self.hear()
        except anyio.ClosedResourceError:
            return
        finally:
            self.close()

    def _say(self, lines: list[str]) -> None:
        if lines:
            self.count += len(lines)
            self.last = next((line for line in reversed(lines) if line), self.last)
            self.write(Spoken(self.job, self.pid, self.stream, lines))


class Errands:
    """Runs them. `known` is what there is to run, by the name of the job.

    `group` has to be set before anything runs: it is where output is heard, also when a run is over.
    """

    group: TaskGroup

    def __init__(self, children: Children, write: Callable[[Spoken], None], kill_after: float) -> None:
        self.known: Mapping[str, Errand] = {}
        self._children, self._write, self._kill_after = children, write, kill_after

    def end_after(self, grace: float, say: Callable[[str], None]) -> None:
        """The service ends: what still runs after so many seconds is ended, too."""
        self.group.start_soon(self._end_after, grace, say)

    async def _end_after(self, grace: float, say: Callable[[str], None]) -> None:
        await anyio.sleep(grace)
        say("the grace is over: what still runs is asked to end")
        self._children.interrupt_all()

    def hurry(self) -> None:
        """What is being ended has not much time any more."""
        self._children.hurry()

    async def run(self, command: str) -> dict[str, int]:
        """The task of every job of a crontab. The command that is given is the one that people read; see above."""
        run = current_execution()
        errand = self.known.get(run.name)
        if errand is None:
            raise Cancel("the crontab has no line of this name any more")
        about = {"CLEPSYDRA_JOB": errand.name, "CLEPSYDRA_EXECUTION": run.id}
        if run.nominal is not None:
            about["CLEPSYDRA_NOMINAL"] = utc(run.nominal)
        return await self._carry_out(errand, about)

    async def _carry_out(self, errand: Errand, about: Mapping[str, str]) -> dict[str, int]:
        child = await self._started(errand, about)
        ears = self._ears(errand, child)
        interrupted = False
        try:
            await child.ended_or_interrupted.wait()
            interrupted = child.status is None
        finally:
            with anyio.CancelScope(shield=True):
                if child.status is None:  # or cancelled: it took too long, or somebody insists
                    await self._children.stop(child, self._kill_after)
                for ear in ears:
                    await ear.hear_out()  # what it has left running may go on writing, and is heard in the background
        if child.status != 0:
            raise CommandFailed("interrupted by a shutdown: " * interrupted + _failure(child, ears[1].last))
        return {"out": ears[0].count, "err": ears[1].count}

    async def _started(self, errand: Errand, about: Mapping[str, str]) -> Child:
        reads, writes = os.pipe() if errand.stdin else (os.open(os.devnull, os.O_RDONLY), -1)
        try:
            child = await self._children.start(
                [errand.shell, "-c", errand.command],
                environment={**errand.environment, **about},
                folder=errand.folder,
                stdin=reads,
                identity=errand.identity,
            )
        except (OSError, subprocess.SubprocessError) as error:
            if writes >= 0:
                os.close(writes)
            raise CommandFailed(f"{errand.shell} cannot be started: {error}") from None
        finally:
            os.close(reads)
        if writes >= 0:
            self.group.start_soon(_feed, writes, errand.stdin)
        return child

    def _ears(self, errand: Errand, child: Child) -> list[_Ear]:
        out, err = child.process.stdout, child.process.stderr
        assert out is not None
        assert err is not None
        ears = [
            _Ear(errand.name, child.pid, "out", out, self._write),
            _Ear(errand.name, child.pid, "err", err, self._write),
        ]
        for ear in ears:
            os.set_blocking(ear.pipe.fileno(), False)
            self.group.start_soon(ear.listen)
        return ears


async def _feed(pipe: int, text: bytes) -> None:
    """Give a process what it is to read, as fast as it does."""
    os.set_blocking(pipe, False)
    left = memoryview(text)
    try:
        while left:
            try:
                left = left[os.write(pipe, left) :]
            except BlockingIOError:
                await anyio.wait_writable(pipe)
    except BrokenPipeError:  # it reads no more
        return
    finally:
        os.close(pipe)


def _failure(child: Child, last_words: str) -> str:
    ended = "it does not end, not even killed" if child.status is None else ending(child.status)
    return f"{ended}: {last_words[:_MOST_OF_LAST_WORDS]}" if last_words else ended
