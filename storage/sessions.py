"""One connection for each thread: who uses it, who has given up on it, and which blocks it is in.

What every adapter does that has a connection per thread. A connection that was given up on is never used again: its
thread, should it ever come back, finds that its transaction cannot go on, while the next call opens another. A child
made by `fork` inherits the connections of its parent and must not touch them. Knows no database.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, TypeVar


class ThreadSession(ABC):
    """One thread's connection, and the blocks that it is in."""

    stale: bool
    """Given up on: it must do nothing any more."""
    writing: bool
    failed: bool
    """A part of the transaction has failed: none of it may be committed."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.lock = threading.Lock()
        """Held while a transaction is under way."""
        self.depth = 0

    @property
    def ended(self) -> bool:
        """Whether nobody will use it again."""
        return self.stale or not self.thread.is_alive()

    @contextmanager
    def inner_block(self, writing: bool) -> Generator[None]:
        """A block inside another joins it; if it raises, all is undone."""
        if writing and not self.writing:
            raise RuntimeError("a transaction cannot begin inside a snapshot that is being read")
        self.depth += 1
        try:
            yield
        except BaseException:
            self.failed = True
            raise
        finally:
            self.depth -= 1

    def give_up(self) -> None:
        """From any thread: let nothing more be done with it. Waits for nothing."""
        self.stale = True
        if not self.close():
            self._break_off()

    def close(self) -> bool:
        """Close it unless its thread is using it; that thread closes it then, when it comes back."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            self._close()
        finally:
            self.lock.release()
        return True

    @abstractmethod
    def _close(self) -> None:
        """Close the connection; must not raise."""

    @abstractmethod
    def _break_off(self) -> None:
        """Have the thread that is using the connection come back; must not raise."""


S = TypeVar("S", bound=ThreadSession)


class Sessions(Generic[S]):
    """The sessions of a store, one for each thread, opened when they are first needed."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sessions: list[S] = []
        self._here = threading.local()
        self._inherited: list[S] = []
        self._closed = True

    def open(self) -> None:
        """From now on sessions may be opened."""
        self._closed = False

    def close(self) -> None:
        """Give up on every session, and open no other. Idempotent."""
        self._closed = True
        self.discard()

    def current(self) -> S:
        """The session of this thread, which must be inside a block."""
        session = self._mine()
        if session is None or not session.depth:
            raise RuntimeError("tables are read and written inside transaction() or reading() only")
        return session

    def discard(self) -> None:
        """Give up on every session: the next call of each thread opens another."""
        with self._guard:
            sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.give_up()

    def after_fork(self) -> None:
        """In a child: what the parent has open is kept and never touched, not even to close it."""
        self._closed = True
        self._inherited += self._sessions
        self._guard, self._sessions, self._here = threading.Lock(), [], threading.local()

    def _mine(self) -> S | None:
        """The session of this thread, if it has one."""
        session: S | None = getattr(self._here, "session", None)
        return session

    def _keep(self, session: S) -> S:
        """Make it this thread's, and close those that nobody uses any more."""
        self._here.session = session
        with self._guard:
            ended = [one for one in self._sessions if one.ended]
            self._sessions = [session, *(one for one in self._sessions if not one.ended)]
        for one in ended:
            one.close()
        return session
