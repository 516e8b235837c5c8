"""What an expression means: which fields, values, ranges, names, specials and words are read, and how."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from clepsydra.model.calendar import Zone
from clepsydra.model.cron import Cron
from clepsydra.model.cron_tables import Days
from clepsydra.model.errors import ScheduleError
from clepsydra.model.instants import to_instant

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)  # a Friday


def runs(expr: str, count: int = 3, after: datetime = NEW_YEAR, name: str = "") -> list[str]:
    return [f"{at:%m-%d %H:%M:%S}" for at in Cron(expr).upcoming(count, after=after, name=name)]


def days(expr: str, count: int = 3, after: datetime = NEW_YEAR) -> list[str]:
    return [f"{at:%m-%d}" for at in Cron(f"0 12 {expr}").upcoming(count, after=after)]


def minutes(field: str) -> list[int]:
    hour = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    return [at.minute for at in Cron(f"{field} * * * *").upcoming(60, after=hour) if at < NEW_YEAR.replace(hour=1)]


def same(one: str, other: str) -> bool:
    return Cron(one).upcoming(50, after=NEW_YEAR) == Cron(other).upcoming(50, after=NEW_YEAR)


# ---- Fields


def test_five_fields_run_at_the_full_minute() -> None:
    assert runs("30 9 * * *", 1) == ["01-01 09:30:00"]


def test_six_fields_have_the_second_first() -> None:
    assert runs("15 30 9 * * *", 1) == ["01-01 09:30:15"]


def test_seven_fields_have_the_year_last() -> None:
    at = Cron("15 30 9 1 1 * 2031").upcoming(2, after=NEW_YEAR)

    assert [each.isoformat() for each in at] == ["2031-01-01T09:30:15+00:00"]


def test_names_are_read_in_any_case() -> None:
    assert Cron("0 0 * jan MON-fri") == Cron("0 0 * JAN Mon-Fri")


def test_spacing_makes_no_difference() -> None:
    assert Cron("  0  0 *\t* * ") == Cron("0 0 * * *")


@pytest.mark.parametrize(
    ("word", "expr"),
    [
        ("@secondly", "* * * * * *"),
        ("@minutely", "* * * * *"),
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@ANNUALLY", "0 0 1 1 *"),
    ],
)
def test_a_word_stands_for_an_expression(word: str, expr: str) -> None:
    assert same(word, expr)


# ---- Values and ranges


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("5-5", [5]),
        ("59/15", [59]),
        ("45/10", [45, 55]),
        ("*/25", [0, 25, 50]),
        ("*/60", [0]),
        ("10-20/30", [10]),
        ("7,5,5-6", [5, 6, 7]),
        ("55-5/5", [0, 5, 55]),
        ("50-10/7", [4, 50, 57]),
    ],
)
def test_a_range_means_what_it_says(field: str, expected: list[int]) -> None:
    assert minutes(field) == expected


def test_sunday_is_0_and_7() -> None:
    assert days("* * 7") == days("* * 0") == days("* * sun") == ["01-03", "01-10", "01-17"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("FRI-MON", [5, 6, 0, 1]),
        ("5-7", [5, 6, 0]),
        ("6-7", [6, 0]),
        ("7-2", [0, 1, 2]),
        ("SUN-SUN", [0]),
        ("7-7", [0]),
        ("0-7", [0, 1, 2, 3, 4, 5, 6]),
        ("MON-SUN", [0, 1, 2, 3, 4, 5, 6]),
        ("WED/2", [3, 5]),
        ("7/3", [0, 3, 6]),
    ],
)
def test_weekdays_wrap_over_sunday(field: str, expected: list[int]) -> None:
    found = {at.isoweekday() % 7 for at in Cron(f"0 0 * * {field}").upcoming(7, after=NEW_YEAR)}

    assert found == set(expected)


def test_hours_and_months_wrap_over_their_end() -> None:
    assert same("0 22-2 * * *", "0 22,23,0,1,2 * * *")
    assert same("0 23-5/4 * * *", "0 23,3 * * *")
    assert same("0 0 1 NOV-FEB *", "0 0 1 11,12,1,2 *")


def test_a_range_may_end_at_the_last_day() -> None:
    assert days("29-L FEB *", 1, datetime(2028, 1, 1, tzinfo=UTC)) == ["02-29"]


# ---- The two day fields


def test_either_day_field_is_enough_when_both_restrict() -> None:
    assert days("13 * FRI", 4) == ["01-01", "01-08", "01-13", "01-15"]


@pytest.mark.parametrize("star", ["*", "?", "*/1"])
def test_a_star_leaves_the_other_day_field_to_decide(star: str) -> None:
    assert days(f"{star} * FRI", 2) == ["01-01", "01-08"]
    assert days(f"13 * {star}", 2) == ["01-13", "02-13"]


def test_a_stepped_star_restricts() -> None:
    assert days("*/10 * FRI", 5) == ["01-01", "01-08", "01-11", "01-15", "01-21"]


def test_the_whole_range_restricts_and_so_every_day_runs() -> None:
    assert days("1-31 * MON", 3) == ["01-01", "01-02", "01-03"]


@pytest.mark.parametrize("special", ["L", "15W", "LW", "L-3"])
def test_a_special_day_is_joined_by_or_too(special: str) -> None:
    both = set(days(f"{special} * FRI", 10))

    assert set(days("* * FRI", 4)) < both
    assert set(days(f"{special} * *", 1)) < both


@pytest.mark.parametrize("special", ["FRI#2", "FRIL"])
def test_a_special_weekday_is_joined_by_or_too(special: str) -> None:
    both = set(days(f"3 * {special}", 4))

    assert {"01-03", "02-03"} < both
    assert set(days(f"* * {special}", 1)) < both


# ---- L, W, #


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("L", ["01-31", "02-28", "03-31"]),
        ("l", ["01-31", "02-28", "03-31"]),
        ("L-3", ["01-28", "02-25", "03-28"]),
        ("L-30", ["01-01", "03-01", "05-01"]),
        ("LW", ["01-29", "02-26", "03-31"]),
        ("WL", ["01-29", "02-26", "03-31"]),
        ("1W", ["01-01", "02-01", "03-01"]),
        ("2W", ["01-01", "02-02", "03-02"]),
        ("3w", ["01-04", "02-03", "03-03"]),
        ("W31", ["01-29", "02-26", "03-31"]),
        ("1,L", ["01-01", "01-31", "02-01"]),
        ("15W,20", ["01-15", "01-20", "02-15"]),
    ],
)
def test_special_days_of_the_month(day: str, expected: list[str]) -> None:
    assert days(f"{day} * *") == expected


def test_the_weekday_nearest_to_a_first_on_a_saturday_is_the_monday() -> None:
    assert days("1W MAY *", 1) == ["05-03"]


@pytest.mark.parametrize(
    ("weekday", "expected"),
    [
        ("FRI#1", ["01-01", "02-05", "03-05"]),
        ("5#2", ["01-08", "02-12", "03-12"]),
        ("mon#5", ["03-29", "05-31", "08-30"]),
        ("7#1", ["01-03", "02-07", "03-07"]),
        ("FRIL", ["01-29", "02-26", "03-26"]),
        ("5L", ["01-29", "02-26", "03-26"]),
        ("L5", ["01-29", "02-26", "03-26"]),
        ("L7", ["01-31", "02-28", "03-28"]),
        ("FRI#1,WED", ["01-01", "01-06", "01-13"]),
        ("FRI#1,WEDL", ["01-01", "01-27", "02-05"]),
    ],
)
def test_special_days_of_the_week(weekday: str, expected: list[str]) -> None:
    assert days(f"* * {weekday}") == expected


# ---- Far apart


def test_a_leap_day_comes_every_four_years_and_not_in_2100() -> None:
    years = [at.year for at in Cron("0 0 29 2 *").upcoming(3, after=datetime(2090, 1, 1, tzinfo=UTC))]

    assert years == [2092, 2096, 2104]


def test_a_jump_to_a_leap_day_is_a_few_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    for owner, name in ((Days, "_month_from"), (Zone, "piece_at")):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name), looked))

    Cron("0 0 29 2 *", tz="Europe/Zurich").bind("", "", 0).next_after(to_instant(datetime(2096, 3, 1, tzinfo=UTC)))

    assert 0 < len(looked) < 30


def noted(method: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        calls.append(method.__name__)
        return method(*args)

    return call


def test_a_year_list_is_run_through_and_then_exhausted() -> None:
    bound = Cron("0 0 0 1 JAN,JUL * 2027-2030/3").bind("", "", 0)

    found = [at.isoformat() for at in Cron("0 0 0 1 JAN,JUL * 2027-2030/3").upcoming(9, after=NEW_YEAR)]

    assert [each[:7] for each in found] == ["2027-07", "2030-01", "2030-07"]
    assert bound.next_after(10**18) is None


def test_past_years_are_exhausted_rather_than_wrong() -> None:
    assert Cron("0 0 0 1 1 * 2020").upcoming(1, after=NEW_YEAR) == []


def test_time_ends_before_the_year_9999() -> None:
    late = datetime(9998, 12, 29, 23, 58, tzinfo=UTC)

    assert [f"{at:%H:%M}" for at in Cron("* * * * *").upcoming(5, after=late)] == ["23:59"]
    assert Cron("0 0 1 * *", tz="Asia/Tokyo").upcoming(1, after=late) == []


def test_nothing_runs_before_1970() -> None:
    bound = Cron("* * * * *", tz="America/New_York").bind("", "", 0)

    assert bound.next_after(-(10**15)) == 0
    assert bound.last_before(1) == 0
    assert bound.last_before(0) is None


def test_a_fraction_of_a_second_is_before_the_next_and_after_the_last() -> None:
    bound = Cron("* * * * * *").bind("", "", 0)

    assert bound.next_after(1_500_000) == 2_000_000
    assert bound.last_before(1_500_000) == 1_000_000
    assert bound.next_after(2_000_000) == 3_000_000
    assert bound.last_before(2_000_000) == 1_000_000


# ---- H


def test_h_is_drawn_from_the_jobs_name() -> None:
    assert runs("H H * * *", 1, name="report") == runs("H H * * *", 1, name="report")
    assert runs("H H * * *", 1, name="report") != runs("H H * * *", 1, name="invoice")


def test_h_in_minute_and_hour_reaches_most_of_the_day() -> None:
    found = {tuple(runs("H H * * *", 1, name=f"job {number}")) for number in range(3000)}

    assert len(found) > 1100  # of 1440; croniter's reaches 240


def test_h_stays_in_its_range() -> None:
    for number in range(200):
        at = Cron("H(10-19) H(2-4) * * *").upcoming(1, after=NEW_YEAR, name=f"job {number}")[0]
        assert 10 <= at.minute <= 19
        assert 2 <= at.hour <= 4


def test_h_with_a_step_begins_within_the_first_step() -> None:
    for number in range(50):
        found = [at.minute for at in Cron("H/15 * * * *").upcoming(60, after=NEW_YEAR, name=f"job {number}")]
        assert len(set(found)) == 4
        assert min(found) < 15


def test_h_as_day_of_the_month_is_in_every_month() -> None:
    for number in range(100):
        found = Cron("0 0 H * *").upcoming(12, after=NEW_YEAR, name=f"job {number}")
        assert len({at.month for at in found}) == 12


def test_h_may_stand_in_a_list() -> None:
    found = {at.minute for at in Cron("H(0-29),45 * * * *").upcoming(4, after=NEW_YEAR, name="report")}

    assert 45 in found
    assert len(found) == 2


def test_h_without_a_name_asks_for_one() -> None:
    with pytest.raises(ScheduleError, match="name="):
        Cron("H * * * *").upcoming(1, after=NEW_YEAR)


def test_a_name_beyond_unicode_is_a_name() -> None:
    assert len(runs("H * * * *", 1, name="\ud800")) == 1


def test_a_day_that_the_name_draws_in_vain_is_refused_when_bound() -> None:
    cron = Cron("0 0 H(28-31) 2 *")

    outcomes = set[str]()
    for number in range(30):
        try:
            outcomes.add(f"{cron.upcoming(1, after=NEW_YEAR, name=str(number))[0]:%m-%d}")
        except ScheduleError:
            outcomes.add("refused")

    assert outcomes == {"02-28", "02-29", "refused"}


# ---- Sharing


def test_crons_that_say_the_same_share_one_bound_schedule() -> None:
    one, other = Cron("*/5 * * * *", tz="Europe/Zurich"), Cron("*/5 * * * *", tz="Europe/Zurich")

    assert one.bind("a", "first", 1) is other.bind("b", "second", 2)


def test_bound_schedules_that_name_the_same_times_say_so() -> None:
    one = Cron("30 9 * * mon").bind("a", "first", 1)
    other = Cron("0 30 9 ? * MON").bind("b", "second", 2)

    assert one.shares_with == Cron("30 9 * * MON").bind("", "", 0).shares_with
    assert one.shares_with != Cron("30 9 * * mon", tz="Asia/Tokyo").bind("a", "first", 1).shares_with
    assert one.shares_with != Cron("H 9 * * mon").bind("a", "first", 1).shares_with
    assert other.driven_by == "time"


def test_reboot_is_accepted_as_a_word() -> None:
    bound = Cron("@reboot").bind("", "", 0)

    assert bound.driven_by == "reboot"
    assert bound.next_after(0) is None
    assert Cron("@Reboot").driven_by == "reboot"
    assert Cron("@reboot").upcoming(3) == []
