"""Zones as pieces of constant offset, and the calendar as a table, against `zoneinfo` and `datetime`."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clepsydra.model import calendar
from clepsydra.model.calendar import LIMIT, PLAIN, Transition, transitions, zone
from clepsydra.model.cron import Cron
from clepsydra.model.errors import ScheduleError
from clepsydra.model.instants import SECOND, to_datetime, to_instant

ZONES = st.sampled_from(sorted(zoneinfo.available_timezones()))
SECONDS = st.integers(0, int(datetime(2060, 1, 1, tzinfo=UTC).timestamp()))


def instant(text: str) -> int:
    return to_instant(datetime.fromisoformat(text))


# ---- Zones


@given(tz=ZONES, second=SECONDS)
def test_a_piece_has_the_offset_that_zoneinfo_says(tz: str, second: int) -> None:
    start, end, offset, which, _ = zone(tz).piece_at(second)
    wall = to_datetime(second * SECOND, zoneinfo.ZoneInfo(tz))

    assert start <= second < end
    assert wall.utcoffset() == timedelta(seconds=offset)
    ambiguous = wall.replace(fold=0).utcoffset() != wall.replace(fold=1).utcoffset()
    assert (which != PLAIN) == ambiguous
    assert which == PLAIN or which - 1 == wall.fold


@given(tz=ZONES, second=SECONDS)
def test_pieces_lie_side_by_side(tz: str, second: int) -> None:
    _, end, offset, _, _ = zone(tz).piece_at(second)
    assume(end < LIMIT)  # nothing is beside the last one; UTC's first is the last, too
    start, _, following, _, gap = zone(tz).piece_at(end)

    assert start == end
    assert gap == max(following - offset, 0)


def test_a_zone_is_one_object() -> None:
    assert zone("Europe/Zurich") is zone("Europe/Zurich")


def test_the_changes_of_a_year_are_listed() -> None:
    found = transitions("Europe/Zurich", instant("2027-01-01T00:00Z"), instant("2028-01-01T00:00Z"))

    assert found == [
        Transition(instant("2027-03-28T01:00Z"), 3600, 7200),
        Transition(instant("2027-10-31T01:00Z"), 7200, 3600),
    ]


def test_a_change_is_listed_from_its_own_instant_on() -> None:
    change = instant("2027-03-28T01:00Z")

    assert [each.at for each in transitions("Europe/Zurich", change, change + 1)] == [change]
    assert transitions("Europe/Zurich", change + 1, change + SECOND) == []
    assert transitions("Europe/Zurich", change - SECOND, change) == []
    assert transitions("UTC", 0, change) == []


def test_a_week_of_summer_time_is_not_overlooked() -> None:
    found = transitions("America/Noronha", instant("2000-10-01T00:00Z"), instant("2000-11-01T00:00Z"))

    assert [each.offset_after for each in found] == [-3600, -7200]


@pytest.mark.parametrize(
    ("tz", "says"),
    [
        ("Europe/Zürich", "did you mean 'Europe/Zurich'?"),
        ("europe/zurich", "did you mean 'Europe/Zurich'?"),
        ("America/New York", "did you mean 'America/New_York'?"),
        ("utc", "did you mean 'UTC'?"),
        ("Europe", "is not a known time zone"),
        ("", "is not a known time zone"),
        ("../../etc/passwd", "is not a known time zone"),
        ("/etc/localtime", "is not a known time zone"),
        ("a\0b", "is not a known time zone"),
        ("x" * 10_000, "is not a known time zone"),
        (None, "must be the IANA name"),
        (2, "must be the IANA name"),
        (["UTC"], "must be the IANA name"),
        (zoneinfo.ZoneInfo("Europe/Zurich"), "must be the IANA name"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_unknown_zone_is_refused_with_what_may_be_meant(tz: Any, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Cron("* * * * *", tz=tz)

    assert says in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_system_without_zones_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(calendar, "available_timezones", set[str])
    monkeypatch.setattr(calendar, "ZoneInfo", nothing)
    zone.cache_clear()

    with pytest.raises(ScheduleError, match="pip install tzdata"):
        zone("Europe/Zurich")
    assert Cron("0 9 * * *", tz="UTC").tz == "UTC"


# ---- The calendar


@given(day=st.integers(-365, 365 * 200))
def test_the_months_are_those_of_the_calendar(day: int) -> None:
    table = calendar.near_months()
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    index = (at.year - 1969) * 12 + at.month - 1

    first = table.starts[index]

    assert first == day - at.day + 1
    assert calendar.weekday(day) == at.isoweekday() % 7
    length = table.starts[index + 1] - first
    assert table.kinds[index] == calendar.month_kind(length, calendar.weekday(first))


def test_the_table_of_all_months_ends_with_time() -> None:
    assert calendar.all_months().starts[: len(calendar.near_months().starts)] == calendar.near_months().starts
    assert calendar.all_months().end * 86_400 == LIMIT + 2 * 86_400
