"""The cases QE34 to QE37, QE43, QE48 to QE50 of `contracts.md`: how executions run, and where."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from clepsydra import All, Candidate, Every, Kind, Node, NodeList, Overlap, State, Task
from clepsydra.model.events import ExecutionFailed, ExecutionSkipped, FailureKind

from .support import Heard, World, chain_of, executions_of, kinds, slots, states, verdicts, violations

pytestmark = pytest.mark.anyio


async def test_qe34_what_overlaps_is_skipped_and_the_event_says_so() -> None:
    world = World()
    async with world.running_with(world.job("slow", Every(2), "work", args={"seconds": 3})) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(6.5)
        assert await kinds(scheduler, "slow") == [Kind.FIRED, Kind.OVERLAP_SKIPPED, Kind.FIRED]

    assert [(event.job, event.kind) for event in heard.of(ExecutionSkipped)] == [("slow", Kind.OVERLAP_SKIPPED)]


async def test_qe35_a_run_that_raised_frees_its_job() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1), "fail")):
        await world.pass_time(3)

    assert world.times("job") == [1, 2, 3]


async def test_qe35_a_run_that_was_cancelled_frees_its_job() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(2), "wait")) as scheduler:
        await world.pass_time(2)
        await scheduler.cancel_executions(ids=[world.ran[0].execution_id])
        await world.pass_time(2)
        world.open_gate()

    assert world.times("job") == [2, 4]


async def test_qe35_a_run_that_timed_out_frees_its_job() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(2), "wait", timeout=1)) as scheduler:
        await world.pass_time(5)
        assert await states(scheduler, "job") == [State.FAILED, State.FAILED]

    assert world.times("job") == [2, 4]


async def test_qe36_allowed_overlap_runs_two_at_once() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1), "work", args={"seconds": 1.5}, overlap=Overlap.ALLOW)):
        await world.pass_time(2)
        assert world.running == 2

    assert world.times("job") == [1, 2]


async def test_qe37_a_thousand_hung_jobs_do_not_stop_another_queue() -> None:
    world = World(stages=slots(50))
    hung = [world.job(f"hung{index}", Every(1), "wait", queue="slow") for index in range(1000)]
    async with world.running_with(*hung, world.job("tick", Every(1))) as scheduler:
        await world.pass_time(10)
        assert world.running == 50
        assert chain_of(scheduler).pool.busy("slow") == 50
        assert await violations(scheduler, "tick", "hung0", "hung999") == []
        scheduler.stop(hard=True)

    assert world.times("tick") == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


async def run_once(function: object) -> tuple[ExecutionFailed, State]:
    """What a task's failure is told as, and what its execution has become; the scheduler goes on."""
    task: Task[..., object] = Task(function, "bad")  # type: ignore[arg-type]
    world = World()
    async with world.scheduler(tasks=[task]) as scheduler:
        heard = Heard(scheduler)
        handle = await scheduler.enqueue(task.call())
        execution = await handle.wait(timeout=1)
        await scheduler.add_job(world.job("tick", Every(1)))
        await world.pass_time(1)
        assert scheduler.health().ok

    assert world.times("tick") == [1]
    (event,) = heard.of(ExecutionFailed)
    return event, execution.state


async def test_qe43_a_job_that_raises_is_told_with_its_error_and_traceback() -> None:
    async def bad() -> None:
        raise ValueError("on purpose")

    event, state = await run_once(bad)

    assert (event.kind, state) == (FailureKind.EXCEPTION, State.FAILED)
    assert "in bad" in event.error
    assert event.error.endswith("ValueError: on purpose")


async def test_qe43_a_job_that_exits_is_its_own_failure() -> None:
    async def bad() -> None:
        raise SystemExit(3)

    event, state = await run_once(bad)

    assert (event.kind, state) == (FailureKind.EXIT, State.FAILED)


async def test_qe43_a_plain_function_that_exits_is_its_own_failure() -> None:
    def bad() -> None:
        raise SystemExit(3)

    event, state = await run_once(bad)

    assert (event.kind, state) == (FailureKind.EXIT, State.FAILED)


async def test_qe43_a_cancellation_that_is_not_ours_is_a_failure() -> None:
    async def bad() -> None:
        stray: list[BaseException] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                stray.append(error)
        raise stray[0]

    event, state = await run_once(bad)

    assert (event.kind, state) == (FailureKind.CANCELLED, State.FAILED)


class Chooses:
    """A run strategy that chooses what the test says."""

    def __init__(self, *chosen: str) -> None:
        self.chosen = chosen

    def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
        return [nodes[0].id if place == "here" else place for place in self.chosen]


async def test_qe48_a_dead_node_gets_a_verdict_and_the_other_targets_run() -> None:
    world = World()
    async with world.running_with(
        world.job("job", Every(1), run_on="mine"), strategies={"mine": Chooses("here", "dead")}
    ) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(1)
        told = {(verdict.target, verdict.kind) for verdict in await verdicts(scheduler, "job")}
        assert {kind for _, kind in told} == {Kind.FIRED, Kind.NO_NODE}
        assert ("dead", Kind.NO_NODE) in told
        assert await violations(scheduler) == []

    assert [event.kind for event in heard.of(ExecutionSkipped)] == [Kind.NO_NODE]
    assert world.times("job") == [1]


async def test_qe49_all_of_three_nodes_are_three_executions() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1), run_on=All(["here", "b", "c"]))) as scheduler:
        await world.pass_time(1)
        rows = await executions_of(scheduler, "job")
        assert sorted(row.state for row in rows) == [State.SKIPPED, State.SKIPPED, State.SUCCEEDED]
        assert await violations(scheduler) == []

    assert world.times("job") == [1]


async def test_qe50_a_strategy_that_finds_no_node_is_a_verdict_and_the_stage_lives() -> None:
    world = World()
    async with world.running_with(
        world.job("nowhere", Every(1), run_on=NodeList(["elsewhere"])), world.job("tick", Every(1))
    ) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(2)
        assert await kinds(scheduler, "nowhere") == [Kind.NO_NODE, Kind.NO_NODE]

    assert {event.kind for event in heard.of(ExecutionSkipped)} == {Kind.NO_NODE}
    assert world.names() == ["tick", "tick"]
