"""Union, exclusion and bounds: what they name, what they settle as excluded, and what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from clepsydra.model.calendar import zone
from clepsydra.model.cron import Cron
from clepsydra.model.errors import ScheduleError
from clepsydra.model.instants import DAY, HOUR, MINUTE, SECOND, Instant, to_instant
from clepsydra.model.schedule import BoundSchedule, Every, Once, Reboot, Schedule

START = datetime(2027, 3, 1, tzinfo=UTC)  # a Monday
AT = to_instant(START)


def runs(schedule: Schedule, count: int, after: datetime = START) -> list[str]:
    return [f"{at:%d %H:%M}" for at in schedule.upcoming(count, after=after)]


def bound(schedule: Schedule) -> BoundSchedule:
    return schedule.bind("id", "name", AT)


# ---- Union


def test_a_union_runs_at_the_times_of_either() -> None:
    assert runs(Cron("0 9 * * *") | Cron("30 17 * * *"), 3) == ["01 09:00", "01 17:30", "02 09:00"]


def test_what_both_name_is_one_time() -> None:
    union = Cron("*/20 * * * *") | Cron("*/30 * * * *")

    assert [at.minute for at in union.upcoming(5, after=START)] == [20, 30, 40, 0, 20]
    assert bound(union).count(AT, AT + HOUR) == 4


def test_a_union_knows_the_last_time_of_either() -> None:
    union = bound(Cron("0 9 * * *") | Cron("30 17 * * *"))

    assert union.last_before(AT + 18 * HOUR) == AT + 17 * HOUR + 30 * MINUTE
    assert union.last_before(AT + 12 * HOUR) == AT + 9 * HOUR


def test_unions_are_flat_and_their_order_does_not_matter() -> None:
    one, two, three = Cron("1 * * * *"), Every(7), Once("2027-06-01T09:00Z")

    assert (one | two) | three == three | (two | one)
    assert hash(one | two) == hash(two | one)
    assert one | one == one
    assert bound(one | two).shares_with == bound(two | one).shares_with


def test_a_time_excluded_from_one_member_runs_when_another_names_it() -> None:
    union = bound((Cron("0 * * * *") - Cron("0 12 * * *")) | Cron("0 12 * * MON"))

    assert union.has_exclusions
    assert not union.is_excluded(AT + 12 * HOUR)
    assert union.is_excluded(AT + DAY + 12 * HOUR)
    assert list(union.times(AT + DAY + 12 * HOUR, AT + DAY + 13 * HOUR)) == [AT + DAY + 12 * HOUR]


def test_a_union_is_shown_in_the_zone_that_its_members_share() -> None:
    here, there = Cron("0 9 * * *", tz="Europe/Zurich"), Cron("0 9 * * *", tz="Asia/Tokyo")

    assert (here | Cron("0 8 * * *", tz="Europe/Zurich")).upcoming(1, after=START)[0].isoformat()[-6:] == "+01:00"
    assert (here | there).upcoming(1, after=START)[0].isoformat()[-6:] == "+00:00"


# ---- Exclusion


def test_excluded_times_are_passed_over_and_stay_nominal() -> None:
    difference = Cron("0 * * * *") - Cron("0 10-22 * * *")

    assert runs(difference, 3, START.replace(hour=8, minute=30)) == ["01 09:00", "01 23:00", "02 00:00"]
    assert bound(difference).has_exclusions
    assert bound(difference).count(AT, AT + DAY) == 24
    assert bound(difference).is_excluded(AT + 10 * HOUR)
    assert not bound(difference).is_excluded(AT + 9 * HOUR)


def test_a_cron_excludes_the_minutes_that_it_names_whatever_the_seconds() -> None:
    lunch = bound(Every(7 * 60) - Cron("* 12 * * *"))

    nominal = list(lunch.times(AT, AT + DAY))
    excluded = [at for at in nominal if lunch.is_excluded(at)]

    assert excluded == [at for at in nominal if 12 * HOUR <= at - AT < 13 * HOUR]
    assert len(excluded) == 9


def test_a_cron_with_seconds_excludes_those_seconds_only() -> None:
    difference = Cron("*/20 * * * * *") - Cron("20 * * * * *")

    assert [at.second for at in difference.upcoming(3, after=START)] == [40, 0, 40]


def test_a_date_may_be_excluded_whole_by_bounds() -> None:
    holiday = Cron("* * * * *").between(START + timedelta(days=1), START + timedelta(days=2))

    assert runs(Cron("0 9 * * *") - holiday, 2) == ["01 09:00", "03 09:00"]


def test_exclusions_are_gathered() -> None:
    one, two, three = Cron("* * * * *"), Cron("* 12 * * *"), Cron("* 13 * * *")

    assert one - two - three == one - (three | two)


def test_an_exclusion_from_the_exclusion_runs_again() -> None:
    weekdays_but_friday = Cron("0 9 * * *") - (Cron("* * * * MON-FRI") - Cron("* * * * FRI"))

    assert runs(weekdays_but_friday, 3) == ["05 09:00", "06 09:00", "07 09:00"]


@pytest.mark.parametrize("tz", ["UTC", "Europe/Zurich"])
def test_a_long_exclusion_is_leapt_over_both_ways(tz: str) -> None:
    office = bound(Cron("* * * * * *", tz=tz) - Cron("* * * * SAT,SUN", tz=tz) - Cron("* 0-7,18-23 * * *", tz=tz))
    friday_evening = next(at for at in office.times(AT + 4 * DAY, AT + 5 * DAY) if office.is_excluded(at + 10 * HOUR))

    monday = office.next_after(friday_evening + 12 * HOUR)

    assert monday is not None
    assert office.last_before(monday) == office.last_before(friday_evening + 30 * HOUR)
    assert [monday + n * SECOND for n in range(3)] == list(islice(office.times(monday, monday + HOUR), 3))


def test_a_schedule_that_excludes_all_of_itself_never_runs() -> None:
    nothing = Cron("0 * * * *") - Cron("* * * * *")

    assert bound(nothing).next_after(AT) is None
    assert bound(nothing).last_before(AT) is None


def test_a_summer_without_runs_is_leapt_over_though_it_names_single_minutes() -> None:
    winter = bound(Cron("*/2 * * * *") - Cron("*/2 * * 4-10 *"))

    assert winter.next_after(AT + 40 * DAY) == to_instant(datetime(2027, 11, 1, tzinfo=UTC))
    assert winter.last_before(AT + 240 * DAY) == to_instant(datetime(2027, 3, 31, 23, 58, tzinfo=UTC))


def test_a_zone_that_was_forgotten_and_made_anew_is_the_same_zone() -> None:
    every_other_minute = Cron("*/2 * * * *", tz="Europe/Oslo")
    bound(every_other_minute)
    zone.cache_clear()
    winter = bound(every_other_minute - Cron("*/2 * * 4-9 *", tz="Europe/Oslo"))

    assert winter.next_after(AT + 120 * DAY) is not None


def test_an_exclusion_without_end_is_given_up_with_a_reason() -> None:
    nothing = bound(Cron("* * * * *") - Cron("0-30 * * * *") - Cron("31-59 * * * *"))

    with pytest.raises(ScheduleError, match="in a row are excluded"):
        nothing.next_after(AT)
    with pytest.raises(ScheduleError, match="in a row are excluded"):
        nothing.last_before(AT + 20 * 365 * DAY)


# ---- Bounds


def test_bounds_take_the_start_in_and_leave_the_end_out() -> None:
    bounded = Cron("0 * * * *").between(START + timedelta(hours=2), START + timedelta(hours=4))

    assert runs(bounded, 9) == ["01 02:00", "01 03:00"]
    assert bound(bounded).last_before(AT + DAY) == AT + 3 * HOUR
    assert bound(bounded).last_before(AT + 2 * HOUR) is None
    assert bound(bounded).count(AT, AT + DAY) == 2


def test_one_bound_is_enough() -> None:
    assert runs(Cron("0 * * * *").between(start=START + timedelta(hours=2)), 1) == ["01 02:00"]
    assert runs(Cron("0 * * * *").between(end=START + timedelta(hours=2)), 9) == ["01 01:00"]
    assert Cron("0 * * * *").between() == Cron("0 * * * *")


def test_bounds_within_bounds_are_the_narrower() -> None:
    hours = [START + timedelta(hours=hour) for hour in range(5)]
    cron = Cron("0 * * * *")

    assert cron.between(hours[0], hours[3]).between(hours[1], hours[4]) == cron.between(hours[1], hours[3])
    assert cron.between(hours[1]).between(end=hours[3]) == cron.between(hours[1], hours[3])


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ScheduleError, match="is not before"):
        Every(1).between(START, START)
    with pytest.raises(ScheduleError, match="is not before"):
        Every(1).between(end=START).between(start=START)


def test_a_naive_bound_is_refused() -> None:
    with pytest.raises(ScheduleError, match="between: start="):
        Every(1).between(datetime(2027, 1, 1))


def test_an_interval_within_bounds_keeps_its_anchor() -> None:
    bounded = Every(hours=5).between(start=START + timedelta(hours=7))

    assert runs(bounded, 2) == ["01 10:00", "01 15:00"]


# ---- What has no times


@pytest.mark.parametrize("event", [Reboot(), Cron("@reboot"), Every(5, after_completion=True)])
def test_schedules_that_an_event_drives_cannot_be_combined(event: Schedule) -> None:
    cron = Cron("0 * * * *")

    with pytest.raises(ScheduleError, match="part of a union"):
        _ = cron | event
    with pytest.raises(ScheduleError, match="part of a union"):
        _ = event | cron
    with pytest.raises(ScheduleError, match="an exclusion"):
        _ = cron - event
    with pytest.raises(ScheduleError, match="reduced by an exclusion"):
        _ = event - cron
    with pytest.raises(ScheduleError, match="bounded"):
        event.between(START)


def test_other_values_cannot_be_combined() -> None:
    with pytest.raises(TypeError):
        _ = Cron("0 * * * *") | "0 9 * * *"
    with pytest.raises(TypeError):
        _ = Cron("0 * * * *") - 5


# ---- In words


def test_the_algebra_in_words() -> None:
    schedule = ((Cron("0 9 * * *") | Every(minutes=7)) - Cron("* * * * SUN")).between(START)

    assert schedule.describe() == (
        "every day at 09:00, UTC time; or every 7 minutes; but not every minute on Sunday, UTC time, "
        "from 2027-03-01 00:00:00+00:00"
    )


# ---- Against enumeration

FIELD = st.one_of(st.just("*"), st.integers(0, 11).map(str), st.sampled_from(["*/2", "3-7", "1,5,9"]))
DATE = st.sampled_from(["* * *", "* * *", "* * SAT,SUN", "28-L * *"])
ZONE = st.sampled_from(["UTC", "Europe/Zurich", "Australia/Lord_Howe"])
CRONS = st.tuples(FIELD, FIELD, DATE, ZONE).map(lambda it: Cron(f"{it[0]} {it[1]} {it[2]}", tz=it[3]))
# The noon before a plain day, a skipped hour in Zurich, a repeated one, and a repeated half hour on Lord Howe.
NOONS = st.sampled_from([datetime(2027, *day, 12, tzinfo=UTC) for day in [(3, 1), (3, 27), (10, 30), (4, 3)]])
LEAVES = st.one_of(CRONS, st.integers(600, 7200).map(lambda length: Every(length)))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] - two[1]),
        st.tuples(inner, NOONS).map(lambda it: it[0].between(it[1] + timedelta(hours=5))),
    ),
    max_leaves=4,
)


@given(schedule=TREES, noon=NOONS)
def test_next_and_last_are_the_nominal_times_that_are_not_excluded(schedule: Schedule, noon: datetime) -> None:
    it, start = bound(schedule), to_instant(noon)
    end = start + DAY
    nominal = list(it.times(start, end))
    to_run = [at for at in nominal if not it.is_excluded(at)]

    assert nominal == sorted(set(nominal))
    assert walked(it, start - 1, end) == to_run
    assert [it.last_before(following) for following in to_run[1:]] == to_run[:-1]
    assert it.count(start, end) == len(nominal)
    assert it.count(start, end, limit=2) == min(2, len(nominal))
    assert it.has_exclusions or nominal == to_run


def walked(it: BoundSchedule, at: Instant, end: Instant) -> list[Instant]:
    found: list[Instant] = []
    try:
        following = it.next_after(at)
        while following is not None and following < end:
            found.append(following)
            following = it.next_after(following)
    except ScheduleError:  # of one part nothing is left, and it was given up
        reject()
    return found
