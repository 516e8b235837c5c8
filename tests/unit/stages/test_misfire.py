"""What a job's due times come to now: the pure part of the misfire policies."""

from __future__ import annotations

from datetime import timedelta

from clepsydra import Every, Job, Kind, Misfire, Overlap
from clepsydra.model.instants import SECOND
from clepsydra.model.redeploy import first_record
from clepsydra.stages.misfire import Entry, judge
from clepsydra.storage.protocol import Settle


def entry_of(*, misfire: Misfire, overlap: Overlap = Overlap.SKIP) -> Entry:
    """A job of every second, added at 0, whose first time is at one second."""
    job = Job("tick", "tick", Every(1), misfire=misfire, overlap=overlap)
    record = first_record("id", job, False, 0, 1)
    bound = record.bind()
    assert bound is not None
    return Entry(record, bound, 0, nominal=SECOND, due=SECOND)


def test_a_time_within_its_grace_simply_runs() -> None:
    fire = judge(entry_of(misfire=Misfire("none")), SECOND + 900_000, "run")

    assert (fire.execution_id, fire.nominal, fire.to, list(fire.settled)) == ("run", SECOND, SECOND, [])


def test_latest_runs_the_last_and_coalesces_the_others() -> None:
    fire = judge(entry_of(misfire=Misfire()), 50 * SECOND, "run")

    assert (fire.nominal, fire.to) == (50 * SECOND, 50 * SECOND)
    assert list(fire.settled) == [Settle(Kind.COALESCED, SECOND, 50 * SECOND, "a later time ran for it")]


def test_latest_misses_what_is_older_than_the_window() -> None:
    fire = judge(entry_of(misfire=Misfire(window=timedelta(seconds=10))), 50 * SECOND, "run")

    assert [(span.kind, span.start, span.end) for span in fire.settled] == [
        (Kind.MISSED, SECOND, 40 * SECOND),
        (Kind.COALESCED, 40 * SECOND, 50 * SECOND),
    ]


def test_none_runs_only_what_is_on_time() -> None:
    late = judge(entry_of(misfire=Misfire("none")), 50 * SECOND + 1, "run")

    assert (late.execution_id, late.nominal) == ("run", 50 * SECOND)
    assert [(span.kind, span.start, span.end) for span in late.settled] == [(Kind.MISSED, SECOND, 50 * SECOND)]


def test_all_runs_the_earliest_first_and_alone() -> None:
    fire = judge(entry_of(misfire=Misfire("all")), 50 * SECOND, "run")

    assert (fire.nominal, fire.alone, list(fire.settled)) == (SECOND, True, [])


def test_all_with_a_limit_misses_the_oldest() -> None:
    fire = judge(entry_of(misfire=Misfire("all", limit=5)), 50 * SECOND, "run")

    assert fire.nominal == 46 * SECOND
    assert [(span.kind, span.start, span.end) for span in fire.settled] == [(Kind.MISSED, SECOND, 46 * SECOND)]


def test_all_beside_one_another_where_overlap_is_allowed() -> None:
    assert not judge(entry_of(misfire=Misfire("all"), overlap=Overlap.ALLOW), 50 * SECOND, "run").alone


def test_the_first_time_that_is_punctual_again_does_not_overtake_the_last_that_was_caught_up() -> None:
    entry = entry_of(misfire=Misfire("all"))
    judge(entry, 50 * SECOND, "run")
    entry.cursor, entry.nominal, entry.due = 50 * SECOND, 51 * SECOND, 51 * SECOND

    assert judge(entry, 51 * SECOND, "next").alone
