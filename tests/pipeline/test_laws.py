"""The laws of the design, each with tests of its own here that fail when it is broken; `LAWS` lists them.

Most laws are held at other levels too: by the conformance suite of the stores, the unit tests of the pool and the
supervisor, and the property tests under `tests/faults`. This is what the chain as a whole owes.
"""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

from clepsydra import (
    Cron,
    Every,
    InvalidArgument,
    Kind,
    Misfire,
    Once,
    ScheduleError,
    SQLiteStorage,
    State,
    Verdict,
)
from clepsydra.model.events import OutcomeRefused
from clepsydra.model.execution import Ending, Outcome

from .support import Heard, World, executions_of, kinds, slots, verdicts, violations

pytestmark = pytest.mark.anyio

LAWS: dict[str, list[str]] = {
    "1 one verdict": [
        "test_laws.py::test_law01_every_past_time_has_one_verdict_through_all_that_befalls_a_job",
        "test_kill_each_stage.py::test_a_stage_killed_at_a_call_to_the_store",
        "test_stories_life.py::test_history_beyond_the_retention_goes_and_law_1_holds_for_the_rest",
    ],
    "2 one fire": [
        "test_stories_life.py::test_two_schedulers_share_a_file_and_each_time_runs_once",
        "test_qe_cases_firing.py::test_qe20_what_fired_is_not_fired_again_after_a_crash",
        "test_qe_cases_firing.py::test_qe24_no_time_fires_twice_when_the_wall_clock_is_set_back",
    ],
    "3 fenced outcomes": [
        "test_laws.py::test_law03_the_outcome_of_an_attempt_that_is_no_longer_ours_is_ignored",
        "test_leases.py::test_a_node_that_cannot_renew_its_lease_starts_nothing_and_lets_run_what_runs",
    ],
    "4 no lost hand-over": [
        "test_kill_each_stage.py::test_a_stage_killed_at_a_move_on_its_channels",
        "test_neighbours.py::test_a_new_executor_takes_the_outcomes_that_the_old_one_left_in_the_pool",
    ],
    "5 bounded": [
        "test_bounds.py::test_what_waits_in_the_chain_is_bounded_by_the_slots",
        "test_gs_cases.py::test_gs02_ten_thousand_due_fires_wait_in_the_store_and_none_is_lost",
    ],
    "6 the loop stays free": [
        "test_bounds.py::test_no_stage_handles_more_than_a_batch_between_two_checkpoints",
        "test_gs_cases.py::test_gs11_a_hanging_call_to_the_store_leaves_the_others_responsive_and_shows_in_health",
    ],
    "7 control is never behind work": [
        "test_gs_cases.py::test_gs03_a_command_is_answered_at_once_while_all_slots_are_busy",
        "test_bounds.py::test_a_command_is_handled_between_two_batches_of_due_work",
        "test_outages.py::test_a_running_task_can_be_cancelled_while_the_store_is_away",
    ],
    "8 time is injected": [
        "test_qe_cases_firing.py::test_qe26_a_suspend_is_noticed_within_the_longest_wait",
        "test_year.py::test_a_year_gives_the_same_verdicts_each_time_and_on_both_backends",
    ],
    "9 strictly increasing": [
        "test_laws.py::test_law09_the_times_of_a_job_only_grow",
        "test_qe_cases_commands.py::test_qe12_a_schedule_without_a_time_to_come_is_refused_when_it_is_added",
        "test_qe_cases_commands.py::test_qe12_a_declared_date_that_has_passed_at_a_restart_is_finished",
    ],
    "10 the host survives": [
        "test_outages.py::test_an_outage_of_thirty_seconds_degrades_and_is_caught_up_with",
        "test_stories_life.py::test_an_async_with_body_is_not_cancelled_by_a_scheduler_that_fails_and_gets_one_error",
        "test_qe_cases_runs.py::test_qe43_a_job_that_exits_is_its_own_failure",
        "test_stories_life.py::test_a_keyboard_interrupt_of_a_task_is_recorded_and_raised_again",
    ],
    "11 nothing executable is stored": ["test_laws.py::test_law11_the_file_holds_json_and_names_only"],
}


def test_each_law_has_tests_and_they_exist() -> None:
    here = Path(__file__).parent
    for law, tests in LAWS.items():
        assert tests, law
        for test in tests:
            file, _, name = test.partition("::")
            text = (here / file).read_text("utf-8")
            assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), test
    assert len(LAWS) == 11


async def test_law01_every_past_time_has_one_verdict_through_all_that_befalls_a_job() -> None:
    world = World(stages=slots(3))
    names = ["latest", "all", "none", "excluded", "slow", "placed", "replaced"]
    jobs = [
        world.job("latest", Every(3)),
        world.job("all", Every(7), misfire=Misfire("all", limit=3)),
        world.job("none", Every(5), misfire=Misfire("none")),
        world.job("excluded", Every(4) - Cron("*/2 * * * *")),
        world.job("slow", Every(2), "work", args={"seconds": 3}, overlap="buffer_one"),
        world.job("placed", Every(6), run_on="nowhere"),
        world.job("replaced", Every(3), "fail"),
    ]
    told: dict[str, list[Verdict]] = {}
    for round_ in range(3):
        async with world.scheduler(*jobs) as scheduler:
            await world.pass_time(61)
            await scheduler.pause_job("latest")
            await scheduler.add_job(world.job("replaced", Every(4 + round_)))
            world.clock.suspend(45)
            await world.pass_time(35)
            await scheduler.resume_job("latest")
            world.clock.step(-20)
            await world.pass_time(30)
            assert await violations(scheduler, *names) == []
            told = {name: await verdicts(scheduler, name) for name in names}
        world.clock.suspend(100)

    for each in told.values():
        times = [verdict.nominal for verdict in each]
        assert times == sorted(set(times))
    seen = {verdict.kind for each in told.values() for verdict in each}
    assert {Kind.FIRED, Kind.COALESCED, Kind.MISSED, Kind.PAUSED, Kind.EXCLUDED, Kind.OVERLAP_SKIPPED} <= seen
    assert Kind.NO_NODE in seen


async def test_law03_the_outcome_of_an_attempt_that_is_no_longer_ours_is_ignored() -> None:
    world = World()
    async with world.running_with() as scheduler:
        heard = Heard(scheduler)
        handle = await scheduler.enqueue(world.tasks["work"].call(seconds=10))
        await world.pass_time(1)
        row = await handle.fetch()
        # Somebody takes this node for dead, and the work is another attempt's from then on.
        rescued = world.storage.rescue([row.node or ""], world.clock.now(), lambda: "another-attempt")
        assert rescued.retried == 1
        stale = Outcome(row.id, row.attempt_id, row.node or "", Ending.FAILED, world.clock.now())
        assert world.storage.finish([stale], world.clock.now()).stale == {row.attempt_id}
        await world.pass_time(15)
        assert (await handle.fetch()).state in (State.PENDING, State.RUNNING)
        (refused,) = heard.of(OutcomeRefused)
        assert (refused.execution_id, refused.attempt_id, refused.task) == (row.id, row.attempt_id, "work")
        scheduler.stop(hard=True)


async def test_law09_the_times_of_a_job_only_grow() -> None:
    world = World()
    async with world.running_with(world.job("tick", Cron("*/7 * * * * *"))) as scheduler:
        for length in (30, -60, 90, -10):
            world.clock.step(length)
            await world.pass_time(60)
        (record,) = scheduler.jobs
        assert record.state == "active"

    assert world.nominals("tick") == sorted(set(world.nominals("tick")))


def test_law09_a_schedule_that_can_never_fire_is_refused() -> None:
    for refused in (
        lambda: Cron("0 0 30 2 *"),
        lambda: Every(0),
        lambda: Once("2026-03-29T02:30:00", tz="Europe/Zurich"),
    ):
        with pytest.raises((ScheduleError, InvalidArgument)):
            refused()


async def test_law11_the_file_holds_json_and_names_only(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    world = World(storage=SQLiteStorage(path, synchronous="NORMAL"))
    async with world.running_with(
        world.job("job", Every(1), "say", args={"text": "hello"}), world.job("fails", Every(1), "fail")
    ) as scheduler:
        await world.pass_time(3)
        assert await kinds(scheduler, "job") == [Kind.FIRED] * 3
        assert len(await executions_of(scheduler, "fails")) == 3

    with sqlite3.connect(path) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        cells = [cell for table in tables for row in connection.execute(f"SELECT * FROM {table}") for cell in row]
    connection.close()
    assert not any(isinstance(cell, bytes) for cell in cells)
    texts = [cell for cell in cells if isinstance(cell, str) and cell.startswith(("{", "["))]
    assert [json.loads(text) for text in texts]
