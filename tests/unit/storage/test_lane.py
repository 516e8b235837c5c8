"""The lane batches writes, answers reads beside them, waits out outages, and survives calls that never return."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from typing import Any, cast

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from clepsydra.model.clock import SystemClock
from clepsydra.model.errors import (
    InvalidArgument,
    SchedulerNotRunning,
    StoreBusy,
    StoreContended,
    StoreError,
    StoreTooNew,
    StoreUnavailable,
)
from clepsydra.model.events import RowQuarantined, StoreDegraded, StoreRecovered, TelemetryEvent
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.strategies import Node
from clepsydra.storage import call_queue, lane
from clepsydra.storage.call_queue import OneOfMany
from clepsydra.storage.lane import Companion, StorageLane
from clepsydra.storage.protocol import Quarantined, Storage
from clepsydra.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

CALL_DEADLINE = 10
NODE = cast(Node, object())  # the lane hands it on and never looks at it


class Store:
    """Remembers notes, one list for each transaction that was committed, and fails where the test tells it to."""

    def __init__(self, *, blocking: bool = True) -> None:
        self.blocking = blocking
        self.committed: list[list[str]] = []
        self.begun = 0
        self.interrupts = 0
        self.diary: list[str] = []
        self.quarantined: list[Quarantined] = []
        self.at_begin: Callable[[], object] = lambda: None
        self.at_commit: Callable[[], object] = lambda: None
        self.at_open: Callable[[], object] = lambda: None
        self.at_quarantine: Callable[[], object] = lambda: None
        self.at_interrupt: Callable[[], object] = lambda: None
        self.here = threading.local()

    @contextmanager
    def transaction(self) -> Generator[None]:
        self.begun += 1
        self.at_begin()
        self.here.notes = notes = list[str]()
        try:
            yield
        finally:
            del self.here.notes
        if notes:
            self.at_commit()
        self.committed.append(notes)

    def note(self, text: str) -> str:
        self.here.notes.append(text)
        return text

    def open(self, node: Node, now: Instant) -> None:
        self.at_open()
        self.diary.append(f"open, in a transaction: {hasattr(self.here, 'notes')}")

    def close(self) -> None:
        self.diary.append("close")

    def interrupt(self) -> None:
        self.interrupts += 1
        self.at_interrupt()

    def take_quarantined(self) -> Sequence[Quarantined]:
        self.at_quarantine()
        taken, self.quarantined = self.quarantined, []
        return taken

    @property
    def notes(self) -> list[str]:
        return [note for notes in self.committed for note in notes]


def note(text: str) -> Callable[[Storage], str]:
    return lambda storage: cast(Store, storage).note(text)


def seven(_: Storage) -> int:
    return 7


class Gate:
    """A call, or a step of the store, that waits in its thread until the test lets it through."""

    def __init__(self, text: str = "", *, only_first: bool = False) -> None:
        self.text = text
        self.only_first = only_first
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.passed = threading.Event()

    def __call__(self, storage: Storage | None = None) -> str:
        if not (self.only_first and self.entered.is_set()):
            self.entered.set()
            assert self.opened.wait(10)
        if self.text and storage is not None:
            cast(Store, storage).note(self.text)
        self.passed.set()
        return self.text


class Outage:
    """Raises so many times."""

    def __init__(self, times: int, error: Exception | None = None) -> None:
        self.left = times
        self.error = StoreUnavailable("the disk is gone") if error is None else error

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise self.error


class Play:
    """A lane on such a store, and what it tells."""

    def __init__(self, *, blocking: bool = True) -> None:
        self.clock = VirtualClock(patience=5)
        self.watch = VirtualClock(patience=5)
        self.store = Store(blocking=blocking)
        self.events: list[TelemetryEvent] = []
        self.lane = StorageLane(
            cast(Storage, self.store),
            self.clock,
            call_deadline=CALL_DEADLINE,
            on_event=self.events.append,
            watch=self.watch,
        )
        self.answers: dict[str, object] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[TaskGroup]:
        async with anyio.create_task_group() as group:
            await group.start(self.lane.run)
            with anyio.fail_after(10):
                yield group
            group.cancel_scope.cancel()
        assert self.clock.activity.count == 0, "somebody is still counted as under way"

    def write(self, group: TaskGroup, text: str, call: Callable[[Storage], object] | None = None, **how: Any) -> None:
        """In a task of its own; its answer or its error comes under the text."""
        group.start_soon(self._ask, text, lambda: self.lane.write(call or note(text), counted=False, **how))

    def read(self, group: TaskGroup, text: str, call: Callable[[Storage], object], **how: Any) -> None:
        """As `write`."""
        group.start_soon(self._ask, text, lambda: self.lane.read(call, counted=False, **how))

    async def _ask(self, text: str, ask: Callable[[], Awaitable[object]]) -> None:
        try:
            self.answers[text] = await ask()
        except Exception as error:
            self.answers[text] = error

    async def until_it_hangs(self, gate: Gate) -> None:
        """The thread is at the gate, and for so long that it is given up on."""
        abandoned = self.lane.statistics().abandoned
        await until(gate.entered.is_set)
        await self.watch.advance(CALL_DEADLINE)
        assert self.lane.statistics().abandoned == abandoned + 1

    @asynccontextmanager
    async def writer_held(self, group: TaskGroup) -> AsyncGenerator[None]:
        """Inside, the writer's thread is in a call, and what is written queues up."""
        gate = Gate()
        self.write(group, "holds the writer", gate)
        await until(gate.entered.is_set)
        try:
            yield
        finally:
            gate.opened.set()

    async def queue(
        self, group: TaskGroup, text: str, call: Callable[[Storage], object] | None = None, **how: Any
    ) -> None:
        """As `write`, with the writer held: when it returns, the call stands behind those before it."""
        count = self.lane.statistics().queued + 1
        self.write(group, text, call, **how)
        await self.until_queued(count)

    async def until_queued(self, count: int) -> None:
        await until(lambda: self.lane.statistics().queued == count)


async def until(fact: Callable[[], object]) -> None:
    with anyio.fail_after(5):
        while not fact():
            await checkpoint()


# ---- Calls and batches


async def test_a_call_runs_in_another_thread_and_its_result_comes_back() -> None:
    play = Play()

    async with play.running():
        writer = await play.lane.write(lambda _: threading.current_thread())
        reader = await play.lane.read(lambda _: threading.current_thread())

    assert len({writer, reader, threading.current_thread()}) == 3
    assert writer.daemon
    assert reader.daemon


async def test_what_is_pending_when_a_flush_returns_is_the_next_flush() -> None:
    play = Play()

    async with play.running() as group:
        async with play.writer_held(group):
            for text in "abcde":
                await play.queue(group, text)
        await until(lambda: len(play.answers) == 6)

    assert play.store.committed == [[], ["a", "b", "c", "d", "e"]]
    assert play.answers["c"] == "c"


async def test_commands_go_before_other_calls() -> None:
    play = Play()

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "work")
            await play.queue(group, "command", command=True)
        await until(lambda: len(play.answers) == 3)

    assert play.store.committed[1] == ["command", "work"]


async def test_a_companion_goes_down_behind_the_commands_of_its_flush_and_answers_before_its_caller_goes_on() -> None:
    play = Play()
    told: list[object] = []

    def bring() -> Companion:
        return Companion(note("companion"), "a companion", lambda answer, error: told.extend((answer, error)))

    async def first() -> None:
        told.append(await play.lane.write(note("first"), command=True, counted=False, bring=bring))

    async with play.running() as group:
        async with play.writer_held(group):
            group.start_soon(first)
            await play.until_queued(2)
            await play.queue(group, "second", command=True)
        await until(lambda: len(told) == 3)

    assert play.store.committed == [[], ["first", "second", "companion"]]
    assert told == ["companion", None, "first"]


@pytest.mark.parametrize("where", ["at_begin", "at_commit"])
async def test_a_companion_is_tried_once_and_its_caller_goes_on_without_it(where: str) -> None:
    play = Play()
    told: list[object] = []
    brought: list[Companion] = []

    def bring() -> Companion:
        brought.append(Companion(note("companion"), "a companion", lambda answer, error: told.append(error)))
        return brought[-1]

    setattr(play.store, where, Outage(1))
    async with play.running() as group:
        play.write(group, "call", bring=bring)
        await play.clock.advance(1)

    assert play.store.committed[-1] == ["call"]
    assert [type(error) for error in told] == [StoreUnavailable]
    assert len(brought) == 1


async def test_neither_commands_nor_work_fill_a_flush_alone() -> None:
    play = Play()

    async with play.running() as group:
        async with play.writer_held(group):
            for number in range(100):
                await play.queue(group, f"work {number}")
                await play.queue(group, f"command {number}", command=True)
        await until(lambda: len(play.answers) == 201)

    kinds = [[text.split()[0] for text in notes] for notes in play.store.committed]
    assert kinds[1] == ["command"] * call_queue.COMMANDS_A_FLUSH + ["work"] * call_queue.CALLS_A_FLUSH
    assert len(play.store.notes) == 200


async def test_a_bad_call_fails_alone() -> None:
    play = Play()

    def bad(storage: Storage) -> None:
        note("bad")(storage)
        raise ValueError("not this one")

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "a")
            await play.queue(group, "bad", bad)
            await play.queue(group, "c")
        await until(lambda: len(play.answers) == 4)

    assert play.store.committed == [[], ["a"], ["c"]]
    assert isinstance(play.answers["bad"], ValueError)
    assert play.lane.losses == 0
    assert play.lane.state == "ok"


async def test_calls_of_one_kind_that_stand_together_are_made_at_once_and_a_bad_one_fails_alone() -> None:
    play = Play()
    groups: list[list[str]] = []

    def many(storage: Storage, texts: list[str]) -> list[str]:
        groups.append(texts)
        if "bad" in texts:
            raise ValueError("not this one")
        return [cast(Store, storage).note(text) for text in texts]

    async def queued(texts: Sequence[str]) -> None:
        async with play.writer_held(group):
            for text in texts:
                await play.queue(group, text, note("other") if text == "other" else OneOfMany(many, text))
        await until(lambda: all(text in play.answers for text in texts))

    async with play.running() as group:
        await queued(["a", "b", "other", "c"])
        await queued(["d", "bad", "e"])

    assert play.store.committed == [[], ["a", "b", "other", "c"], [], ["d"], ["e"]]
    assert groups == [["a", "b"], ["c"], ["d", "bad", "e"], ["d"], ["bad"], ["e"]]
    assert [play.answers[text] for text in "abcde"] == ["a", "b", "c", "d", "e"]
    assert isinstance(play.answers["bad"], ValueError)


async def test_a_call_that_others_are_in_the_way_of_comes_after_the_answers_of_the_rest() -> None:
    """It may wait for them, for a second each time."""
    play = Play()
    tries: list[str] = []
    again = Gate()

    def contended(storage: Storage) -> None:
        tries.append("contended")
        if len(tries) == 2:
            again()
        raise StoreContended("another stands in the way")

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "late", contended, deadline=1)
            for text in ("a", "b", "c"):
                await play.queue(group, text)
        await until(again.entered.is_set)
        await until(lambda: set(play.answers) == {"holds the writer", "a", "b", "c"})
        again.opened.set()
        await play.clock.advance(2)

    assert play.store.committed == [[], ["a"], ["b"], ["c"]]
    assert isinstance(play.answers["late"], StoreBusy)
    assert play.lane.losses == 0


async def test_calls_that_others_are_in_the_way_of_say_nothing_of_those_behind_them() -> None:
    play = Play()

    def contended(storage: Storage) -> None:
        raise StoreContended("another stands in the way")

    async with play.running() as group:
        async with play.writer_held(group):
            for number in range(call_queue.STORE_IS_DOWN + 2):
                await play.queue(group, f"{number}", contended, deadline=0.01)
            await play.queue(group, "free")
        await until(lambda: "free" in play.answers)
        await play.clock.advance(1)

    assert play.store.notes == ["free"]


async def test_when_the_store_is_down_not_every_call_of_a_flush_has_to_find_out() -> None:
    play = Play()
    tries: list[str] = []

    def failing(storage: Storage) -> None:
        tries.append("again")
        raise StoreUnavailable("gone")

    async with play.running() as group:
        async with play.writer_held(group):
            for number in range(20):
                await play.queue(group, f"{number}", failing, deadline=0.01)
        await until(lambda: play.lane.state == "degraded")
        assert len(tries) == 1 + call_queue.STORE_IS_DOWN
        await play.clock.advance(1)

    assert [type(answer) for answer in play.answers.values()] == [str] + [StoreBusy] * 20


async def test_a_failed_commit_is_everybodys_error_and_a_loss() -> None:
    play = Play()

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "a")
            await play.queue(group, "b")
            play.store.at_commit = Outage(1, ZeroDivisionError("a bug of the adapter"))
        await until(lambda: len(play.answers) == 3)

    assert [type(play.answers[text]) for text in "ab"] == [ZeroDivisionError] * 2
    assert play.lane.losses == 2


async def test_a_write_whose_commit_failed_for_a_moment_is_repeated() -> None:
    play = Play()
    clock = play.clock
    play.store.at_commit = Outage(1)

    async with play.running() as group:
        play.write(group, "a")
        await clock.advance(1)

    assert play.answers == {"a": "a"}
    assert play.store.committed == [["a"]]
    assert play.lane.losses == 1


async def test_reads_do_not_wait_for_the_writer() -> None:
    play = Play()

    async with play.running() as group, play.writer_held(group):
        assert await play.lane.read(lambda _: "read") == "read"


async def test_a_read_that_fails_concerns_nobody_else() -> None:
    play = Play()
    gate = Gate()
    answers: list[object] = []

    def bad(_: Storage) -> None:
        raise ValueError("not this one")

    async def reader(call: Callable[[Storage], object]) -> None:
        try:
            answers.append(await play.lane.read(call, counted=False))
        except ValueError as error:
            answers.append(str(error))

    async with play.running() as group:
        group.start_soon(reader, gate)
        await until(gate.entered.is_set)
        group.start_soon(reader, bad)
        group.start_soon(reader, seven)
        await play.until_queued(2)
        gate.opened.set()
        await until(lambda: len(answers) == 3)

    assert set(answers) == {"", "not this one", 7}
    assert play.store.begun == 0


# ---- Outages


async def test_a_transient_failure_is_waited_out_and_told_once() -> None:
    play = Play()
    clock = play.clock
    play.store.at_begin = Outage(4)

    async with play.running() as group:
        for text in "abc":
            play.write(group, text)
        await until(lambda: play.lane.state == "degraded")
        degraded_since = play.lane.degraded_since
        await clock.advance(10)

    assert sorted(play.store.notes) == ["a", "b", "c"]
    begins, ends = play.events
    assert isinstance(begins, StoreDegraded)
    assert begins.since == degraded_since
    assert "the disk is gone" in begins.error
    assert isinstance(ends, StoreRecovered)
    assert 0 < ends.outage < SECOND
    assert play.lane.state == "ok"
    assert play.lane.degraded_since is None


async def test_the_backoff_doubles_up_to_two_seconds() -> None:
    play = Play()
    clock = play.clock
    tries: list[float] = []

    def failing(storage: Storage) -> None:
        tries.append(clock.monotonic())
        raise StoreUnavailable("gone")

    async with play.running() as group:
        play.write(group, "a", failing, deadline=10)
        await clock.advance(20)

    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2])


async def test_a_counted_caller_that_backs_off_does_not_hold_time_up() -> None:
    play = Play()
    clock = play.clock
    play.store.at_begin = Outage(5)
    answers: list[str] = []

    async def stage() -> None:
        clock.activity.began()
        answers.append(await play.lane.write(note("a")))
        answers.append(await play.lane.read(lambda _: "b"))
        clock.activity.ended()

    async with play.running() as group:
        group.start_soon(stage)
        await clock.advance(10)

    assert answers == ["a", "b"]


async def test_virtual_time_stands_still_while_a_call_is_in_its_thread() -> None:
    play = Play()
    clock = play.clock
    began = clock.time

    async with play.running() as group:
        async with play.writer_held(group):
            group.start_soon(clock.advance, 3600)
            for _ in range(50):
                await checkpoint()
            assert clock.time == began
        await until(lambda: (clock.time - began).total_seconds() == 3600)


async def test_a_command_is_given_up_on_at_its_deadline_while_the_writer_hangs() -> None:
    store = Store()
    lane_in_real_time = StorageLane(cast(Storage, store), SystemClock())
    gate = Gate()

    async with anyio.create_task_group() as group:
        await group.start(lane_in_real_time.run)
        group.start_soon(lane_in_real_time.write, gate)
        await until(gate.entered.is_set)
        with pytest.raises(StoreBusy, match=r"pausing: not done within 0\.01 s"):
            await lane_in_real_time.write(note("late"), deadline=0.01, command=True, what="pausing")
        assert lane_in_real_time.statistics().queued == 0
        gate.opened.set()
        await lane_in_real_time.write(note("next"))
        group.cancel_scope.cancel()

    assert store.notes == ["next"]


async def test_at_its_deadline_a_write_says_what_was_not_done_and_why() -> None:
    play = Play()
    clock = play.clock
    play.store.at_begin = Outage(1000)

    async with play.running() as group:
        play.write(group, "a", what="adding jobs", deadline=3)
        await clock.advance(2.9)
        assert not play.answers
        await clock.advance(0.2)

    error = play.answers["a"]
    assert isinstance(error, StoreBusy)
    assert str(error) == "adding jobs: not done within 3 s; the last error: the disk is gone"
    assert isinstance(error.__cause__, StoreUnavailable)


@pytest.mark.parametrize("blocking", [True, False])
async def test_what_is_not_transient_is_raised_at_once(blocking: bool) -> None:
    play = Play(blocking=blocking)
    play.store.at_begin = Outage(1, StoreError("this will never work"))

    async with play.running():
        with pytest.raises(StoreError, match="never"):
            await play.lane.write(note("a"), counted=False, deadline=1)

    assert play.events == []


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_read_without_retry_fails_at_once(blocking: bool) -> None:
    play = Play(blocking=blocking)
    outage = Outage(1)

    async with play.running():
        with pytest.raises(StoreUnavailable):
            await play.lane.read(lambda _: outage(), retry=False)
        assert play.lane.state == "degraded"
        await play.lane.read(lambda _: outage(), retry=False)

    assert [type(event) for event in play.events] == [StoreDegraded, StoreRecovered]


async def test_a_reader_that_answers_does_not_end_the_outage_of_the_writer() -> None:
    play = Play()
    clock = play.clock
    play.store.at_begin = Outage(3)

    async with play.running() as group:
        play.write(group, "a")
        await until(lambda: play.lane.state == "degraded")
        await play.lane.read(lambda _: None)
        assert play.lane.state == "degraded"
        await clock.advance(10)

    assert [type(event) for event in play.events] == [StoreDegraded, StoreRecovered]


@pytest.mark.parametrize(("in_the_way", "told"), [(3, []), (8, [StoreDegraded, StoreRecovered])])
async def test_another_transaction_in_the_way_is_an_outage_only_when_it_stays_there(
    in_the_way: int, told: list[type]
) -> None:
    play = Play()
    play.store.at_begin = Outage(in_the_way, StoreContended("another stands in the way"))

    async with play.running() as group:
        play.write(group, "a")
        await play.clock.advance(20)

    assert play.store.notes == ["a"]
    assert [type(event) for event in play.events] == told


# ---- Hanging calls


async def test_beside_a_hanging_write_others_are_written_and_read() -> None:
    play = Play()
    gate = Gate("hung", only_first=True)

    async with play.running() as group:
        play.write(group, "hanging", gate, deadline=5)
        await until(gate.entered.is_set)
        assert await play.lane.read(lambda _: "read") == "read"
        play.write(group, "other", command=True)
        await play.until_it_hangs(gate)
        await until(lambda: "other" in play.answers)
        then = play.lane.statistics(), play.lane.losses, play.store.interrupts
        await play.clock.advance(1)
        gate.opened.set()
        await until(lambda: not play.lane.statistics().abandoned)

    assert (then[0].abandoned, *then[1:]) == (1, 1, 1)
    assert play.answers == {"other": "other", "hanging": "hung"}
    assert play.store.notes == ["other", "hung"], "the thread that came back must not commit"
    assert [type(event) for event in play.events] == [StoreDegraded, StoreRecovered]


async def test_the_other_calls_of_a_flush_that_hangs_are_taken_over() -> None:
    play = Play()
    gate = Gate("hung")

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "before")
            await play.queue(group, "hanging", gate, deadline=0.01)
            await play.queue(group, "after")
        await play.until_it_hangs(gate)
        await until(lambda: {"before", "after"} <= play.answers.keys())
        await play.clock.advance(1)
        gate.opened.set()
        await until(lambda: not play.lane.statistics().abandoned)

    assert play.store.committed == [[], ["before", "after"]]
    assert isinstance(play.answers["hanging"], StoreBusy)


@pytest.mark.parametrize(("where", "losses"), [("at_begin", 0), ("at_commit", 2)])
async def test_a_transaction_that_hangs_is_that_of_all_its_calls(where: str, losses: int) -> None:
    play = Play()
    gate = Gate(only_first=True)

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "a")
            await play.queue(group, "b")
            setattr(play.store, where, gate)
        await play.until_it_hangs(gate)
        await until(lambda: play.lane.state == "degraded")
        lost = play.lane.losses
        await play.clock.advance(1)
        gate.opened.set()
        await until(lambda: not play.lane.statistics().abandoned)

    assert lost == losses
    assert play.answers["b"] == "b"


async def test_a_hanging_read_is_given_up_on_and_the_next_one_answers() -> None:
    play = Play()
    gate = Gate()

    async with play.running() as group:
        play.read(group, "hanging", gate, retry=False, what="counting")
        await play.until_it_hangs(gate)
        assert await play.lane.read(seven) == 7
        gate.opened.set()
        await until(lambda: not play.lane.statistics().abandoned)

    assert str(play.answers["hanging"]).startswith("counting: the store has not answered within 10 s")
    assert play.lane.losses == 0
    assert play.store.interrupts == 1


async def test_an_interrupt_that_hangs_holds_up_nobody_for_long() -> None:
    play = Play()
    gate, interrupt = Gate(), Gate(only_first=True)
    play.store.at_interrupt = interrupt

    async with play.running() as group:
        play.read(group, "hanging", gate, retry=False)
        await play.until_it_hangs(gate)
        play.read(group, "next", seven)
        await play.until_it_hangs(interrupt)
        await until(lambda: play.answers.get("next") == 7)
        assert play.lane.statistics().abandoned == 2
        gate.opened.set()
        interrupt.opened.set()
        await until(lambda: not play.lane.statistics().abandoned)


async def test_what_the_store_raises_beside_its_calls_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    play = Play()
    gate = Gate()
    play.store.at_interrupt = Outage(1, ZeroDivisionError())
    play.store.at_quarantine = Outage(1, ZeroDivisionError())

    async with play.running() as group:
        play.read(group, "hanging", gate, retry=False)
        await play.until_it_hangs(gate)
        assert await play.lane.read(seven) == 7
        gate.opened.set()

    assert "could not be interrupted" in caplog.text
    assert "could not tell which rows" in caplog.text


async def test_threads_that_hang_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_queue, "ABANDONED_AT_MOST", 2)
    play = Play()
    gates = [Gate(), Gate()]

    async with play.running() as group:
        for gate in gates:
            play.read(group, "hanging", gate, retry=False)
            await play.until_it_hangs(gate)
        play.read(group, "next", seven)
        await play.watch.advance(60)
        assert "next" not in play.answers
        gates[0].opened.set()
        await until(lambda: play.answers.get("next") == 7)
        gates[1].opened.set()


# ---- Callers that go away


async def test_a_queued_call_that_was_given_up_on_never_runs() -> None:
    play = Play()

    async with play.running() as group:
        async with play.writer_held(group):
            late = await start_cancellable(group, lambda: play.lane.write(note("late"), counted=False))
            await play.until_queued(1)
            late.cancel()
            await play.until_queued(0)
        await play.lane.write(note("next"))

    assert play.store.notes == ["next"]
    assert play.lane.losses == 0


async def test_a_call_given_up_on_in_a_flush_that_has_not_come_to_it_never_runs() -> None:
    play = Play()
    gate = Gate("first")

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "first", gate)
            doomed = await start_cancellable(group, lambda: play.lane.write(note("doomed"), counted=False))
            await play.until_queued(2)
        await until(gate.entered.is_set)
        doomed.cancel()
        await checkpoint()
        gate.opened.set()
        await until(lambda: "first" in play.answers)

    assert play.store.committed == [[], ["first"]]


async def test_a_call_whose_caller_is_cancelled_goes_on_and_is_a_loss() -> None:
    play = Play()
    gate = Gate("goes on")

    async with play.running() as group:
        scope = await start_cancellable(group, lambda: play.lane.write(gate, counted=False))
        await until(gate.entered.is_set)
        scope.cancel()
        await until(lambda: play.lane.losses)
        gate.opened.set()
        await until(lambda: play.store.notes == ["goes on"])
        await play.clock.settle()

    assert play.lane.losses == 1


async def test_a_caller_cancelled_while_it_backs_off_leaves_the_count_right() -> None:
    play = Play()
    play.store.at_begin = Outage(1000)

    async def stage() -> None:
        play.clock.activity.began()
        try:
            await play.lane.write(note("a"))
        finally:
            play.clock.activity.ended()

    async with play.running() as group:
        scope = await start_cancellable(group, stage)
        await until(lambda: play.lane.state == "degraded")
        scope.cancel()
        await play.clock.settle()


async def start_cancellable(group: TaskGroup, caller: Callable[[], Any]) -> anyio.CancelScope:
    scope = anyio.CancelScope()

    async def cancellable() -> None:
        with scope:
            await caller()

    group.start_soon(cancellable)
    await checkpoint()
    return scope


# ---- A store that cannot block


async def test_a_store_that_cannot_block_is_called_on_the_loop_without_a_checkpoint() -> None:
    play = Play(blocking=False)
    turns: list[str] = []

    async def other() -> None:
        turns.append("another task had its turn")

    async with play.running() as group:
        group.start_soon(other)
        writer = await play.lane.write(lambda _: threading.current_thread(), deadline=5)
        reader = await play.lane.read(lambda _: threading.current_thread())
        assert turns == []

    assert writer is reader is threading.current_thread()
    assert play.store.committed == [[]]


async def test_a_store_that_cannot_block_has_outages_as_any_other() -> None:
    play = Play(blocking=False)
    clock = play.clock
    play.store.at_begin = Outage(3)

    async with play.running() as group:
        play.write(group, "a", deadline=5)
        await clock.advance(1)

    assert play.store.notes == ["a"]
    assert [type(event) for event in play.events] == [StoreDegraded, StoreRecovered]


# ---- Rows, opening, closing


@pytest.mark.parametrize("blocking", [True, False])
async def test_quarantined_rows_are_told(blocking: bool) -> None:
    play = Play(blocking=blocking)

    async with play.running():
        play.store.quarantined.append(Quarantined("jobs", "7", "not JSON"))
        await play.lane.read(lambda _: None)
        play.store.quarantined.append(Quarantined("jobs", "8", "not JSON"))
        await play.lane.write(lambda _: None)

    rows = [event for event in play.events if isinstance(event, RowQuarantined)]
    assert [(row.table, row.row_id, row.reason) for row in rows] == [
        ("jobs", "7", "not JSON"),
        ("jobs", "8", "not JSON"),
    ]


@pytest.mark.parametrize("blocking", [True, False])
async def test_opening_and_closing_happen_outside_transactions(blocking: bool) -> None:
    play = Play(blocking=blocking)

    async with play.running():
        await play.lane.open(NODE)
        await play.lane.close()
        with pytest.raises(SchedulerNotRunning):
            await play.lane.write(note("late"))
        await play.lane.open(NODE)
        await play.lane.write(note("again"), counted=False)

    assert play.store.diary == ["open, in a transaction: False", "close", "open, in a transaction: False"]
    assert play.store.committed == [["again"]]


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_store_that_cannot_be_opened_says_why(blocking: bool) -> None:
    play = Play(blocking=blocking)
    play.store.at_open = Outage(1, StoreTooNew(9, 1, "jobs.db"))

    async with play.running():
        with pytest.raises(StoreTooNew):
            await play.lane.open(NODE, counted=False)


async def test_a_store_that_is_busy_when_opened_is_tried_again_until_the_deadline() -> None:
    play = Play()
    play.store.at_open = Outage(100)
    errors: list[str] = []

    async def opener() -> None:
        try:
            await play.lane.open(NODE, deadline=20, counted=False)
        except StoreBusy as error:
            errors.append(str(error))

    async with play.running() as group:
        group.start_soon(opener)
        await play.clock.advance(30)

    assert errors == ["opening the store: not done within 20 s; the last error: the disk is gone"]


async def test_two_readers_read_at_once() -> None:
    store = Store()
    two = StorageLane(cast(Storage, store), SystemClock(), readers=2)
    gates = [Gate(), Gate()]

    async with anyio.create_task_group() as group:
        await group.start(two.run)
        for gate in gates:
            group.start_soon(two.read, gate)
        await until(lambda: all(gate.entered.is_set() for gate in gates))
        for gate in gates:
            gate.opened.set()
        assert await two.read(seven) == 7
        group.cancel_scope.cancel()


async def test_closing_waits_for_what_is_queued() -> None:
    play = Play()

    async with play.running() as group:
        async with play.writer_held(group):
            await play.queue(group, "before")
            group.start_soon(play.lane.close)
            await play.until_queued(2)
        await until(lambda: play.store.diary == ["close"])

    assert play.store.notes == ["before"]


# ---- The end of the lane


async def test_the_end_of_the_lane_waits_for_the_call_in_the_thread() -> None:
    play = Play()
    gate = Gate("last")

    async with anyio.create_task_group() as callers, anyio.create_task_group() as group:
        await group.start(play.lane.run)
        play.write(callers, "last", gate)
        await until(gate.entered.is_set)
        group.cancel_scope.cancel()
        threading.Timer(0.01, gate.opened.set).start()

    assert play.answers == {"last": "last"}


async def test_the_end_of_the_lane_does_not_wait_for_a_call_that_hangs() -> None:
    play = Play()
    gate = Gate("last")

    async with anyio.create_task_group() as callers, anyio.create_task_group() as group:
        await group.start(play.lane.run)
        play.write(callers, "last", gate, deadline=1)
        await until(gate.entered.is_set)
        group.cancel_scope.cancel()
        callers.start_soon(play.watch.advance, lane.STOP_WITHIN)
        callers.start_soon(play.clock.advance, 2)

    gate.opened.set()
    assert isinstance(play.answers["last"], StoreBusy)
    assert play.store.notes == []


async def test_a_lane_may_run_again_and_takes_what_was_queued_meanwhile() -> None:
    play = Play()

    async with play.running():
        await play.lane.write(note("first"))
    async with anyio.create_task_group() as callers:
        play.write(callers, "between")
        await play.until_queued(1)
        async with play.running():
            await until(lambda: play.answers)

    assert play.store.notes == ["first", "between"]


@pytest.mark.parametrize("again", [True, False])
async def test_who_has_a_deadline_when_the_lane_stops_is_answered_by_its_next_run_or_at_the_deadline(
    again: bool,
) -> None:
    play = Play()
    gate = Gate("in the thread")

    async with anyio.create_task_group() as callers:
        async with anyio.create_task_group() as group:
            await group.start(play.lane.run)
            play.write(callers, "in the thread", gate, deadline=5)
            await until(gate.entered.is_set)
            await play.queue(callers, "behind", deadline=5)
            group.cancel_scope.cancel()
            threading.Timer(0.01, gate.opened.set).start()
        assert play.answers == {"in the thread": "in the thread"}
        if again:
            async with play.running():
                await until(lambda: "behind" in play.answers)
        else:
            await play.clock.advance(4.9)
            assert "behind" not in play.answers
            await play.clock.advance(0.1)

    assert play.store.notes == (["in the thread", "behind"] if again else ["in the thread"])
    assert play.answers["behind"] == "behind" if again else isinstance(play.answers["behind"], StoreBusy)


def test_a_lane_may_run_again_on_another_loop(anyio_backend_name: str) -> None:
    play = Play()

    async def use() -> None:
        async with play.running():
            await play.lane.write(note("a"))

    anyio.run(use, backend=anyio_backend_name)
    anyio.run(use, backend=anyio_backend_name)

    assert play.store.notes == ["a", "a"]


async def test_threads_end_with_the_lane() -> None:
    play = Play()

    async with play.running():
        writer = await play.lane.write(lambda _: threading.current_thread())
        reader = await play.lane.read(lambda _: threading.current_thread())

    await until(lambda: not writer.is_alive() and not reader.is_alive())


def test_nothing_happens_at_construction() -> None:
    threads = threading.active_count()
    play = Play()

    assert threading.active_count() == threads
    assert play.store.diary == []
    with pytest.raises(InvalidArgument, match="call_deadline"):
        StorageLane(cast(Storage, play.store), play.clock, call_deadline=0)
    with suppress(InvalidArgument):
        StorageLane(cast(Storage, play.store), play.clock, readers=0)
        pytest.fail("a lane without readers reads nothing")
