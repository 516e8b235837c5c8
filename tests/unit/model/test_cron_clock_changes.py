"""What a cron makes of a night on which the clocks are changed, told by examples. The oracles are elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clepsydra.model.calendar import transitions
from clepsydra.model.cron import Cron
from clepsydra.model.cron_times import Fold, Gap
from clepsydra.model.instants import to_instant

SPRING = datetime(2027, 3, 27, 12, tzinfo=UTC)  # Zurich skips 02:00 to 03:00 on the 28th
AUTUMN = datetime(2027, 10, 30, 12, tzinfo=UTC)  # Zurich repeats 02:00 to 03:00 on the 31st


def night(expr: str, evening: datetime, count: int, gap: Gap | None = None, fold: Fold | None = None) -> list[str]:
    runs = Cron(expr, tz="Europe/Zurich", gap=gap, fold=fold).upcoming(count, after=evening)
    return [f"{at:%d %H:%M%z}".removesuffix("00") for at in runs]


# ---- Fixed times


def test_a_fixed_time_in_the_gap_runs_at_the_first_instant_after_it() -> None:
    assert night("30 2 * * *", SPRING, 2) == ["28 03:00+02", "29 02:30+02"]


def test_several_fixed_times_in_one_gap_are_one_run() -> None:
    assert night("0,15,30,45 2 * * *", SPRING, 2) == ["28 03:00+02", "29 02:00+02"]


def test_a_time_in_the_gap_and_one_right_after_it_are_one_run() -> None:
    assert night("0 2,3 * * *", SPRING, 2) == ["28 03:00+02", "29 02:00+02"]


def test_a_fixed_time_in_the_fold_runs_at_the_first_pass() -> None:
    assert night("30 2 * * *", AUTUMN, 2) == ["31 02:30+02", "01 02:30+01"]


def test_fixed_times_in_the_fold_all_run_before_the_clocks_go_back() -> None:
    assert night("0,30 1-3 31 * *", AUTUMN, 6) == [
        "31 01:00+02",
        "31 01:30+02",
        "31 02:00+02",
        "31 02:30+02",
        "31 03:00+01",
        "31 03:30+01",
    ]


def test_a_fixed_time_may_be_skipped_in_the_gap() -> None:
    assert night("30 2 * * *", SPRING, 1, gap="skip") == ["29 02:30+02"]


def test_a_fixed_time_may_run_at_the_second_pass_or_at_both() -> None:
    assert night("30 2 * * *", AUTUMN, 2, fold="second") == ["31 02:30+01", "01 02:30+01"]
    assert night("30 2 * * *", AUTUMN, 3, fold="both") == ["31 02:30+02", "31 02:30+01", "01 02:30+01"]


def test_six_fields_with_fixed_times_are_fixed() -> None:
    assert night("0 30 2 * * *", SPRING, 1) == ["28 03:00+02"]


# ---- Wildcards


def test_a_wildcard_leaves_out_the_gap_and_keeps_the_beat() -> None:
    evening = SPRING.replace(hour=23, minute=50)

    assert night("*/30 * * * *", evening, 5) == [
        "28 01:00+01",
        "28 01:30+01",
        "28 03:00+02",
        "28 03:30+02",
        "28 04:00+02",
    ]


def test_a_wildcard_runs_in_both_passes_of_the_fold() -> None:
    before = AUTUMN.replace(hour=23, minute=50)

    assert night("*/30 2 * * *", before, 4) == ["31 02:00+02", "31 02:30+02", "31 02:00+01", "31 02:30+01"]


@pytest.mark.parametrize("expr", ["* 2 * * *", "0 * * * *", "*/20 2 * * *", "* 0 2 * * *", "H/20 2 * * *"])
def test_a_star_or_a_hashed_step_in_the_time_of_day_makes_a_wildcard(expr: str) -> None:
    runs = Cron(expr, tz="Europe/Zurich").upcoming(200, after=AUTUMN, name="report")

    assert {at.fold for at in runs if f"{at:%d %H}" == "31 02"} == {0, 1}


@pytest.mark.parametrize("expr", ["0-59 2 * * *", "0/20 2 * * *", "H 2 * * *", "5,*/20 2 * * *"])
def test_what_does_not_begin_with_a_star_is_a_fixed_time(expr: str) -> None:
    runs = Cron(expr, tz="Europe/Zurich").upcoming(200, after=AUTUMN, name="report")

    assert {at.fold for at in runs if f"{at:%d %H}" == "31 02"} == {0}


def test_a_wildcard_may_make_the_gap_good() -> None:
    assert night("*/15 2 * * *", SPRING, 2, gap="after") == ["28 03:00+02", "29 02:00+02"]


def test_a_wildcard_may_run_in_one_pass_only() -> None:
    before = AUTUMN.replace(hour=23, minute=50)

    assert night("*/30 2 * * *", before, 3, fold="first") == ["31 02:00+02", "31 02:30+02", "01 02:00+01"]
    assert night("*/30 2 * * *", before, 3, fold="second") == ["31 02:00+01", "31 02:30+01", "01 02:00+01"]


# ---- Where it is odd


def test_midnight_that_is_skipped_runs_at_one() -> None:
    runs = Cron("@daily", tz="Africa/Cairo").upcoming(1, after=datetime(2027, 4, 29, 12, tzinfo=UTC))

    assert runs[0].isoformat() == "2027-04-30T01:00:00+03:00"


def test_a_day_that_was_left_out_runs_at_the_start_of_the_next() -> None:
    runs = Cron("0 9 * * *", tz="Pacific/Apia").upcoming(3, after=datetime(2011, 12, 29, 12, tzinfo=UTC))

    assert [f"{at:%d %H:%M}" for at in runs] == ["29 09:00", "31 00:00", "31 09:00"]


def test_the_second_before_a_change_does_not_hide_what_it_makes_good() -> None:
    bound = Cron("59 59 1 * * *", tz="Europe/Zurich").bind("", "", 0)
    fixed = Cron("30 2 * * *", tz="Europe/Zurich").bind("", "", 0)
    change = to_instant(datetime(2027, 3, 28, 1, tzinfo=UTC))

    assert bound.next_after(change - 2_000_000) == change - 1_000_000
    assert fixed.next_after(change - 1_000_000) == change
    assert fixed.next_after(change - 1) == change
    assert fixed.last_before(change + 1) == change


# ---- Which changes touch a job


@pytest.mark.parametrize(
    ("expr", "gap", "fold", "spring", "autumn"),
    [
        (
            "30 2 * * *",
            None,
            None,
            "02:30 does not exist on 2027-03-28; runs at 03:00",
            "02:30 comes twice on 2027-10-31; runs the first time",
        ),
        (
            "0,30 2 * * *",
            "skip",
            "second",
            "02:00 and more do not exist on 2027-03-28; left out",
            "02:00 and more come twice on 2027-10-31; runs the second time",
        ),
        (
            "0 */2 * * *",
            None,
            None,
            "02:00 does not exist on 2027-03-28; left out",
            "02:00 comes twice on 2027-10-31; runs both times",
        ),
        (
            "15,45 30 2 * * *",
            None,
            None,
            "02:30:15 and more do not exist on 2027-03-28; runs once at 03:00",
            "02:30:15 and more come twice on 2027-10-31; runs the first time",
        ),
        ("0 3 * * *", None, None, None, None),
        ("30 2 * * MON", None, None, None, None),
        ("@reboot", None, None, None, None),
    ],
)
def test_a_change_that_touches_a_cron_is_told_in_words(
    expr: str, gap: Gap | None, fold: Fold | None, spring: str | None, autumn: str | None
) -> None:
    year = to_instant(datetime(2027, 1, 1, tzinfo=UTC)), to_instant(datetime(2028, 1, 1, tzinfo=UTC))
    cron = Cron(expr, tz="Europe/Zurich", gap=gap, fold=fold)

    assert [cron.touched_by(change) for change in transitions("Europe/Zurich", *year)] == [spring, autumn]


def test_a_run_moved_to_another_day_is_told_with_that_day() -> None:
    year = to_instant(datetime(2011, 12, 1, tzinfo=UTC)), to_instant(datetime(2012, 1, 15, tzinfo=UTC))
    (change,) = transitions("Pacific/Apia", *year)

    touched = Cron("0 9 * * *", tz="Pacific/Apia").touched_by(change)

    assert touched == "09:00 does not exist on 2011-12-30; runs at 00:00 on 2011-12-31"


def test_a_hashed_cron_is_touched_under_its_jobs_name() -> None:
    year = to_instant(datetime(2027, 1, 1, tzinfo=UTC)), to_instant(datetime(2028, 1, 1, tzinfo=UTC))
    change = transitions("Europe/Zurich", *year)[0]

    touched = Cron("H 2 * * *", tz="Europe/Zurich").touched_by(change, name="report")

    assert touched is not None
    assert touched.endswith("does not exist on 2027-03-28; runs at 03:00")
