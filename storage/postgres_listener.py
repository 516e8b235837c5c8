"""What the nodes on one schema say to each other: that there is something new. `LISTEN` and `NOTIFY`, as hints only.

One thread with a connection of its own hears the others and speaks for this node. A transaction that has written news
only rings a bell (`tell`); the thread says so afterwards, at most so often a second, for all who have rung meanwhile:
a `NOTIFY` inside the transactions themselves would have them all wait for one another as they commit. What it says it
hears itself, which is the proof that it hears at all; when it does not, it begins anew. Nothing depends on it: who
hears nothing sees the news at the next poll.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from hashlib import blake2b
from typing import Final

import psycopg

from ..model.errors import StoreError
from .postgres_connections import Connection, Settings, connect, store_error
from .threads import start_daemon

log = logging.getLogger("clepsydra.storage")

FIRST_BACKOFF: Final = 0.2
LONGEST_BACKOFF: Final = 10.0
"""Seconds between tries while the server is away; each doubles."""
AT_MOST_EVERY: Final = 0.02
"""Seconds between two hints that this node gives."""
SELF_CHECK: Final = 30.0
"""Seconds of silence after which it says something to itself."""
ANSWER_WITHIN: Final = 5.0
"""Seconds in which it has to hear that."""


def channel_of(schema: str) -> str:
    """Where the nodes on a schema speak."""
    return f"clepsydra_{blake2b(schema.encode(), digest_size=8).hexdigest()}"


class Listener:
    """One node's ear and voice."""

    def __init__(self, settings: Settings, name: str, on_hint: Callable[[], object]) -> None:
        self._settings = settings
        self._me = name
        self._on_hint = on_hint
        self._channel = channel_of(settings.schema)
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)
        self._stopped = threading.Event()
        self._unheard = False
        """Something was said that has not been heard here."""
        self.ready = threading.Event()
        """Set while it is known to hear."""
        self.ended = threading.Event()
        start_daemon("clepsydra-listener", self._run)

    def tell(self) -> None:
        """There is news for the other nodes. From any thread; does not wait."""
        with suppress(OSError):  # the bell rings already, or the listener has ended
            self._rope.send(b"!")

    def stop(self) -> None:
        """End, soon. From any thread; does not wait."""
        self._stopped.set()
        self.tell()

    # ---- in the thread

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        with closing(self._bell), closing(self._rope):
            while not self._stopped.is_set():
                try:
                    with closing(connect(self._settings)) as connection:
                        self._begin(connection)
                        backoff = FIRST_BACKOFF
                        self._follow(connection)
                except (psycopg.Error, StoreError, OSError) as error:
                    said = store_error(error, self._settings.where) if isinstance(error, psycopg.Error) else error
                    log.info("nothing is heard of other nodes for %.1f s, they are polled: %s", backoff, said)
                    self._stopped.wait(backoff)
                    backoff = min(2 * backoff, LONGEST_BACKOFF)
                finally:
                    self.ready.clear()
        self.ended.set()

    def _begin(self, connection: Connection) -> None:
        connection.add_notify_handler(lambda said: self._heard(said.payload))
        connection.execute(f"LISTEN {self._channel}".encode())
        self._say(connection)
        self._wait_until_heard(connection)
        self.ready.set()
        self._on_hint()  # what came while nobody listened

    def _follow(self, connection: Connection) -> None:
        while not self._stopped.is_set():
            came = self._wait(connection, SELF_CHECK)
            if connection.fileno() in came:
                self._hear(connection)
            if self._bell.fileno() in came:
                self._drain_bell()
            if not came or self._bell.fileno() in came:
                self._say(connection)
                self._wait_until_heard(connection)
                self._stopped.wait(AT_MOST_EVERY)

    def _wait(self, connection: Connection, seconds: float) -> set[int]:
        """Which of the two have something to say: others, or this node."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            selector.register(connection.fileno(), selectors.EVENT_READ)
            return {key.fd for key, _ in selector.select(seconds)}

    def _drain_bell(self) -> None:
        with suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass

    def _say(self, connection: Connection) -> None:
        self._unheard = True
        connection.execute("SELECT pg_notify(%s, %s)", (self._channel, self._me))

    def _wait_until_heard(self, connection: Connection) -> None:
        """Mostly what was said has come back already. Raises `StoreError` if it does not come."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            while self._unheard:
                if not selector.select(ANSWER_WITHIN):
                    raise StoreError(
                        f"{self._settings.where}: what is said with NOTIFY is not heard here; behind a proxy that "
                        "pools transactions give pooled=True, or listen=False"
                    )
                self._hear(connection)

    def _hear(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while (said := connection.pgconn.notifies()) is not None:
            self._heard(said.extra.decode())

    def _heard(self, who: str) -> None:
        if who == self._me:
            self._unheard = False
        else:
            self._on_hint()
