"""Telemetry reaches whoever listens, in order, and cannot be hurt by them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint

from clepsydra.model import events
from clepsydra.model.errors import InvalidArgument
from clepsydra.model.events import Emitter, TelemetryEvent
from clepsydra.model.execution import Kind, State
from clepsydra.model.instants import SECOND, to_instant
from clepsydra.model.job import JobState
from clepsydra.pipeline.telemetry import NotSubscribed, Telemetry
from clepsydra.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

AT = to_instant(datetime(2026, 1, 1, tzinfo=UTC))


def job_added(name: str = "feeds") -> events.JobAdded:
    return events.JobAdded(at=AT, job=name, job_id="1", generation=1, state=JobState.ACTIVE)


def job_removed(name: str = "feeds") -> events.JobRemoved:
    return events.JobRemoved(at=AT, job=name, job_id="1", generation=1)


def stopped() -> events.ExecutionStopped:
    return events.ExecutionStopped(
        at=AT, execution_id="x", task="t", queue="q", attempt=1, duration=3 * SECOND, state=State.SUCCEEDED
    )


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def telemetry(clock: VirtualClock) -> Telemetry:
    return Telemetry(clock)


# Handlers.


def test_it_is_an_emitter_and_so_is_silence(telemetry: Telemetry) -> None:
    emitters: list[Emitter] = [telemetry, events.SILENCE]

    for emitter in emitters:
        emitter.emit(job_added())

    assert [emitter.listening for emitter in emitters] == [False, False]


def test_handlers_hear_events_at_once_in_the_order_of_attachment(telemetry: Telemetry) -> None:
    heard: list[tuple[str, TelemetryEvent]] = []
    telemetry.attach(lambda event: heard.append(("first", event)))
    telemetry.attach(lambda event: heard.append(("second", event)))

    event = job_added()
    telemetry.emit(event)

    assert telemetry.listening
    assert heard == [("first", event), ("second", event)]


def test_a_handler_hears_only_the_types_that_it_asked_for_and_their_subtypes(telemetry: Telemetry) -> None:
    heard: list[TelemetryEvent] = []
    telemetry.attach(heard.append, events={events.JobEvent, events.StoreDegraded})

    expected = [job_added(), job_removed(), events.StoreDegraded(at=AT, error="disk full", since=AT)]
    for event in [*expected, stopped()]:
        telemetry.emit(event)

    assert heard == expected


def test_an_empty_choice_of_types_means_nothing(telemetry: Telemetry) -> None:
    heard: list[TelemetryEvent] = []
    telemetry.attach(heard.append, events=[])

    telemetry.emit(job_added())

    assert heard == []


def test_a_detached_handler_hears_no_more(telemetry: Telemetry) -> None:
    heard: list[TelemetryEvent] = []
    detach = telemetry.attach(heard.append)
    telemetry.emit(job_added())

    detach()
    detach()
    telemetry.emit(job_removed())

    assert heard == [job_added()]
    assert not telemetry.listening


def test_a_handler_may_detach_itself_and_attach_others_while_it_is_called(telemetry: Telemetry) -> None:
    heard: list[str] = []

    def once(event: TelemetryEvent) -> None:
        heard.append("once")
        detach()
        telemetry.attach(lambda event: heard.append("later"))

    detach = telemetry.attach(once)
    telemetry.attach(lambda event: heard.append("other"))
    telemetry.emit(job_added())
    telemetry.emit(job_added())

    assert heard == ["once", "other", "other", "later"]


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1), asyncio.CancelledError()])
def test_a_handler_that_raises_stays_attached_and_hurts_nobody(
    telemetry: Telemetry, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[TelemetryEvent] = []

    def broken(event: TelemetryEvent) -> None:
        raise error

    telemetry.attach(broken)
    telemetry.attach(heard.append)
    telemetry.emit(job_added())
    telemetry.emit(job_removed())

    assert heard == [job_added(), job_removed()]
    assert [listener.failures for listener in telemetry.listeners()] == [2, 0]
    assert "broken" in telemetry.listeners()[0].name
    assert "broken failed; it stays attached" in caplog.text


def test_a_keyboard_interrupt_in_a_handler_is_the_users(telemetry: Telemetry) -> None:
    def interrupted(event: TelemetryEvent) -> None:
        raise KeyboardInterrupt

    telemetry.attach(interrupted)

    with pytest.raises(KeyboardInterrupt):
        telemetry.emit(job_added())


async def test_a_handler_that_keeps_raising_is_logged_once_a_minute(
    telemetry: Telemetry, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: TelemetryEvent) -> None:
        raise ValueError("broken")

    telemetry.attach(broken)
    for _ in range(12):
        telemetry.emit(job_added())
        await clock.advance(10)

    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[1].endswith("(7 failures so far, 6 since this was last logged)")


async def coroutine_function(event: TelemetryEvent) -> None:
    """Not a handler."""


class AsyncCallable:
    async def __call__(self, event: TelemetryEvent) -> None:
        """Not a handler either."""


@pytest.mark.parametrize("handler", [coroutine_function, AsyncCallable(), None])
def test_a_handler_that_is_no_plain_function_is_refused(telemetry: Telemetry, handler: object) -> None:
    with pytest.raises(InvalidArgument, match="handler="):
        telemetry.attach(handler)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kinds", [events.JobAdded, [int], ["JobAdded"]])
def test_what_is_no_collection_of_event_types_is_refused(telemetry: Telemetry, kinds: object) -> None:
    with pytest.raises(InvalidArgument, match="events="):
        telemetry.attach(print, kinds)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Subscribers.


async def test_a_subscriber_gets_the_events_of_its_block_in_order(telemetry: Telemetry) -> None:
    telemetry.emit(job_added("before"))
    heard: list[TelemetryEvent] = []

    with telemetry.subscribe() as happenings:
        telemetry.emit(job_added())
        telemetry.emit(job_removed())
        async for event in happenings:
            heard.append(event)
            if len(heard) == 2:
                break
    telemetry.emit(job_added("after"))

    assert heard == [job_added(), job_removed()]
    assert not telemetry.listening


async def test_a_subscriber_waits_for_what_comes(telemetry: Telemetry) -> None:
    heard: list[TelemetryEvent] = []

    async def read() -> None:
        async with telemetry.subscribe(events=[events.JobRemoved]) as happenings:
            async for event in happenings:
                heard.append(event)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for _ in range(3):
            await checkpoint()
        telemetry.emit(job_added())
        telemetry.emit(job_removed())
        telemetry.close()

    assert heard == [job_removed()]


async def test_a_slow_subscriber_loses_the_oldest_events_and_knows_how_many(telemetry: Telemetry) -> None:
    with telemetry.subscribe(buffer=2) as happenings:
        for name in "abcde":
            telemetry.emit(job_added(name))
        assert telemetry.listeners()[0].dropped == 3
        telemetry.close()
        heard = [event async for event in happenings]

    assert heard == [job_added("d"), job_added("e")]
    assert happenings.dropped == 3


async def test_subscribers_do_not_take_events_from_each_other(telemetry: Telemetry) -> None:
    with telemetry.subscribe(buffer=1) as one, telemetry.subscribe() as other:
        telemetry.emit(job_added())
        telemetry.emit(job_removed())
        telemetry.close()

        assert [event async for event in one] == [job_removed()]
        assert [event async for event in other] == [job_added(), job_removed()]


async def test_two_readers_of_one_subscription_share_its_events(telemetry: Telemetry) -> None:
    heard: list[TelemetryEvent] = []

    with telemetry.subscribe() as happenings:

        async def read() -> None:
            async for event in happenings:
                heard.append(event)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(read)
            for _ in range(3):
                await checkpoint()
            telemetry.emit(job_added())
            for _ in range(3):
                await checkpoint()
            telemetry.emit(job_removed())
            for _ in range(3):
                await checkpoint()
            telemetry.close()

    assert heard == [job_added(), job_removed()]


async def test_a_reader_that_is_cancelled_loses_nothing(telemetry: Telemetry) -> None:
    with telemetry.subscribe() as happenings:
        with anyio.CancelScope() as scope:
            telemetry.emit(job_added())
            scope.cancel()
            await anext(happenings)

        assert await anext(happenings) == job_added()


async def test_reading_many_events_leaves_room_for_others(telemetry: Telemetry) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        with telemetry.subscribe() as happenings:
            for _ in range(640):
                telemetry.emit(job_added())
            for _ in range(640):
                await anext(happenings)
        group.cancel_scope.cancel()

    assert turns >= 10


async def test_a_subscription_is_entered_before_it_is_read(telemetry: Telemetry) -> None:
    with pytest.raises(NotSubscribed, match=r"with telemetry\.subscribe"):
        await anext(telemetry.subscribe())


@pytest.mark.parametrize("buffer", [0, -1, 1.5, True, None])
def test_a_buffer_that_cannot_be_is_refused(telemetry: Telemetry, buffer: object) -> None:
    with pytest.raises(InvalidArgument, match="buffer="):
        telemetry.subscribe(buffer=buffer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Events.


def all_event_types(base: type[TelemetryEvent] = TelemetryEvent) -> list[type[TelemetryEvent]]:
    return [base, *(each for kind in base.__subclasses__() for each in all_event_types(kind))]


@pytest.mark.parametrize("kind", all_event_types())
def test_every_event_is_frozen_and_says_what_it_means(kind: type[TelemetryEvent]) -> None:
    assert kind.__doc__
    assert kind.__setattr__ is not object.__setattr__
    assert "at" in attrs.fields_dict(kind)


def test_times_are_shown_as_datetimes_and_lengths_as_timedeltas() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    started = events.ExecutionStarted(
        at=AT, execution_id="x", task="t", queue="q", attempt=1, nominal=AT - SECOND, late_by=SECOND
    )
    missed = events.ExecutionsMissed(
        at=AT, job="j", job_id="1", generation=1, kind=Kind.MISSED, first=AT, last=AT + SECOND
    )
    degraded = events.StoreDegraded(at=AT, error="e", since=AT)

    assert (started.happened_at, started.nominal_time, started.lateness) == (
        at,
        at - timedelta(seconds=1),
        timedelta(seconds=1),
    )
    assert (missed.first_time, missed.last_time) == (at, at + timedelta(seconds=1))
    assert stopped().took == timedelta(seconds=3)
    assert stopped().nominal_time is None
    assert degraded.since_time == at


def test_an_update_says_whether_the_definition_has_changed() -> None:
    paused = events.JobUpdated(
        at=AT,
        job="j",
        job_id="1",
        generation=2,
        old_generation=2,
        old_state=JobState.ACTIVE,
        new_state=JobState.PAUSED,
    )

    assert not paused.redefined
    assert attrs.evolve(paused, old_generation=1).redefined
