"""`Every`, `Once` and `Reboot`; the value that all schedules share: equality, `upcoming`, jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clepsydra.model.cron import Cron
from clepsydra.model.errors import ClepsydraError, InvalidArgument, ScheduleError
from clepsydra.model.instants import DAY, HOUR, MINUTE, SECOND, Instant, Micros, to_instant
from clepsydra.model.schedule import Every, Once, Reboot, Schedule, jitter_of

ADDED = datetime(2027, 1, 1, 12, 0, 7, tzinfo=UTC)
ANCHOR = to_instant(ADDED)
TEXT: Any = "5m"
NUMBER: Any = 5
NOTHING: Any = None
FAR = st.integers(0, to_instant(datetime(2100, 1, 1, tzinfo=UTC)))


# ---- Every


def test_the_first_time_is_one_interval_after_the_first_add() -> None:
    found = Every(minutes=5).upcoming(2, after=ADDED)

    assert [at - ADDED for at in found] == [timedelta(minutes=5), timedelta(minutes=10)]


def test_a_restart_does_not_shift_the_beat() -> None:
    bound = Every(minutes=5).bind("id", "name", ANCHOR)

    assert bound.next_after(ANCHOR + 7 * MINUTE) == ANCHOR + 10 * MINUTE
    assert bound.next_after(ANCHOR + 10 * MINUTE) == ANCHOR + 15 * MINUTE
    assert bound.next_after(ANCHOR - DAY) == ANCHOR + 5 * MINUTE


def test_nothing_runs_before_the_first_interval_has_passed() -> None:
    bound = Every(minutes=5).bind("id", "name", ANCHOR)

    assert bound.last_before(ANCHOR + 5 * MINUTE) is None
    assert bound.last_before(ANCHOR - DAY) is None
    assert bound.last_before(ANCHOR + 5 * MINUTE + 1) == ANCHOR + 5 * MINUTE


@pytest.mark.parametrize(
    ("every", "micros"),
    [
        (Every(timedelta(minutes=1)), MINUTE),
        (Every(90), 90 * SECOND),
        (Every(0.25), SECOND // 4),
        (Every(weeks=1, days=1, hours=1, minutes=1, seconds=1), 8 * DAY + HOUR + MINUTE + SECOND),
        (Every(hours=0.5), 30 * MINUTE),
        (Every(timedelta(hours=1), minutes=30), 90 * MINUTE),
    ],
)
def test_an_interval_may_be_given_in_parts(every: Every, micros: Micros) -> None:
    assert every.micros == micros


@pytest.mark.parametrize(
    "give",
    [
        lambda: Every(),
        lambda: Every(0),
        lambda: Every(-5),
        lambda: Every(0.0001),
        lambda: Every(minutes=-1),
        lambda: Every(float("nan")),
        lambda: Every(float("inf")),
        lambda: Every(1e300),
        lambda: Every(days=10**9),
        lambda: Every(seconds=1, minutes=TEXT),
        lambda: Every(TEXT),
        lambda: Every(True),
    ],
)
def test_an_interval_that_is_none_is_refused(give: Any) -> None:
    with pytest.raises(ScheduleError, match=r"^Every: "):
        give()


@given(interval=st.integers(1000, 400 * DAY), anchor=FAR, at=FAR)
def test_the_next_and_the_last_are_neighbours(interval: Micros, anchor: Instant, at: Instant) -> None:
    bound = Every(timedelta(microseconds=interval)).bind("id", "name", anchor)

    following, previous = bound.next_after(at), bound.last_before(at)

    assert following is not None
    assert following > at
    assert (following - anchor) % interval == 0
    assert following == anchor + interval or following - interval <= at
    assert previous is None or (previous < at <= previous + interval)


@given(start=st.integers(-30, 200), length=st.integers(-5, 100), limit=st.none() | st.integers(0, 9))
def test_counting_is_dividing(start: int, length: int, limit: int | None) -> None:
    bound = Every(7).bind("id", "name", ANCHOR)
    first, last = ANCHOR + start * SECOND, ANCHOR + (start + length) * SECOND

    walked = len(list(bound.times(first, last)))

    assert bound.count(first, last, limit) == (walked if limit is None else min(walked, limit))


def test_jobs_with_one_anchor_share_their_times() -> None:
    one, other = Every(7).bind("a", "first", ANCHOR), Every(seconds=7).bind("b", "second", ANCHOR)

    assert one.shares_with == other.shares_with
    assert one.shares_with != Every(7).bind("a", "first", ANCHOR + 1).shares_with


def test_an_interval_comes_to_its_end_with_time() -> None:
    bound = Every(days=365 * 900).bind("id", "name", ANCHOR)
    found = list(bound.times(0, 10**18))

    assert len(found) == 8
    assert bound.next_after(found[-1]) is None
    assert bound.last_before(10**18) == found[-1]


def test_an_interval_after_completion_waits_for_the_end_of_each_run() -> None:
    schedule = Every(minutes=5, after_completion=True)
    bound = schedule.bind("id", "name", ANCHOR)

    assert schedule.driven_by == bound.driven_by == "completion"
    assert bound.interval == 5 * MINUTE
    assert bound.next_after(ANCHOR + 7) == ANCHOR + 7 + 5 * MINUTE
    assert bound.last_before(ANCHOR + DAY) is None
    assert list(bound.times(ANCHOR, ANCHOR + DAY)) == []
    assert bound.count(ANCHOR, ANCHOR + DAY) == 0
    assert schedule.upcoming(3, after=ADDED) == []


@pytest.mark.parametrize(
    ("every", "words"),
    [
        (Every(minutes=5), "every 5 minutes"),
        (Every(hours=1), "every hour"),
        (Every(minutes=90), "every 1 hour 30 minutes"),
        (Every(0.25), "every 250 milliseconds"),
        (Every(weeks=2), "every 2 weeks"),
        (Every(minutes=1, after_completion=True), "1 minute after each completion"),
    ],
)
def test_an_interval_in_words(every: Every, words: str) -> None:
    assert every.describe() == words


# ---- Once


@pytest.mark.parametrize(
    ("once", "expected"),
    [
        (Once(datetime(2027, 6, 1, 9, tzinfo=UTC)), "2027-06-01T09:00:00+00:00"),
        (Once("2027-06-01T09:00Z"), "2027-06-01T09:00:00+00:00"),
        (Once("2027-06-01T09:00+03:00"), "2027-06-01T06:00:00+00:00"),
        (Once("2027-06-01", tz="Europe/Zurich"), "2027-06-01T00:00:00+02:00"),
        (Once(datetime(2027, 6, 1, 9), tz="Europe/Zurich"), "2027-06-01T09:00:00+02:00"),
        (Once(datetime(2027, 6, 1, 9, tzinfo=ZoneInfo("Asia/Tokyo"))), "2027-06-01T09:00:00+09:00"),
        (Once(datetime(2027, 6, 1, 9, tzinfo=UTC), tz="Asia/Tokyo"), "2027-06-01T18:00:00+09:00"),
        (Once(datetime(2027, 6, 1, 9, 0, 0, 125, tzinfo=UTC)), "2027-06-01T09:00:00.000125+00:00"),
        (Once("1970-01-01T01:00", tz="Europe/Zurich"), "1970-01-01T01:00:00+01:00"),
    ],
)
def test_once_is_a_moment_however_it_is_given(once: Once, expected: str) -> None:
    assert once.at.isoformat() == expected
    assert [at.isoformat() for at in once.upcoming(2, after=datetime(1970, 1, 1, tzinfo=UTC) - timedelta(1))] == [
        expected
    ]


def test_a_repeated_wall_time_is_the_pass_that_fold_says() -> None:
    wall = datetime(2027, 10, 31, 2, 30)

    assert Once(wall, tz="Europe/Zurich").at.isoformat() == "2027-10-31T02:30:00+02:00"
    assert Once(wall.replace(fold=1), tz="Europe/Zurich").at.isoformat() == "2027-10-31T02:30:00+01:00"
    assert Once(wall.replace(fold=1, tzinfo=ZoneInfo("Europe/Zurich"))).at.isoformat() == "2027-10-31T02:30:00+01:00"


@pytest.mark.parametrize(
    "give",
    [
        lambda: Once("2027-03-28T02:30", tz="Europe/Zurich"),
        lambda: Once(datetime(2027, 3, 28, 2, 30, fold=1), tz="Europe/Zurich"),
        lambda: Once(datetime(2027, 3, 28, 2, 30, tzinfo=ZoneInfo("Europe/Zurich"))),
        lambda: Once("2011-12-30T12:00", tz="Pacific/Apia"),
    ],
)
def test_a_wall_time_that_does_not_exist_is_refused(give: Any) -> None:
    with pytest.raises(ScheduleError, match="does not exist in"):
        give()


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (lambda: Once("2027-06-01T09:00"), "says no zone"),
        (lambda: Once(datetime(2027, 6, 1)), "says no zone"),
        (lambda: Once("tomorrow", tz="UTC"), "write it like"),
        (lambda: Once("x" * 5000, tz="UTC"), "write it like"),
        (lambda: Once(NUMBER), "must be a datetime"),
        (lambda: Once(NOTHING), "must be a datetime"),
        (lambda: Once("2027-06-01T09:00Z", tz="Mars/Olympus"), "not a known time zone"),
        (lambda: Once("1969-12-31T23:00Z"), "years are 1970 to 9998"),
        (lambda: Once(datetime.max.replace(tzinfo=timezone(-timedelta(hours=23)))), "years are 1970 to 9998"),
        (lambda: Once(datetime(1, 1, 1), tz="Asia/Tokyo"), "years are 1970 to 9998"),
    ],
)
def test_a_moment_that_is_none_is_refused(give: Any, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        give()

    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


def test_once_is_over_when_it_is_over() -> None:
    once = Once(ADDED)
    bound = once.bind("id", "name", 0)

    assert bound.next_after(ANCHOR - 1) == ANCHOR
    assert bound.next_after(ANCHOR) is None
    assert bound.last_before(ANCHOR) is None
    assert bound.last_before(ANCHOR + 1) == ANCHOR
    assert list(bound.times(ANCHOR, ANCHOR + 1)) == [ANCHOR]
    assert list(bound.times(ANCHOR + 1, ANCHOR + 2)) == []
    assert bound.shares_with == Once(ADDED.astimezone(ZoneInfo("Asia/Tokyo"))).bind("", "", 5).shares_with
    assert once.describe() == "once at 2027-01-01 12:00:07, UTC time"


# ---- Reboot


def test_a_start_is_outside_enumeration() -> None:
    bound = Reboot().bind("id", "name", ANCHOR)

    assert Reboot().driven_by == bound.driven_by == "reboot"
    assert bound.next_after(0) is None
    assert bound.last_before(ANCHOR) is None
    assert list(bound.times(0, ANCHOR)) == []
    assert Reboot().upcoming(3) == []


# ---- What all share


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Every(minutes=1), Every(60)),
        (Once("2027-06-01T09:00Z"), Once(datetime(2027, 6, 1, 9, tzinfo=UTC))),
        (Reboot(), Reboot()),
        (Cron("*/5 * * * *"), Cron(" */5 * * * *")),
        (Cron("0 0 * * mon"), Cron("0 0 * * MON", tz="UTC", gap=None)),
    ],
)
def test_schedules_are_equal_by_value(one: Schedule, other: Schedule) -> None:
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Every(minutes=1), Every(minutes=1, after_completion=True)),
        (Cron("0 2 * * *"), Cron("0 2 * * *", gap="skip")),
        (Cron("0 2 * * *"), Cron("0 2 * * *", tz="Europe/Zurich")),
        (Cron("@reboot"), Reboot()),
    ],
)
def test_schedules_differ_where_their_values_do(one: Schedule, other: Schedule) -> None:
    assert one != other


@pytest.mark.parametrize("schedule", [Every(1), Once("2027-06-01T09:00Z"), Reboot(), Cron("* * * * *")])
def test_schedules_are_frozen(schedule: Schedule) -> None:
    with pytest.raises(AttributeError):
        schedule.tz = "UTC"  # type: ignore[attr-defined]


def test_upcoming_begins_now_if_not_told_otherwise() -> None:
    before = datetime.now(UTC)

    (at,) = Cron("* * * * * *").upcoming(1)

    assert before < at < before + timedelta(seconds=30)


def test_upcoming_is_shown_in_the_zone_of_the_schedule_or_in_another() -> None:
    cron = Cron("0 9 * * *", tz="Europe/Zurich")

    assert cron.upcoming(1, after=ADDED)[0].isoformat() == "2027-01-02T09:00:00+01:00"
    assert cron.upcoming(1, after=ADDED, tz="Asia/Tokyo")[0].isoformat() == "2027-01-02T17:00:00+09:00"


@pytest.mark.parametrize("n", [-1, True, 1.5, "3", None, 10**9], ids=str)
def test_upcoming_refuses_what_is_no_count(n: Any) -> None:
    with pytest.raises(InvalidArgument, match="whole number"):
        Every(1).upcoming(n)


def test_upcoming_refuses_a_naive_start() -> None:
    with pytest.raises(ClepsydraError, match="aware"):
        Every(1).upcoming(1, after=datetime(2027, 1, 1))


# ---- Jitter


@given(job=st.text(max_size=20), nominal=FAR, jitter=st.integers(0, DAY), room=st.none() | st.integers(1, DAY))
def test_jitter_is_not_negative_and_ends_before_the_next_time(
    job: str, nominal: Instant, jitter: Micros, room: int | None
) -> None:
    following = None if room is None else nominal + room

    late = jitter_of(job, nominal, jitter, following)

    assert 0 <= late <= jitter
    assert following is None or nominal + late < following
    assert late == jitter_of(job, nominal, jitter, following)


def test_jitter_spreads_jobs_and_times() -> None:
    by_job = {jitter_of(f"job {number}", ANCHOR, MINUTE, None) // SECOND for number in range(1000)}
    by_time = {jitter_of("job", ANCHOR + number, MINUTE, None) // SECOND for number in range(1000)}

    assert by_job == by_time == set(range(60))
