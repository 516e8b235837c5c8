"""A bell for each node beside the database: whoever has written something rings those of the others.

A bell is a named pipe in the directory of the lock files, and ringing it is writing a byte, which never waits. It is a
hint only: who has none, or does not hear it, sees the news at the next poll. Where there are no named pipes (Windows,
some shared folders) nobody hears anything.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from typing import Final
from urllib.parse import quote

from .threads import start_daemon

log = logging.getLogger("clepsydra.storage")

AT_MOST_EVERY: Final = 0.02
"""Seconds between two hints that are heard."""

_SUFFIX: Final = ".bell"
_MANY: Final = 4096
"""Bytes read at once: however often it rang meanwhile, it is one hint."""


class Bells:
    """The bells of one store, and the one that is ours."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._mine: _Bell | None = None

    def listen(self, node_id: str, on_hint: Callable[[], object]) -> Callable[[], None]:
        """Hang up this node's bell and hear it, in a thread; gives what ends that."""
        if not hasattr(os, "mkfifo"):
            return lambda: None
        try:
            bell = self._mine = _Bell(os.path.join(self._directory, _name(node_id)), on_hint)
        except OSError as error:
            log.info("work of other processes is polled: there can be no named pipe in %s: %s", self._directory, error)
            return lambda: None
        return bell.take_down

    def ring(self) -> None:
        """There is news for the others. From any thread; does not wait."""
        mine = None if self._mine is None else self._mine.path
        for path in self._paths():
            if path != mine:
                _ring(path)

    def sweep(self, known: Collection[str]) -> None:
        """Remove the bells of nodes that are not known."""
        names = {_name(node_id) for node_id in known}
        for path in self._paths():
            if os.path.basename(path) not in names:
                with suppress(OSError):
                    os.unlink(path)

    def after_fork(self) -> None:
        """In a child, which does not hear its parent's bell."""
        bell, self._mine = self._mine, None
        if bell is not None:
            bell.close()

    def _paths(self) -> list[str]:
        try:
            names = os.listdir(self._directory)
        except OSError:  # it is made with the first node
            return []
        return [os.path.join(self._directory, name) for name in names if name.endswith(_SUFFIX)]


class _Bell:
    """A named pipe, and the thread that reads it."""

    def __init__(self, path: str, on_hint: Callable[[], object]) -> None:
        self.path = path
        self._on_hint = on_hint
        self._taken_down = threading.Event()
        # It gets its name when it is heard already: nobody takes it for one whose node is gone.
        hidden = f"{path}-new"
        with suppress(FileNotFoundError):
            os.unlink(hidden)
        os.mkfifo(hidden, 0o666)
        # For both, so that it does not end when the last one who rang it lets go.
        self._pipe = os.open(hidden, os.O_RDWR | os.O_CLOEXEC)
        os.rename(hidden, path)
        start_daemon("clepsydra-bell", self._hear)

    def take_down(self) -> None:
        """Hear nothing more. From any thread; does not wait."""
        self._taken_down.set()
        _ring(self.path)  # wakes the thread
        with suppress(OSError):
            os.unlink(self.path)

    def close(self) -> None:
        """Let go of the pipe."""
        with suppress(OSError):
            os.close(self._pipe)

    def _hear(self) -> None:
        with closing(self):
            while os.read(self._pipe, _MANY) and not self._taken_down.is_set():
                self._on_hint()
                self._taken_down.wait(AT_MOST_EVERY)


def _name(node_id: str) -> str:
    return quote(node_id, safe="") + _SUFFIX


def _ring(path: str) -> None:
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody hears it: its process was killed
            with suppress(OSError):
                os.unlink(path)
        return
    try:
        with suppress(OSError):  # full: it rings already
            os.write(pipe, b"!")
    finally:
        os.close(pipe)
