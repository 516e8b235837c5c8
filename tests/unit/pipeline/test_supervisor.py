"""The supervisor starts in order, restarts by its strategy, stops in reverse, and gives up in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra.model.errors import InvalidArgument, RestartLimitReached
from clepsydra.pipeline.supervisor import (
    Child,
    ChildCancelled,
    ChildCrashed,
    ChildRestarted,
    ChildReturned,
    ChildStarted,
    ChildState,
    ChildStopped,
    Intensity,
    Restart,
    Strategy,
    Supervisor,
    SupervisorEvent,
    SupervisorRunning,
)
from clepsydra.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

ALL_STRATEGIES = list(Strategy)


class Boom(Exception):
    """What a child of these tests crashes with."""


class Play:
    """Children that do what the test tells them, and a diary of what happened to them."""

    def __init__(self) -> None:
        self.clock = VirtualClock(patience=5)
        self.diary: list[str] = []
        self.events: list[SupervisorEvent] = []
        self._cues: dict[str, anyio.Event] = {}
        self._lines: dict[str, BaseException | None] = {}

    def child(self, name: str, restart: Restart = Restart.PERMANENT, intensity: Intensity | None = None) -> Child:
        async def run() -> None:
            self._cues[name] = anyio.Event()
            self.diary.append(f"+{name}")
            try:
                await self._cues[name].wait()
            finally:
                self.diary.append(f"-{name}")
            if error := self._lines[name]:
                raise error

        return Child(name, run, restart, intensity)

    def crash(self, name: str, error: BaseException | None = None) -> None:
        self._lines[name] = error or Boom(name)
        self._cues[name].set()

    def end(self, name: str) -> None:
        self._lines[name] = None
        self._cues[name].set()

    async def crashed(self, name: str) -> None:
        self.crash(name)
        await self.clock.settle()

    def supervisor(
        self,
        children: Sequence[Child | str] = ("a", "b", "c"),
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        name: str = "play",
    ) -> Supervisor:
        cast = [self.child(child) if isinstance(child, str) else child for child in children]
        return Supervisor(
            name,
            cast,
            strategy=strategy,
            intensity=intensity or Intensity(),
            clock=self.clock,
            on_event=self.events.append,
        )

    @asynccontextmanager
    async def running(self, supervisor: Supervisor) -> AsyncGenerator[None]:
        """With the supervisor started and the diary empty; stopped at the end."""
        async with anyio.create_task_group() as group:
            await group.start(supervisor.run)
            await self.clock.settle()
            self.diary.clear()
            self.events.clear()
            yield
            group.cancel_scope.cancel()

    def told(self, kind: type[SupervisorEvent]) -> list[str]:
        return [event.name for event in self.events if isinstance(event, kind)]


@pytest.fixture
def play() -> Play:
    return Play()


# Starting and stopping.


async def test_children_start_in_order_and_run_reports_it(play: Play) -> None:
    supervisor = play.supervisor()

    async with anyio.create_task_group() as group:
        await group.start(supervisor.run)

        assert play.diary == ["+a", "+b", "+c"]
        assert play.told(ChildStarted) == ["a", "b", "c"]
        group.cancel_scope.cancel()


async def test_cancellation_stops_the_last_child_first_and_is_not_swallowed(play: Play) -> None:
    with anyio.CancelScope() as scope:
        async with play.running(play.supervisor()):
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert play.diary == ["-c", "-b", "-a"]
    assert play.told(ChildStopped) == ["c", "b", "a"]


async def test_a_child_is_stopped_only_when_the_one_after_it_has_ended(play: Play) -> None:
    async def slow_to_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(20):
                    await checkpoint()
            play.diary.append("-slow")

    async with play.running(play.supervisor(["first", Child("slow", slow_to_end)])):
        pass

    assert play.diary == ["-slow", "-first"]


async def test_an_error_while_stopping_is_logged_and_the_others_are_stopped(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def bad_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Boom("at the end")

    with anyio.CancelScope() as scope:
        async with play.running(play.supervisor(["first", Child("bad", bad_end)])):
            scope.cancel()

    assert play.diary == ["-first"]
    assert "play: bad raised while it was being stopped" in caplog.text


async def test_without_children_it_returns(play: Play) -> None:
    await play.supervisor([]).run()


@pytest.mark.parametrize("restart", [Restart.TRANSIENT, Restart.TEMPORARY])
async def test_it_returns_when_all_children_are_done(play: Play, restart: Restart) -> None:
    supervisor = play.supervisor([play.child("a", restart), play.child("b", restart)])

    async with anyio.create_task_group() as group:
        await group.start(supervisor.run)
        play.end("a")
        await play.clock.settle()
        assert play.diary == ["+a", "+b", "-a"]
        play.end("b")

    assert play.told(ChildReturned) == ["a", "b"]


async def test_a_supervisor_can_be_run_again_with_a_fresh_budget(play: Play) -> None:
    supervisor = play.supervisor(["a"], intensity=Intensity(restarts=1))

    for _ in range(2):
        async with play.running(supervisor):
            await play.crashed("a")
            assert play.diary == ["-a", "+a"]


async def test_a_supervisor_runs_only_once_at_a_time(play: Play) -> None:
    supervisor = play.supervisor(["a"])

    async with play.running(supervisor):
        with pytest.raises(SupervisorRunning, match="'play' is running already"):
            await supervisor.run()


# Who is restarted.


@pytest.mark.parametrize(
    ("strategy", "diary"),
    [
        (Strategy.ONE_FOR_ONE, ["-b", "+b"]),
        (Strategy.REST_FOR_ONE, ["-b", "-c", "+b", "+c"]),
        (Strategy.ONE_FOR_ALL, ["-b", "-c", "-a", "+a", "+b", "+c"]),
    ],
)
async def test_a_crash_restarts_whom_the_strategy_says(play: Play, strategy: Strategy, diary: list[str]) -> None:
    async with play.running(play.supervisor(strategy=strategy)):
        await play.crashed("b")

        assert play.diary == diary


async def test_a_permanent_child_that_returns_is_restarted(play: Play) -> None:
    async with play.running(play.supervisor(["a"])):
        play.end("a")
        await play.clock.settle()

        assert play.diary == ["-a", "+a"]


async def test_a_transient_child_is_restarted_after_a_crash(play: Play) -> None:
    async with play.running(play.supervisor([play.child("a", Restart.TRANSIENT)])):
        await play.crashed("a")

        assert play.diary == ["-a", "+a"]


@pytest.mark.parametrize("strategy", ALL_STRATEGIES)
async def test_a_temporary_child_that_crashes_is_not_restarted_and_hurts_nobody(play: Play, strategy: Strategy) -> None:
    children: list[Child | str] = ["a", play.child("b", Restart.TEMPORARY), "c"]

    async with play.running(play.supervisor(children, strategy, Intensity(restarts=0))):
        await play.crashed("b")

        assert play.diary == ["-b"]
        assert play.told(ChildCrashed) == ["b"]


async def test_a_temporary_child_stopped_for_another_one_does_not_come_back(play: Play) -> None:
    async with play.running(play.supervisor(["a", play.child("b", Restart.TEMPORARY)], Strategy.ONE_FOR_ALL)):
        await play.crashed("a")

        assert play.diary == ["-a", "-b", "+a"]


async def test_a_child_that_is_done_is_not_run_again_for_another_one(play: Play) -> None:
    async with play.running(play.supervisor([play.child("setup", Restart.TRANSIENT), "a"], Strategy.ONE_FOR_ALL)):
        play.end("setup")
        await play.clock.settle()
        await play.crashed("a")

        assert play.diary == ["-setup", "-a", "+a"]


@pytest.mark.parametrize("strategy", ALL_STRATEGIES)
async def test_children_that_crash_at_once_are_counted_each_and_restarted_once(play: Play, strategy: Strategy) -> None:
    async with play.running(play.supervisor(["a", "b"], strategy)):
        play.crash("a")
        play.crash("b")
        await play.clock.settle()

        assert sorted(play.told(ChildCrashed)) == ["a", "b"]
        assert play.diary[2:] == ["+a", "+b"]


async def test_a_child_that_crashes_while_it_starts_does_not_keep_the_others_from_starting(play: Play) -> None:
    lives = 0

    async def crashes_once() -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            raise Boom
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        await group.start(play.supervisor([Child("first", crashes_once), "second"]).run)
        await play.clock.settle()

        assert (lives, play.diary) == (2, ["+second"])
        group.cancel_scope.cancel()


# When it gives up.


async def test_one_crash_too_many_is_raised_as_one_error_from_the_last_crash(play: Play) -> None:
    supervisor = play.supervisor(["a", "b"], intensity=Intensity(restarts=2, within=timedelta(seconds=5)))

    with pytest.RaisesGroup(RestartLimitReached) as raised:
        async with play.running(supervisor):
            for _ in range(3):
                play.crash("a")
                await play.clock.advance(1)

    (limit,) = raised.value.exceptions
    assert isinstance(limit, RestartLimitReached)
    assert (limit.child, limit.crashes, limit.within) == ("a", 3, 5.0)
    assert isinstance(limit.__cause__, Boom)
    assert play.diary[-2:] == ["-a", "-b"]


async def test_its_own_error_is_not_a_group(play: Play) -> None:
    async def crashes() -> None:
        raise Boom

    with pytest.raises(RestartLimitReached, match=r"^a crashed 1 times"):
        await play.supervisor([Child("a", crashes)], intensity=Intensity(restarts=0)).run()


async def test_crashes_that_are_long_ago_are_forgotten(play: Play) -> None:
    async with play.running(play.supervisor(["a"], intensity=Intensity(restarts=1, within=timedelta(seconds=5)))):
        for _ in range(5):
            await play.crashed("a")
            await play.clock.advance(5)

    assert play.told(ChildRestarted) == ["a"] * 5


async def test_children_that_share_a_budget_are_all_named_when_it_is_spent(play: Play) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(RestartLimitReached, match=r"^a and b crashed 2 times")):
        async with play.running(play.supervisor(["a", "b"], intensity=Intensity(restarts=1))):
            await play.crashed("a")
            await play.crashed("b")


async def test_a_child_with_a_budget_of_its_own_spends_only_that(play: Play) -> None:
    fragile = play.child("fragile", intensity=Intensity(restarts=5))

    async with play.running(play.supervisor([fragile, "a"], intensity=Intensity(restarts=0))):
        for _ in range(3):
            play.crash("fragile")
            await play.clock.advance(1)

        assert play.told(ChildRestarted) == ["fragile"] * 3


async def test_a_permanent_child_that_keeps_returning_spends_the_budget_too(play: Play) -> None:
    async def returns() -> None:
        await checkpoint()

    with pytest.raises(RestartLimitReached) as raised:
        await play.supervisor([Child("a", returns)], intensity=Intensity(restarts=0)).run()

    assert raised.value.__cause__ is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("grouped", [False, True])
async def test_an_interrupt_ends_everything_and_is_raised_bare(
    play: Play, kind: type[BaseException], grouped: bool
) -> None:
    interrupt = kind("now")
    supervisor = play.supervisor()
    raised: list[BaseException] = []

    async def run() -> None:
        try:
            await supervisor.run()
        except (KeyboardInterrupt, SystemExit) as error:
            raised.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await play.clock.settle()
        play.crash("b", BaseExceptionGroup("both", [Boom(), interrupt]) if grouped else interrupt)

    assert raised == [interrupt]
    assert play.diary[3:] == ["-b", "-c", "-a"]
    assert play.clock.activity.count == 0


async def test_an_interrupt_while_all_is_being_stopped_goes_before_the_cancellation(play: Play) -> None:
    async def interrupted_at_the_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    supervisor = play.supervisor(["a", Child("b", interrupted_at_the_end), "c"])
    raised: list[BaseException] = []

    async def run() -> None:
        try:
            await supervisor.run()
        except KeyboardInterrupt as error:
            raised.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await play.clock.settle()
        group.cancel_scope.cancel()

    assert len(raised) == 1
    assert play.diary[2:] == ["-c", "-a"]


async def test_a_cancellation_that_is_not_ours_is_a_crash(play: Play, anyio_backend: str) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("only asyncio lets anybody raise CancelledError")

    async with play.running(play.supervisor(["a"])):
        play.crash("a", asyncio.CancelledError())
        await play.clock.settle()

        crash = next(event for event in play.events if isinstance(event, ChildCrashed))
        assert isinstance(crash.error, ChildCancelled)
        assert play.diary == ["-a", "+a"]


async def test_asyncio_cancelling_the_task_itself_stops_the_children_in_order(play: Play, anyio_backend: str) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("trio has no such cancellation")
    task = asyncio.create_task(play.supervisor().run())
    await play.clock.settle()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert play.diary[3:] == ["-c", "-b", "-a"]


async def test_asyncio_cancelling_it_twice_leaves_no_child_behind(play: Play, anyio_backend: str) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("trio has no such cancellation")

    async def slow_to_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(20):
                    await checkpoint()

    task = asyncio.create_task(play.supervisor(["a", Child("slow", slow_to_end), "b"]).run())
    await play.clock.settle()

    task.cancel()
    for _ in range(5):
        await checkpoint()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert sorted(play.diary[2:]) == ["-a", "-b"]


async def test_the_errors_of_a_group_arrive_as_they_are_when_they_are_several(play: Play) -> None:
    several = ExceptionGroup("several", [Boom(1), Boom(2)])
    single = ExceptionGroup("outer", [ExceptionGroup("inner", [Boom(3)])])

    async with play.running(play.supervisor(["a"])):
        for error in (several, single):
            play.crash("a", error)
            await play.clock.advance(1)

    errors = [event.error for event in play.events if isinstance(event, ChildCrashed)]
    assert errors[0] is several
    assert isinstance(errors[1], Boom)


# Backoff and virtual time.


async def test_the_first_restart_is_at_once_and_further_ones_wait_twice_as_long_each(play: Play) -> None:
    lives: list[float] = []

    async def crashes() -> None:
        lives.append(round(play.clock.monotonic(), 3))
        raise Boom

    supervisor = play.supervisor([Child("a", crashes)], intensity=Intensity(restarts=4, within=60))
    with pytest.RaisesGroup(RestartLimitReached):
        async with anyio.create_task_group() as group:
            group.start_soon(supervisor.run)
            await play.clock.advance(60)

    assert lives == [0, 0, 0.1, 0.3, 0.7]


@pytest.mark.parametrize("restarts", [1, 3, 10, 100])
def test_backoff_never_outlasts_the_window(restarts: int) -> None:
    intensity = Intensity(restarts=restarts, within=5)

    assert sum(intensity.backoff(crash) for crash in range(1, restarts + 1)) <= 2.5


async def test_time_does_not_pass_between_a_crash_and_the_restart(play: Play) -> None:
    lives: list[float] = []

    async def crashes_each_minute() -> None:
        lives.append(play.clock.monotonic())
        await play.clock.sleep(60)
        raise Boom

    async with play.running(play.supervisor([Child("a", crashes_each_minute), "b"], Strategy.ONE_FOR_ALL)):
        await play.clock.advance(300)

    assert lives == [0, 60, 120, 180, 240, 300]


async def test_a_child_in_backoff_does_not_delay_the_others(play: Play) -> None:
    async with play.running(play.supervisor(["a", "b"])):
        await play.crashed("a")
        await play.crashed("a")
        await play.crashed("b")
        assert play.diary == ["-a", "+a", "-a", "-b", "+b"]
        await play.clock.advance(0.1)

        assert play.diary[5:] == ["+a"]


async def test_followers_wait_for_the_backoff_of_the_child_they_lean_on(play: Play) -> None:
    async with play.running(play.supervisor(["a", "b"], Strategy.REST_FOR_ONE)):
        await play.crashed("a")
        play.diary.clear()
        await play.crashed("a")
        assert play.diary == ["-a", "-b"]
        await play.clock.advance(0.1)

        assert play.diary[2:] == ["+a", "+b"]


async def test_a_predecessor_that_crashes_during_a_backoff_starts_first(play: Play) -> None:
    async with play.running(play.supervisor(["a", "b"], Strategy.REST_FOR_ONE)):
        await play.crashed("b")
        await play.crashed("b")
        play.diary.clear()
        await play.crashed("a")
        assert play.diary == ["-a", "+a"]
        await play.clock.advance(0.1)

        assert play.diary[2:] == ["+b"]


@pytest.mark.parametrize("strategy", ALL_STRATEGIES)
async def test_nothing_stays_counted(play: Play, strategy: Strategy) -> None:
    async with play.running(play.supervisor(strategy=strategy)):
        play.crash("a")
        play.crash("b")
        await play.clock.advance(10)
        assert play.clock.activity.count == 0
        play.crash("b")

    assert play.clock.activity.count == 0


async def test_being_cancelled_in_the_middle_of_a_restart_is_obeyed(play: Play) -> None:
    for rounds in range(12):
        async with play.running(play.supervisor(strategy=Strategy.ONE_FOR_ALL)):
            play.crash("b")
            for _ in range(rounds):
                await checkpoint()

        assert play.diary.count("+a") == play.diary.count("-a") - 1
        assert play.clock.activity.count == 0


async def test_on_the_real_clock_the_first_restart_is_at_once() -> None:
    lives = 0

    async def crashes_once() -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            raise Boom

    await Supervisor("real", [Child("a", crashes_once, Restart.TRANSIENT)]).run()

    assert lives == 2


class Chaos:
    """A tree whose children crash, return, wait and end slowly, as a seed will have it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock(patience=5)
        self.alive: set[str] = set()
        self.twice: list[str] = []

    def child(self, name: str) -> Child:
        async def run() -> None:
            if name in self.alive:
                self.twice.append(name)
            self.alive.add(name)
            try:
                await self.live()
            finally:
                with anyio.CancelScope(shield=True):
                    for _ in range(self.random.randrange(4)):
                        await checkpoint()
                self.alive.discard(name)
                if self.random.random() < 0.05:
                    raise Boom("late")

        return Child(name, run, self.random.choice(list(Restart)), self.random.choice([None, Intensity(2, 1)]))

    async def live(self) -> None:
        while self.random.random() < 0.8:
            if self.random.random() < 0.5:
                await self.clock.sleep(self.random.random() * 3)
            else:
                await checkpoint()
        if self.random.random() < 0.7:
            raise Boom

    def tree(self) -> Supervisor:
        inner = self.supervisor("inner", [self.child("x"), self.child("y")])
        return self.supervisor("outer", [self.child("a"), Child("inner", inner.run), self.child("b")])

    def supervisor(self, name: str, children: list[Child]) -> Supervisor:
        strategy, restarts = self.random.choice(ALL_STRATEGIES), self.random.randrange(8)
        return Supervisor(name, children, strategy=strategy, intensity=Intensity(restarts), clock=self.clock)

    async def play(self) -> None:
        tree = self.tree()

        async def run() -> None:
            with suppress(RestartLimitReached):
                await tree.run()

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await self.clock.advance(self.random.random() * 20)
            for _ in range(self.random.randrange(6)):
                await checkpoint()
            group.cancel_scope.cancel()


async def test_whatever_crashes_whenever_nothing_runs_twice_and_nothing_is_left_behind(long_run: bool) -> None:
    for seed in range(2_000 if long_run else 60):
        chaos = Chaos(seed)

        await chaos.play()

        assert (chaos.twice, chaos.alive, chaos.clock.activity.count) == ([], set(), 0), f"{seed=}"


# Trees.


async def test_a_supervisor_is_a_child_of_another_one(play: Play) -> None:
    inner = play.supervisor(["b", "c"], intensity=Intensity(restarts=0), name="inner")
    outer = play.supervisor(["a", Child("inner", inner.run), "d"], name="outer")

    async with play.running(outer):
        await play.crashed("b")

        assert play.diary == ["-b", "-c", "+b", "+c"]
        crashes = [event for event in play.events if isinstance(event, ChildCrashed)]
        assert [(crash.supervisor, crash.name) for crash in crashes] == [("inner", "b"), ("outer", "inner")]
        assert isinstance(crashes[1].error, RestartLimitReached)
        play.diary.clear()

    assert play.diary == ["-d", "-c", "-b", "-a"]


async def test_the_tree_tells_names_strategies_states_and_restarts(play: Play) -> None:
    inner = play.supervisor(["b", play.child("once", Restart.TEMPORARY)], Strategy.REST_FOR_ONE, name="inner")
    outer = play.supervisor(["a", Child("stages", inner.run, Restart.TRANSIENT)], name="outer")

    async with play.running(outer):
        await play.crashed("b")
        tree = outer.tree()

    assert (tree.name, tree.state, tree.strategy) == ("outer", ChildState.RUNNING, Strategy.ONE_FOR_ONE)
    stages = tree.children[1]
    assert (stages.restart, stages.strategy) == (Restart.TRANSIENT, Strategy.REST_FOR_ONE)
    assert [(each.name, each.state, each.restarts) for each in stages.children] == [
        ("b", ChildState.RUNNING, 1),
        ("once", ChildState.DONE, 0),
    ]
    assert list(tree.lines()) == [
        "outer (one_for_one)",
        "  a (permanent)",
        "  stages (rest_for_one, transient)",
        "    b (permanent)",
        "    once (temporary)",
    ]


def test_the_tree_can_be_drawn_before_it_runs() -> None:
    supervisor = Supervisor("app", [Child("web", checkpoint)])

    assert [child.state for child in supervisor.tree().children] == [ChildState.IDLE]


# Telling.


async def test_events_tell_incarnations_errors_and_restarts_left(play: Play) -> None:
    async with play.running(play.supervisor(["a", "b"], Strategy.REST_FOR_ONE, Intensity(restarts=3))):
        error = Boom("why")
        play.crash("a", error)
        await play.clock.settle()

        assert play.events == [
            ChildCrashed("play", "a", 1, error, 2),
            ChildStopped("play", "b", 1),
            ChildRestarted("play", "a", 2, error),
            ChildRestarted("play", "b", 2, None),
        ]


async def test_a_handler_that_raises_hurts_nobody(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    def bad_handler(event: SupervisorEvent) -> None:
        raise Boom(event.name)

    supervisor = Supervisor("play", [play.child("a")], clock=play.clock, on_event=bad_handler)
    async with play.running(supervisor):
        await play.crashed("a")

        assert play.diary == ["-a", "+a"]
    assert "handler of supervisor events failed" in caplog.text


async def test_a_crash_is_logged_with_its_cause(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async with play.running(play.supervisor(["a"])):
        await play.crashed("a")

    record = next(record for record in caplog.records if record.levelname == "ERROR")
    assert record.getMessage() == "play: a crashed (permanent, restarts left: 2)"
    assert record.exc_info is not None
    assert record.exc_info[0] is Boom


async def test_a_crash_that_nobody_could_deal_with_any_more_is_still_logged(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.RaisesGroup(RestartLimitReached):
        async with play.running(play.supervisor(["a", "b"], intensity=Intensity(restarts=0))):
            play.crash("a")
            play.crash("b")
            await anyio.sleep_forever()

    assert "a crashed" in caplog.text
    assert "b crashed" in caplog.text


# What cannot be.


def test_two_children_of_one_name_are_refused(play: Play) -> None:
    with pytest.raises(InvalidArgument, match="children="):
        play.supervisor(["a", "b", "a"])


@pytest.mark.parametrize(("restarts", "within"), [(-1, 5), (3, 0), (3, -1)])
def test_an_intensity_that_cannot_be_is_refused(restarts: int, within: float) -> None:
    with pytest.raises(InvalidArgument):
        Intensity(restarts=restarts, within=within)
