"""Tells what happens to whoever wants to know, and cannot be hurt by them.

Handlers are plain functions, called at once, on the event loop, in the order in which they were attached: for metrics
and spans. Subscribers are for async code that takes its time: each has a bounded buffer of its own, which drops the
oldest event when it is full and counts that. Nothing in the chain waits for either. It knows the events only by type.

What a subscriber has not read yet is not counted as under way (`clock.activity`): one that never reads would stop a
virtual clock for ever.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field, frozen

from ..model.clock import Clock, SystemClock
from ..model.errors import ClepsydraError, InvalidArgument
from ..model.events import TelemetryEvent

log = logging.getLogger("clepsydra.telemetry")

Handler: TypeAlias = Callable[[TelemetryEvent], object]

SECONDS_BETWEEN_COMPLAINTS = 60.0
"""How often the log tells at most that one handler fails."""


class NotSubscribed(ClepsydraError, RuntimeError):
    """A subscription was iterated without having been entered."""

    def __init__(self) -> None:
        super().__init__("the subscription is not open; write `with telemetry.subscribe() as happenings: ...`")


@frozen
class ListenerHealth:
    """How a handler or a subscriber is doing, for health pages."""

    name: str
    failures: int
    """How often the handler has raised."""
    dropped: int
    """How many events the subscriber has lost because it was slow."""


@define(eq=False)
class _Attached:
    """A handler with the types it wants and its record of failures."""

    handler: Handler
    kinds: tuple[type[TelemetryEvent], ...]
    subscription: Subscription | None = None
    failures: int = 0
    complained_at: float | None = None
    unsaid: int = 0

    def wants(self, kind: type[TelemetryEvent]) -> bool:
        return issubclass(kind, self.kinds)

    @property
    def name(self) -> str:
        handler = self.handler
        return f"{handler.__module__}.{getattr(handler, '__qualname__', type(handler).__qualname__)}"

    def health(self) -> ListenerHealth:
        dropped = 0 if self.subscription is None else self.subscription.dropped
        return ListenerHealth(self.name, self.failures, dropped)


class Telemetry:
    """Where events are emitted and listened to. Used on the event loop's thread only.

    A handler that raises stays attached: its failures are counted, and logged at most once a minute.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.listening = False
        self._clock = SystemClock() if clock is None else clock
        self._attached: tuple[_Attached, ...] = ()
        self._by_kind: dict[type[TelemetryEvent], tuple[_Attached, ...]] = {}

    def attach(self, handler: Handler, events: Iterable[type[TelemetryEvent]] | None = None) -> Callable[[], None]:
        """Call `handler` with each event from now on, or with those of the given types and their subtypes.

        Returns the function that detaches it again; calling that twice does no harm.
        """
        if not _is_plain_function(handler):
            raise InvalidArgument("handler", handler, "must be a plain function; async code takes subscribe()")
        return self._attach(_Attached(handler, _kinds(events)))

    def emit(self, event: TelemetryEvent, /) -> None:
        """Tell an event to all who want it."""
        if not self.listening:
            return
        kind = type(event)
        attached = self._by_kind.get(kind)
        if attached is None:
            attached = self._by_kind[kind] = tuple(each for each in self._attached if each.wants(kind))
        for each in attached:
            try:
                each.handler(event)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                # Not only Exception: no cancellation of ours can come out of a plain function, and a handler that
                # exits must not end the stage that only told it something.
                self._count_failure(each, error)

    def subscribe(self, buffer: int = 1000, events: Iterable[type[TelemetryEvent]] | None = None) -> Subscription:
        """An iterator over the events that are emitted while its `with` block is open.

        with telemetry.subscribe() as happenings:
            async for event in happenings: ...
        """
        return Subscription(self._attach, _kinds(events), _size(buffer))

    def close(self) -> None:
        """No more events will come: every subscription ends once it has been read to its end."""
        for each in self._attached:
            if each.subscription is not None:
                each.subscription.close()

    def listeners(self) -> list[ListenerHealth]:
        """Who listens, how often each has failed and what it has missed."""
        return [each.health() for each in self._attached]

    def _attach(self, attached: _Attached) -> Callable[[], None]:
        self._listen((*self._attached, attached))

        def detach() -> None:
            self._listen(tuple(each for each in self._attached if each is not attached))

        return detach

    def _listen(self, attached: tuple[_Attached, ...]) -> None:
        """A new tuple each time: an `emit` in progress goes on with the old one."""
        self._attached = attached
        self._by_kind = {}
        self.listening = bool(attached)

    def _count_failure(self, attached: _Attached, error: BaseException) -> None:
        attached.failures += 1
        now = self._clock.monotonic()
        last = attached.complained_at
        if last is not None and now - last < SECONDS_BETWEEN_COMPLAINTS:
            attached.unsaid += 1
            return
        log.error(
            "telemetry handler %s failed; it stays attached (%d failures so far, %d since this was last logged)",
            attached.name,
            attached.failures,
            attached.unsaid + 1,
            exc_info=error,
        )
        attached.complained_at, attached.unsaid = now, 0


@define(eq=False)
class Subscription:
    """A bounded view of the events, for async code. Enter it (`with` or `async with`), then iterate.

    `dropped` counts the events that came while the buffer was full; it is the oldest that went.
    """

    _attach: Callable[[_Attached], Callable[[], None]]
    _kinds: tuple[type[TelemetryEvent], ...]
    buffer: int
    dropped: int = field(init=False, default=0)
    _waiting: deque[TelemetryEvent] = field(init=False, factory=deque[TelemetryEvent])
    _news: anyio.Event | None = field(init=False, default=None)
    _detach: Callable[[], None] | None = field(init=False, default=None)
    _closed: bool = field(init=False, default=False)

    def __enter__(self) -> Self:
        self._closed = False
        self._detach = self._attach(_Attached(self._take, self._kinds, self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TelemetryEvent:
        if self._detach is None:
            raise NotSubscribed
        await checkpoint()
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            if self._news is None:
                self._news = anyio.Event()
            await self._news.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        """Take no more events; what is in the buffer can still be read."""
        self._closed = True
        if self._detach is not None:
            self._detach()
        self._tell_readers()

    def _take(self, event: TelemetryEvent) -> None:
        if len(self._waiting) >= self.buffer:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(event)
        self._tell_readers()

    def _tell_readers(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


def _kinds(events: Iterable[type[TelemetryEvent]] | None) -> tuple[type[TelemetryEvent], ...]:
    if events is None:
        return (TelemetryEvent,)
    expected = "must be a collection of event types, e.g. {events.JobAdded}"
    if isinstance(events, type):
        raise InvalidArgument("events", events, expected)
    kinds = tuple(events)
    if not all(_is_event_type(kind) for kind in kinds):
        raise InvalidArgument("events", kinds, expected)
    return kinds


def _size(buffer: object) -> int:
    if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
        raise InvalidArgument("buffer", buffer, "must be a whole number, at least 1")
    return buffer


def _is_event_type(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, TelemetryEvent)


def _is_plain_function(handler: object) -> bool:
    if not callable(handler) or inspect.iscoroutinefunction(handler):
        return False
    return not inspect.iscoroutinefunction(type(handler).__call__)
