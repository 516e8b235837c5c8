"""What a job says beside its schedule is kept in full, and what it leaves unsaid can be told."""

from __future__ import annotations

import pytest

from clepsydra import Every, InvalidArgument, Job, Recovery, Schedule
from clepsydra.model.job import job_from_json, job_to_json
from clepsydra.model.policies import TimeoutFrom
from clepsydra.model.redeploy import evolve_state, with_recovery


def test_timeout_from_and_immediate_come_back_from_the_store() -> None:
    job = Job("report", "report", timeout=5, timeout_from="nominal", immediate=True)

    same = job_from_json("report", job_to_json(job))

    assert same == job
    assert (same.work.timeout_from, same.immediate) == (TimeoutFrom.NOMINAL, True)


@pytest.mark.parametrize("schedule", [None, Every(minutes=5), Every(minutes=5) | Every(minutes=7)])
@pytest.mark.parametrize("text", ['"schedule":{"kind":"reboot"}', '"schedule":null', "x" * 2000])
def test_a_definition_comes_back_whatever_its_arguments_look_like(schedule: Schedule | None, text: str) -> None:
    job = Job("report", "report", schedule, args={'"schedule":': text}, labels={'"schedule":{}': text[:100]})

    assert job_from_json("report", job_to_json(job)) == job


@pytest.mark.parametrize("damage", [('"schedule":', ""), ("}", "} x"), ('"every"', '"?"'), ('"limit":3', '"limit"')])
def test_a_damaged_definition_is_refused(damage: tuple[str, str]) -> None:
    text = job_to_json(Job("report", "report", Every(minutes=5), limit=3))

    with pytest.raises(ValueError, match=r"\S"):
        job_from_json("report", text.replace(*damage))


def test_a_definition_that_says_neither_is_written_as_it_always_was() -> None:
    text = job_to_json(Job("report", "report", timeout=5))

    assert "immediate" not in text
    assert "timeout_from" not in text


def test_what_a_timeout_is_counted_from_is_one_of_two_words() -> None:
    with pytest.raises(InvalidArgument, match="timeout_from='due': must be one of start, nominal"):
        Job("report", "report", timeout=5, timeout_from="due")


@pytest.mark.parametrize(
    ("said", "becomes"),
    [(None, Recovery.KEEP), ("retry", Recovery.RETRY), ("fail", Recovery.FAIL)],
)
def test_the_schedulers_recovery_is_for_jobs_that_say_none(said: str | None, becomes: Recovery) -> None:
    job = with_recovery(Job("report", "report", recovery=said, paused=True), Recovery.KEEP)

    assert job.work.recovery is becomes
    assert with_recovery(evolve_state(job, job.state), Recovery.FAIL).says_recovery is (said is not None)
