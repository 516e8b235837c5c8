"""Each pair of neighbours with the real channel between them: what two perfect unit tests miss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import pytest

from clepsydra import Candidate, Every, Node, Once, Overlap, State
from clepsydra.model.events import StageRestarted
from clepsydra.stages.execution_broadcaster import ExecutionBroadcaster
from clepsydra.stages.messages import JobAdded, JobEvent, JobNews, JobRemoved

from .support import FaultyStorage, Heard, World, chain_of, grid, kinds, slots, states

pytestmark = pytest.mark.anyio


# Job broadcaster and execution broadcaster.


def timelines(monkeypatch: pytest.MonkeyPatch) -> list[ExecutionBroadcaster]:
    """Every incarnation of the execution broadcaster, as it is made."""
    made: list[ExecutionBroadcaster] = []
    original = ExecutionBroadcaster.__init__

    def noting(self: ExecutionBroadcaster, *args: object, **kwargs: object) -> None:
        made.append(self)
        original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ExecutionBroadcaster, "__init__", noting)
    return made


def entries(stage: ExecutionBroadcaster) -> int:
    return len(stage._timeline)  # pyright: ignore[reportPrivateUsage]


async def test_replacing_a_job_leaves_one_entry_in_the_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantum's bug: its remove names the old definition, which nobody finds."""
    made = timelines(monkeypatch)
    world = World()
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        for text in ("A", "B", "C"):
            await scheduler.add_job(world.job("job", Every(1), "say", args={"text": text}))
        await world.clock.settle()
        assert entries(made[-1]) == 1
        await world.pass_time(1)

    assert world.names() == ["C"]


@pytest.mark.parametrize("command", ["remove_job", "pause_job", "stop_job"])
async def test_a_job_that_does_not_fire_any_more_leaves_no_entry(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = timelines(monkeypatch)
    world = World()
    async with world.running_with(world.job("job", Every(1)), world.job("other", Every(1))) as scheduler:
        await getattr(scheduler, command)("job")
        await world.clock.settle()

        assert entries(made[-1]) == 1


async def test_removing_all_jobs_empties_the_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timelines(monkeypatch)
    world = World()
    async with world.running_with(*(world.job(f"job{index}", Every(1)) for index in range(150))) as scheduler:
        assert await scheduler.remove_all_jobs() == 150
        await world.clock.settle()

        assert entries(made[-1]) == 0
        assert scheduler.jobs == []


async def test_a_restarted_execution_broadcaster_has_the_jobs_of_before_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = timelines(monkeypatch)
    store = FaultyStorage()
    world = World(storage=store.storage)
    jobs = [world.job(f"job{index}", Every(1000)) for index in range(200)]
    async with world.running_with(*jobs, world.job("tick", Every(1))) as scheduler:
        await scheduler.remove_job("job7")
        await scheduler.pause_job("job8")
        store.fail("fire", RuntimeError)
        await world.pass_time(2)

        assert len(made) == 2
        assert entries(made[-1]) == 199


async def test_a_gap_in_the_news_is_healed_by_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timelines(monkeypatch)
    world = World()
    async with world.running_with(world.job("a", Every(5))) as scheduler:
        await world.clock.settle()
        chain = chain_of(scheduler)
        send = chain.news.send_nowait
        lost: list[Sequence[JobEvent]] = []

        def lose(item: JobNews) -> bool:
            lost.append(item.events)
            return True

        chain.news.send_nowait = lose  # type: ignore[method-assign]
        await scheduler.add_job(world.job("b", Every(5)))
        await scheduler.remove_job("a")
        chain.news.send_nowait = send  # type: ignore[method-assign]
        await scheduler.add_job(world.job("c", Every(5)))
        await world.pass_time(5)

        assert [type(event) for events in lost for event in events] == [JobAdded, JobRemoved]
        assert entries(made[-1]) == 2
    assert sorted(world.names()) == ["b", "c"]


# Execution broadcaster and node selector.


class Asked:
    """A strategy that notes what it is asked, and answers as it is told."""

    def __init__(self, *answer: str) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
        self.asked.append(candidate.job)
        return [nodes[0].id if place == "here" else place for place in self.answer]


async def test_the_selector_is_asked_once_for_each_fire() -> None:
    world = World()
    strategy = Asked("here")
    async with world.running_with(world.job("job", Every(1), run_on="mine"), strategies={"mine": strategy}):
        await world.pass_time(5)

    assert strategy.asked == ["job"] * 5
    assert len(world.ran) == 5


@pytest.mark.parametrize("job", ["every", "once"])
async def test_what_was_fired_when_the_broadcaster_died_is_still_placed_by_its_strategy(job: str) -> None:
    world_store = FaultyStorage()
    world = World(storage=world_store.storage)
    strategy = Asked()
    schedule = Every(5) if job == "every" else Once(world.at(5))
    async with world.running_with(world.job(job, schedule, run_on="mine"), strategies={"mine": strategy}) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(1)
        world_store.fail("fire", RuntimeError, "after")
        await world.pass_time(6)
        assert heard.of(StageRestarted)
        assert await kinds(scheduler, job) == ["no_node"]

    assert set(strategy.asked) == {job}
    assert world.ran == []


async def test_a_strategy_that_leads_nowhere_gives_its_credit_back() -> None:
    world = World(stages=slots(1))
    async with world.running_with(
        world.job("nowhere", Every(1), run_on="mine"),
        world.job("tick", Every(1)),
        strategies={"mine": Asked("dead")},
    ):
        await world.pass_time(5)

    assert world.times("tick") == [1, 2, 3, 4, 5]


async def test_a_strategy_that_exits_or_never_answers_harms_nobody() -> None:
    world = World()

    class Exits:
        def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
            raise SystemExit(3)

    class Hangs:
        async def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
            with world.clock.resting():
                await anyio.sleep_forever()
            return []

    async with world.running_with(
        world.job("exits", Once(world.at(1)), run_on="exits"),
        world.job("hangs", Once(world.at(1.5)), run_on="hangs"),
        world.job("tick", Every(1)),
        world.job("chosen", Every(1), run_on="here"),
        strategies={"exits": Exits(), "hangs": Hangs(), "here": Asked("here")},
    ) as scheduler:
        await world.pass_time(30)
        assert await kinds(scheduler, "exits") == await kinds(scheduler, "hangs") == ["no_node"]
        assert scheduler.health().ok

    assert world.times("tick") == world.times("chosen") == grid(1, 30)


async def test_a_full_queue_keeps_nobody_from_being_placed() -> None:
    """Where stored work waits for a slot is chosen before there is one, for more of it than a batch holds."""
    world = World(stages=slots(1))
    strategy = Asked("dead")
    async with world.running_with(
        world.job("nowhere", None, run_on="mine", overlap=Overlap.ALLOW),
        world.job("long", None, "work", args={"seconds": 3600}),
        strategies={"mine": strategy},
    ) as scheduler:
        await scheduler.run_job("long")
        await world.pass_time(1)
        for _ in range(70):
            await scheduler.run_job("nowhere")
        await world.pass_time(1)
        assert set(await states(scheduler, "nowhere")) == {State.SKIPPED}

    assert len(strategy.asked) == 70


async def test_a_strategy_that_awaits_does_not_hold_up_what_needs_none() -> None:
    world = World()
    asked = anyio.Event()

    class Slow:
        async def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
            asked.set()
            await anyio.lowlevel.checkpoint()
            return [nodes[0].id]

    async with world.running_with(
        world.job("placed", Every(1), run_on="slow"), world.job("tick", Every(1)), strategies={"slow": Slow()}
    ):
        await world.pass_time(2)

    assert asked.is_set()
    assert world.times("placed") == world.times("tick") == [1, 2]


# Node selector and executor.


def _nothing() -> None:
    """Until the test says what."""


class Tunes:
    """While it chooses, the slots become fewer."""

    def __init__(self) -> None:
        self.tune: Callable[[], None] = _nothing

    def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
        self.tune()
        return [nodes[0].id]


async def test_what_is_placed_while_the_slots_become_fewer_waits_for_one() -> None:
    world = World(stages=slots(4))
    strategy = Tunes()
    jobs = [world.job(f"job{index}", Once(world.at(1)), "work", args={"seconds": 1}, run_on="t") for index in range(4)]
    async with world.running_with(*jobs, strategies={"t": strategy}) as scheduler:
        strategy.tune = lambda: scheduler.tune(concurrency=1)
        await world.pass_time(10)
        for index in range(4):
            assert await states(scheduler, f"job{index}") == [State.SUCCEEDED]

    assert world.most_running == 1


async def test_what_is_placed_while_the_executor_dies_does_not_overfill_its_successor() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage, stages=slots(2))
    jobs = [world.job(f"job{index}", Every(1), "work", args={"seconds": 1.5}) for index in range(8)]
    async with world.running_with(*jobs) as scheduler:
        await world.pass_time(1.2)
        for index in range(3):
            store.fail("start", RuntimeError, "after", skip=3 * index)
        await world.pass_time(20)
        assert scheduler.health().ok

    assert world.most_running == 2


async def test_a_start_that_the_store_refuses_gives_its_credit_back() -> None:
    world = World(stages=slots(2))
    async with world.running_with(
        world.job("slow", Every(1), "work", args={"seconds": 2.5}), world.job("tick", Every(1), priority=-1)
    ):
        await world.pass_time(6)

    assert world.times("slow") == [1, 4]
    assert world.times("tick") == [1, 2, 3, 4, 5, 6]


async def test_a_manual_run_of_a_job_with_a_strategy_is_placed() -> None:
    world = World()
    async with world.running_with(world.job("job", run_on="mine"), strategies={"mine": Asked("here")}) as scheduler:
        handle = await scheduler.run_job("job")
        await world.pass_time(1)
        assert await handle.state() is State.SUCCEEDED


async def test_what_waits_for_a_node_is_placed_without_credit_and_runs_when_there_is_some() -> None:
    world = World(stages=slots(1))
    async with world.running_with(
        world.job("wall", Once(world.at(1)), "work", args={"seconds": 5}),
        world.job("job", run_on="mine"),
        strategies={"mine": Asked("here")},
    ) as scheduler:
        await world.pass_time(2)
        handle = await scheduler.run_job("job")
        await world.pass_time(2)
        assert await handle.state() is State.PENDING
        await world.pass_time(3)
        assert await handle.state() is State.SUCCEEDED


# Executor and pool.


async def test_a_new_executor_takes_the_outcomes_that_the_old_one_left_in_the_pool() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        handles = await scheduler.enqueue([world.tasks["work"].call(seconds=2) for _ in range(10)])
        await world.pass_time(1)
        store.fail("finish", RuntimeError)
        await world.pass_time(2)
        assert [await handle.state() for handle in handles] == [State.SUCCEEDED] * 10
        assert chain_of(scheduler).pool.statistics().unrecorded == 0

    assert len(world.ended) == 10


async def test_a_task_that_was_cancelled_before_its_first_line_never_runs() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["note"].call())
        assert await handle.cancel()
        await world.clock.settle()
        assert await handle.state() is State.CANCELLED

    assert world.ran == []


async def test_no_more_is_claimed_while_outcomes_wait_to_be_recorded() -> None:
    """Running and unrecorded together are at most twice the concurrency."""
    store = FaultyStorage()
    world = World(storage=store.storage, stages=slots(3))
    most = 0
    async with world.running_with() as scheduler:
        pool = chain_of(scheduler).pool

        def look(operation: str) -> None:
            nonlocal most
            most = max(most, len(pool.known_attempts()))

        store.before = look
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(100)])
        await world.pass_time(1)

    assert len(world.ended) == 100
    assert most <= 6
