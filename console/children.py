"""The processes that this one has started, and those that are left to it: how each is started, signalled and reaped.

Each has a session and a process group of its own, so that a signal reaches all that it has started and none of ours.
Whoever waits for any child takes the exit status of every other, so waiting is done in one place: at each SIGCHLD
`Children` takes what has ended, hands the status to its `Child`, and lets go of what belonged to nobody. As process 1
of a container that is what is left of daemons; elsewhere `adopt_orphans` asks the kernel for the same duty.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from logging import getLogger
from math import inf
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus
from attrs import define, field, frozen

from .. import Clock
from .errors import CommandError

log = getLogger("clepsydra.console")

_PR_SET_CHILD_SUBREAPER: Final = 36
_LOOK: Final = 0.05  # seconds between two looks whether a group has gone: the kernel tells nobody
_HURRY: Final = 3.0  # seconds from SIGTERM to SIGKILL at the most, once somebody insists: the scheduler waits for 5
_KILLED: Final = 5.0  # seconds that a killed process may take to be gone; one that hangs in the kernel takes longer


@frozen
class Identity:
    """Whom a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@define(eq=False)
class Child:
    """A process of ours, the first of its group. `status` is the exit status, or minus the signal that ended it."""

    process: subprocess.Popen[bytes]
    ended: anyio.Event = field(factory=anyio.Event)
    ended_or_interrupted: anyio.Event = field(factory=anyio.Event)
    status: int | None = None

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self.process.pid

    def send(self, number: signal.Signals) -> bool:
        """A signal to the whole group; whether there is anybody in it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # all that are left have become somebody else
            return True
        return True

    def is_anybody_left(self) -> bool:
        """Whether its group has a process, a dead one that nobody has reaped included."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def end(self, status: int) -> None:
        """It has been reaped."""
        self.status = self.process.returncode = status
        self.ended.set()
        self.ended_or_interrupted.set()


class Children:
    """All of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[int, Child] = {}
        self.interrupted = False
        self._latest = inf  # by when those that are being stopped are killed, however patient one was
        self._being_started = 0
        self._unknown: dict[int, int] = {}
        """Who ended while somebody was being started, and may be just that one."""

    async def watch(self, *, task_status: TaskStatus[None]) -> None:
        """Reap whatever ends, until cancelled."""
        with anyio.open_signal_receiver(signal.SIGCHLD) as received:
            task_status.started()
            self.reap()
            async for _ in received:
                self.reap()

    async def start(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: str,
        stdin: int,
        identity: Identity | None,
    ) -> Child:
        """Start a process whose output can be read from `process.stdout` and `process.stderr` without waiting.

        Raises `OSError` when that cannot be done.
        """

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                arguments,
                env=environment,
                cwd=folder,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                user=None if identity is None else identity.uid,
                group=None if identity is None else identity.gid,
                extra_groups=None if identity is None else identity.groups,
            )

        self._being_started += 1
        try:
            # In a thread: the parent stands still until the child runs its program, which a file server may delay.
            return self._known(Child(await anyio.to_thread.run_sync(start)))
        finally:
            self._being_started -= 1
            if not self._being_started:
                self._let_go()

    def _known(self, child: Child) -> Child:
        if child.pid in self._unknown:
            child.end(self._unknown.pop(child.pid))
        else:
            self._running[child.pid] = child
        if self.interrupted:
            child.ended_or_interrupted.set()
        return child

    def reap(self) -> None:
        """Take the status of all that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, status: int) -> None:
        child = self._running.pop(pid, None)
        if child is not None:
            child.end(status)
            return
        self._unknown[pid] = status
        if not self._being_started:
            self._let_go()

    def _let_go(self) -> None:
        for pid, status in self._unknown.items():
            log.debug("reaped process %d, which was left by its parent: %s", pid, ending(status))
        self._unknown.clear()

    async def stop(self, child: Child, patience: float) -> None:
        """Ask its group to end, and after `patience` seconds see to it. What is stopped is continued, so that it can
        hear.
        """
        child.send(signal.SIGTERM)
        child.send(signal.SIGCONT)
        deadline = self._clock.monotonic() + patience
        while child.is_anybody_left() and self._clock.monotonic() < min(deadline, self._latest):
            await self._clock.sleep(_LOOK)
        child.send(signal.SIGKILL)
        with anyio.move_on_after(_KILLED):
            await child.ended.wait()

    def interrupt_all(self) -> None:
        """Tell those who wait for one, now or later, that they have to stop it."""
        self.interrupted = True
        for child in self._running.values():
            child.ended_or_interrupted.set()

    def hurry(self) -> None:
        """Those that are being stopped have not much time any more."""
        self._latest = self._clock.monotonic() + _HURRY

    def kill_all(self) -> None:
        """At once, whatever they do."""
        for child in self._running.values():
            child.send(signal.SIGKILL)


def ending(status: int) -> str:
    """An exit status in words.

    >>> ending(3), ending(-9)
    ('exit status 3', 'ended by SIGKILL')
    """
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-status).name}"
    return f"ended by signal {-status}"


def adopt_orphans() -> None:
    """Have processes whose parent has ended become children of this one, as they do of process 1. Linux only."""
    if sys.platform != "linux":
        raise CommandError(f"--reap needs Linux, and this is {sys.platform}")
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise CommandError(f"the kernel refuses to hand orphans to this process: {os.strerror(ctypes.get_errno())}")
