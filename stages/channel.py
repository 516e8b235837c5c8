"""A bounded channel between two stages, which outlives the incarnations of both.

Inside is one anyio memory stream. Sending never waits: a stage sends when there is room, and what there is no room for
joins its next batch; `on_room` tells it when to try again. Receiving waits for an item, a nudge, or a time on the
clock. Only `pipeline/wiring.py` makes channels.

It also keeps the books that a virtual clock needs: a receiver is under way, once, from what wakes it until it rests
again. What comes meanwhile is not counted by itself: the receiver finds it before it rests, and if it waits for the
clock inside its work, as for a store that is away, its mail must not hold that clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import accumulate, takewhile
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import frozen

from ..model.clock import Clock

T = TypeVar("T")


@frozen
class Fill:
    """How full a channel is, for health pages."""

    name: str
    waiting: int
    capacity: int
    oldest: float
    """Seconds that the oldest waiting item has been waiting."""


class Channel(Generic[T]):
    """A bounded channel of `T`, usually of batches."""

    def __init__(self, name: str, capacity: int, clock: Clock, on_room: Callable[[], None] | None = None) -> None:
        self.name = name
        self.capacity = capacity
        self.on_room = on_room
        self._clock = clock
        self._refused = False
        self._nudged = False
        self._counted = False
        self._since: deque[float] = deque()
        self._arrival: anyio.Event | None = None
        """While the receiver waits: set by whoever sends or nudges."""
        self._send: MemoryObjectSendStream[T] | None = None
        self._receive: MemoryObjectReceiveStream[T] | None = None

    # ---- the receiver's side

    @contextmanager
    def attended(self) -> Generator[None]:
        """One incarnation of the receiver: it starts with an empty channel, and leaves nothing counted behind."""
        self._send, self._receive = anyio.create_memory_object_stream[T](self.capacity)
        self._count_in()
        self._room_again()
        try:
            yield
        finally:
            self._close()

    async def receive(self, timeout: float | None = None, at_most: float | None = None) -> T | None:
        """The next item; None after a nudge or when `timeout` seconds have passed on the clock. Always a checkpoint.

        `at_most` is how long it may go without a look at the wall clock (`Clock.wake_after`).
        """
        waits = not self._since and not self._nudged and (timeout is None or timeout > 0)
        if waits:
            self._rest()
            await self._wait(timeout, at_most)
        else:
            await checkpoint()  # it has more to do and does not come to rest
        self._nudged = False
        return self._take()

    # ---- the sender's side

    def send_nowait(self, item: T) -> bool:
        """Send, unless the channel is full or nobody attends it; then `on_room` is called when that has changed."""
        if not self.has_room():
            return False
        assert self._send is not None
        self._send.send_nowait(item)
        self._since.append(self._clock.monotonic())
        self._wake()
        return True

    def nudge(self) -> None:
        """Wake the receiver: something that it looks at has changed."""
        if self._nudged or self._send is None:
            return
        self._nudged = True
        self._wake()

    def has_room(self) -> bool:
        """Whether `send_nowait` would send; if not, `on_room` is called when it would."""
        room = self._send is not None and len(self._since) < self.capacity
        self._refused = self._refused or not room
        return room

    def fill(self) -> Fill:
        """How full it is."""
        oldest = self._clock.monotonic() - self._since[0] if self._since else 0.0
        return Fill(self.name, len(self._since), self.capacity, oldest)

    # ---- inside

    async def _wait(self, timeout: float | None, at_most: float | None) -> None:
        arrival = self._arrival = anyio.Event()
        if timeout is None and at_most is None:
            await arrival.wait()
            return
        with self._clock.wake_after(timeout, at_most) as waiting:
            await arrival.wait()
        if waiting.fired:
            if self._counted:
                self._clock.activity.ended()  # something came at the same time, and has counted it in
            self._counted = True

    def _wake(self) -> None:
        self._count_in()
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None

    def _take(self) -> T | None:
        if not self._since or self._receive is None:
            return None
        item = self._receive.receive_nowait()
        self._since.popleft()
        self._room_again()
        return item

    def _close(self) -> None:
        assert self._send is not None
        assert self._receive is not None
        self._send.close()
        self._receive.close()
        self._send = self._receive = self._arrival = None
        self._nudged = False
        self._since.clear()
        self._rest()

    def _room_again(self) -> None:
        if self._refused and self.on_room is not None:
            self._refused = False
            self.on_room()

    def _count_in(self) -> None:
        if not self._counted:
            self._counted = True
            self._clock.activity.began()

    def _rest(self) -> None:
        """What was in hand is dealt with."""
        if self._counted:
            self._counted = False
            self._clock.activity.ended()


def _one(_: object) -> int:
    return 1


class Outbox(Generic[T]):
    """What a stage has to send: goes out in batches as far as there is room, the rest waits for the next time."""

    def __init__(self, channel: Channel[list[T]], batch: int, size_of: Callable[[T], int] = _one) -> None:
        self._channel = channel
        self._batch = batch
        self._size_of = size_of
        """How much of a batch an item is."""
        self._waiting: list[T] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T) -> None:
        """Send this with the next batch."""
        self._waiting.append(item)

    def flush(self) -> None:
        """Send what there is room for."""
        while self._waiting:
            count = self._count_in_batch()
            if not self._channel.send_nowait(self._waiting[:count]):
                return
            del self._waiting[:count]

    def _count_in_batch(self) -> int:
        """How many of the items are one batch: one at least."""
        sizes = accumulate(map(self._size_of, self._waiting))
        return max(1, sum(1 for _ in takewhile(lambda size: size <= self._batch, sizes)))
