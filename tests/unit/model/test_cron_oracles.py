"""Our stepping against three others: croniter away from DST changes, cronsim at them, and plain enumeration.

croniter and cronsim are asked only where they are known to be right; what they read otherwise is not drawn, and says
so. The third oracle is the definition itself: look at each minute around a change of the clocks and see what the wall
shows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from attrs import frozen
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from clepsydra.model.calendar import Transition, transitions
from clepsydra.model.cron import Cron
from clepsydra.model.cron_times import Fold, Gap
from clepsydra.model.instants import HOUR, MINUTE, SECOND, Instant, to_datetime, to_instant

ORDINARY = ("UTC", "Europe/Zurich", "America/New_York", "Asia/Tokyo", "Australia/Sydney", "America/Santiago")
WITH_DST = ("Europe/Zurich", "America/New_York", "Australia/Sydney", "America/Santiago")
EXOTIC = (
    "Africa/Cairo",  # the gap is at midnight
    "Africa/Casablanca",  # the clocks are put back for Ramadan
    "Africa/Monrovia",  # 1972: 44 minutes 30 seconds
    "America/Caracas",  # 2016: a gap of 30 minutes
    "America/Noronha",  # 2000: seven days of DST
    "America/Sao_Paulo",  # gap and fold at midnight
    "America/Scoresbysund",
    "America/St_Johns",  # at one minute past midnight until 2011; two hours in 1988
    "Antarctica/Casey",
    "Antarctica/Troll",  # two hours
    "Antarctica/Vostok",  # a fold of two hours, of seven in 1994
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",  # 1986: fifteen minutes
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Australia/Lord_Howe",  # half an hour
    "Europe/Dublin",  # "winter time" is the DST
    "Pacific/Apia",  # 2011-12-30 was left out
    "Pacific/Kiritimati",  # 1994-12-31 was left out
    "Pacific/Kwajalein",
)
CRONSIM_HAS_NO_SECONDS = "Africa/Monrovia"
# cronsim's wildcard expressions go from hour to hour of real time, so a change by no whole hour throws them off; and
# they find days that were left out.
CRONSIM_WRONG_WITH_WILDCARDS = {
    "America/Caracas",
    "America/St_Johns",
    "Antarctica/Casey",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Pacific/Kwajalein",
}
# Coming to a new date they begin at midnight, also where a gap leaves midnight out.
CRONSIM_WRONG_WITH_WILDCARDS_ON_DATES = {
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Noronha",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Scoresbysund",
    "Antarctica/Vostok",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Tehran",
}
HORIZON = (to_instant(datetime(1970, 1, 2, tzinfo=UTC)), to_instant(datetime(2038, 1, 1, tzinfo=UTC)))


@lru_cache(maxsize=64)
def changes_of(tz: str) -> list[Transition]:
    return transitions(tz, *HORIZON)


# ---- Random expressions: only what the oracles read as we do


def field_texts(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    values = st.integers(low, high)
    spelled = values.map(str) if not names else st.one_of(values.map(str), st.sampled_from(names))
    ranges = st.tuples(values, values).filter(lambda two: two[0] < two[1]).map(lambda two: f"{two[0]}-{two[1]}")
    steps = st.integers(1, high - low)
    star_step = steps.map(lambda step: f"*/{step}")
    range_step = st.tuples(ranges, steps).map(lambda both: f"{both[0]}/{both[1]}")
    atoms = st.one_of(spelled, ranges, star_step, range_step)
    return st.one_of(st.just("*"), atoms, st.lists(atoms, min_size=2, max_size=3).map(",".join))


MONTHS = field_texts(1, 12, ("JAN", "feb", "Mar"))
WEEKDAYS = field_texts(0, 6, ("SUN", "mon", "Sat"))
DAYS = field_texts(1, 28)


@st.composite
def expressions(draw: st.DrawFn, *, seconds: bool = False) -> str:
    day, weekday = draw(DAYS), draw(WEEKDAYS)
    # croniter's and cronsim's readings of a star that is not alone differ when both day fields are restricted.
    if "*" in day + weekday and "*" not in (day, weekday):
        weekday = "*"
    fields = [draw(field_texts(0, 59)), draw(field_texts(0, 23)), day, draw(MONTHS), weekday]
    return " ".join((draw(field_texts(0, 59)), *fields) if seconds else fields)


def reads_as_croniter_does(expr: str) -> bool:
    """Not so: `*/1` beside another restricted day field, which croniter takes for restricted."""
    return "*/1 " not in f"{expr} "


# ---- croniter, away from changes


@given(
    expr=st.one_of(expressions(), expressions(seconds=True)).filter(reads_as_croniter_does),
    tz=st.sampled_from(ORDINARY),
    start=st.integers(HORIZON[0], HORIZON[1]).map(lambda instant: instant // SECOND * SECOND),
)
def test_away_from_changes_the_next_time_is_croniters(expr: str, tz: str, start: Instant) -> None:
    wall = to_datetime(start, ZoneInfo(tz))
    try:
        expected = croniter(expr, wall, ret_type=datetime, second_at_beginning=True).get_next()
    except CroniterBadDateError:
        return
    if crosses_a_change(tz, start, to_instant(expected)):
        # What it names as wall time is right even then; what it makes of it is not.
        naive = croniter(expr, wall.replace(tzinfo=None), ret_type=datetime, second_at_beginning=True).get_next()
        expected = naive.replace(tzinfo=ZoneInfo(tz))
        if near_a_change(tz, to_instant(expected)) or near_a_change(tz, start):
            return

    assert Cron(expr, tz).bind("", "", 0).next_after(start) == to_instant(expected)


@given(
    expr=expressions().filter(reads_as_croniter_does),
    start=st.integers(HORIZON[0], HORIZON[1]).map(lambda instant: instant // SECOND * SECOND),
)
def test_the_last_time_is_croniters(expr: str, start: Instant) -> None:
    try:
        expected = croniter(expr, to_datetime(start), ret_type=datetime).get_prev()
    except CroniterBadDateError:
        return
    if expected.year < 1970:
        return

    assert Cron(expr).bind("", "", 0).last_before(start) == to_instant(expected)


def crosses_a_change(tz: str, start: Instant, end: Instant) -> bool:
    return any(start - HOUR <= change.at <= end + HOUR for change in changes_of(tz))


def near_a_change(tz: str, at: Instant) -> bool:
    return any(abs(at - change.at) < 26 * HOUR for change in changes_of(tz))


# ---- cronsim, at changes


@pytest.mark.parametrize("tz", [*WITH_DST, *(tz for tz in EXOTIC if tz != CRONSIM_HAS_NO_SECONDS)])
@given(data=st.data())
def test_at_a_change_the_next_times_are_cronsims(tz: str, data: st.DataObject) -> None:
    change = data.draw(st.sampled_from(changes_of(tz)))
    expr = data.draw(expressions().filter(reads_as_croniter_does))
    start = change.at - data.draw(st.integers(1, 30 * 60)) * MINUTE
    if cronsim_stumbles(tz, expr, start):
        return
    expected = [to_instant(at) for at in islice(CronSim(expr.upper(), to_datetime(start, ZoneInfo(tz))), 12)]

    bound = Cron(expr, tz).bind("", "", 0)
    found = list(islice(bound.times(start + 1, HORIZON[1] + 365 * 50 * 24 * HOUR), len(expected)))

    assert found == expected


def cronsim_stumbles(tz: str, expr: str, start: Instant) -> bool:
    wall = to_datetime(start, ZoneInfo(tz))
    if wall.fold:
        return True  # it finds times of the first pass again
    minute, hour, *date = expr.split()
    if not minute.startswith("*") and not hour.startswith("*"):
        return False
    return tz in CRONSIM_WRONG_WITH_WILDCARDS or (tz in CRONSIM_WRONG_WITH_WILDCARDS_ON_DATES and date != ["*"] * 3)


# ---- the definition itself, at changes


@lru_cache(maxsize=256)
def walls_around(tz: str, change: Instant) -> list[tuple[Instant, datetime]]:
    """Each minute of real time within a day and a half of the change, and what the wall then shows."""
    zone = ZoneInfo(tz)
    first = (change - 36 * HOUR) // MINUTE * MINUTE
    return [(at, to_datetime(at, zone)) for at in range(first, change + 36 * HOUR, MINUTE)]


@frozen
class Matching:
    """What an expression names, as sets."""

    minutes: set[int]
    hours: set[int]
    weekdays: set[int]

    def __contains__(self, wall: datetime) -> bool:
        of_day = wall.minute in self.minutes and wall.hour in self.hours and not wall.second
        return of_day and wall.isoweekday() % 7 in self.weekdays

    def __str__(self) -> str:
        minutes, hours, weekdays = (
            ",".join(map(str, sorted(each))) for each in (self.minutes, self.hours, self.weekdays)
        )
        return f"{minutes} {hours} * * {weekdays}"


MATCHING = st.builds(
    Matching,
    st.sets(st.integers(0, 59), min_size=1, max_size=3),
    st.sets(st.integers(0, 23), min_size=1, max_size=24),
    st.one_of(st.just(set(range(7))), st.sets(st.integers(0, 6), min_size=1)),
)


def enumerated(tz: str, change: Transition, matching: Matching, gap: Gap, fold: Fold) -> list[Instant]:
    """The times that run, by looking at every minute."""
    named: set[Instant] = set()
    walls = walls_around(tz, change.at)
    for at, wall in walls:
        if wall not in matching:
            continue
        ambiguous = wall.replace(fold=0).utcoffset() != wall.replace(fold=1).utcoffset()
        if not ambiguous or fold == "both" or (fold == "second") == bool(wall.fold):
            named.add(at)
    lost = lost_at(change)
    if gap == "after" and any(wall in matching for wall in lost):
        named.add(change.at)
    return sorted(named)


def lost_at(change: Transition) -> list[datetime]:
    """The minutes that the wall never shows."""
    before = to_datetime(change.at + change.offset_before * SECOND)
    after = to_datetime(change.at + change.offset_after * SECOND)
    first = before + timedelta(seconds=-before.second % 60)
    count = max(0, -((first - after) // timedelta(minutes=1)))
    return [first + timedelta(minutes=minute) for minute in range(count)]


WHOLE_MINUTES = [
    (tz, change)
    for tz in (*WITH_DST, *EXOTIC)
    for change in changes_of(tz)[-3:] + changes_of(tz)[:2]
    if change.offset_before % 60 == 0 and change.offset_after % 60 == 0
]


@pytest.mark.parametrize("gap", ["after", "skip"])
@pytest.mark.parametrize("fold", ["first", "second", "both"])
@given(
    where=st.sampled_from(WHOLE_MINUTES),
    matching=MATCHING,
)
def test_both_ways_name_what_enumeration_names(
    gap: Gap, fold: Fold, where: tuple[str, Transition], matching: Matching
) -> None:
    tz, change = where
    expected = enumerated(tz, change, matching, gap, fold)
    start, end = walls_around(tz, change.at)[0][0], walls_around(tz, change.at)[-1][0] + 1

    bound = Cron(str(matching), tz, gap=gap, fold=fold).bind("", "", 0)
    forward = list(bound.times(start, end))
    backward: list[Instant] = []
    at = bound.last_before(end)
    while at is not None and at >= start:
        backward.append(at)
        at = bound.last_before(at)

    assert forward == expected
    assert backward == expected[::-1]


# ---- what always holds


@given(
    expr=st.one_of(expressions(), expressions(seconds=True)),
    tz=st.sampled_from((*ORDINARY, *EXOTIC)),
    gap=st.sampled_from([None, "after", "skip"]),
    fold=st.sampled_from([None, "first", "second", "both"]),
    start=st.integers(0, HORIZON[1]),
)
def test_looking_back_is_the_mirror_of_looking_forward(
    expr: str, tz: str, gap: Gap | None, fold: Fold | None, start: Instant
) -> None:
    bound = Cron(expr, tz, gap, fold).bind("", "", 0)

    following = bound.next_after(start)

    assert following is not None
    assert following > start
    assert bound.last_before(following + 1) == following
    previous = bound.last_before(following)
    assert previous is None or previous <= start
    assert previous is None or bound.next_after(previous) == following
