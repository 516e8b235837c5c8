"""Schedules as plain JSON and back; what is damaged or unknown is refused with a reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clepsydra.model.cron import Cron
from clepsydra.model.errors import ScheduleError
from clepsydra.model.schedule import Every, Once, Reboot, Schedule, schedule_from_json

START = datetime(2027, 3, 1, tzinfo=UTC)
END = datetime(2027, 3, 2, 3, 4, 5, 678901, tzinfo=ZoneInfo("Europe/Zurich"))
CRON = Cron("0 9 * * mon", tz="Europe/Zurich", gap="skip", fold="both")

SCHEDULES = [
    CRON,
    Cron("H H(2-4) * * *"),
    Cron("@reboot"),
    Cron("30 15 9 1 1 ? 2030"),
    Every(minutes=5),
    Every(0.001, after_completion=True),
    Once(END),
    Once("2027-10-31T02:30", tz="Europe/Zurich"),
    Once(datetime(2027, 10, 31, 2, 30, fold=1), tz="Europe/Zurich"),
    Once("2027-06-01T09:00Z"),
    Reboot(),
    CRON | Every(7),
    CRON - Cron("* 12 * * *"),
    CRON.between(START, END),
    CRON.between(end=END),
    ((CRON | Every(7)) - (Cron("* 12 * * *") | Once(END))).between(START),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_comes_back_from_json_as_it_was(schedule: Schedule) -> None:
    text = json.dumps(schedule.to_json())

    again = schedule_from_json(json.loads(text))

    assert again == schedule
    assert again.describe() == schedule.describe()
    assert again.to_json() == schedule.to_json()


def test_a_cron_stores_the_rules_by_which_it_is_read() -> None:
    assert CRON.to_json() == {
        "kind": "cron",
        "expr": "0 9 * * MON",
        "tz": "Europe/Zurich",
        "gap": "skip",
        "fold": "both",
        "dialect": "clepsydra-1",
    }


DAMAGED: list[Any] = [
    None,
    [],
    "cron",
    {},
    {"kind": None},
    {"kind": ["cron"]},
    {"kind": "calendar"},
    {"kind": "cron"},
    CRON.to_json() | {"dialect": "clepsydra-2"},
    CRON.to_json() | {"expr": "61 * * * *"},
    CRON.to_json() | {"expr": None},
    CRON.to_json() | {"tz": "Mars/Olympus"},
    CRON.to_json() | {"gap": []},
    {"kind": "every", "micros": "5", "after_completion": False},
    {"kind": "every", "micros": True, "after_completion": False},
    {"kind": "every", "micros": 0, "after_completion": False},
    {"kind": "every", "micros": 10**400, "after_completion": False},
    {"kind": "every", "micros": 10**6},
    {"kind": "once", "at": 5, "tz": None},
    {"kind": "once", "at": "yesterday", "tz": None},
    {"kind": "union", "members": []},
    {"kind": "union", "members": 5},
    {"kind": "union", "members": "abc"},
    {"kind": "union", "members": [{"kind": "reboot"}, {"kind": "reboot"}]},
    {"kind": "difference", "of": CRON.to_json()},
    {"kind": "between", "of": CRON.to_json(), "start": 5, "end": None},
    {"kind": "between", "of": CRON.to_json(), "start": "2027-01-01", "end": None},
]


@pytest.mark.parametrize("damage", DAMAGED, ids=lambda value: str(value)[:60])
def test_damaged_json_is_refused_with_a_reason(damage: Any) -> None:
    with pytest.raises(ScheduleError) as caught:
        schedule_from_json(damage)

    assert len(str(caught.value)) < 400


def test_json_that_is_nested_without_end_is_refused() -> None:
    data: dict[str, Any] = CRON.to_json()
    for _ in range(100_000):
        data = {"kind": "between", "of": data, "start": None, "end": END.isoformat()}

    with pytest.raises(ScheduleError, match="RecursionError"):
        schedule_from_json(data)


def test_a_union_of_too_many_is_refused() -> None:
    members = [{"kind": "every", "micros": 10**6 + n, "after_completion": False} for n in range(1001)]

    with pytest.raises(ScheduleError, match="1 to 1000"):
        schedule_from_json({"kind": "union", "members": members})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(schedule=st.sampled_from(SCHEDULES), data=st.data())
def test_any_single_damage_is_refused_or_read(schedule: Schedule, data: st.DataObject) -> None:
    stored = schedule.to_json()
    stored[data.draw(st.sampled_from(sorted(stored)))] = data.draw(JSON)

    try:
        again = schedule_from_json(stored)
    except ScheduleError:
        return

    assert schedule_from_json(again.to_json()) == again
