"""Published answers of other projects, read from `tests/data/time-cases.json`: levels `core` and `dst` hold for us too.

Of level `dialect` those hold that follow our rules; the others are listed with the reason. There, seconds are the last
field unless a case says otherwise; ours come first.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from clepsydra.model.cron import Cron
from clepsydra.model.errors import ScheduleError

Case = dict[str, Any]

CASES: list[Case] = json.loads((Path(__file__).parents[2] / "data" / "time-cases.json").read_text())["vectors"]

NOT_OURS = {
    "star": "a day field that merely begins with a star is restricted (croniter's rule, which level core demands)",
    "day_rule": "day of month and day of week are never joined by AND",
    "hash_id": "H draws from the job's name by a hash of ours; croniter's reaches a sixth of the minutes of `H H`",
}


def dialect_of(case: Case) -> dict[str, Any]:
    return case.get("dialect") or dict[str, Any]()


def reason_why_not(case: Case) -> str | None:
    dialect = dialect_of(case)
    if dialect.get("day_rule") == "and" and case["id"] in WITHOUT_BOTH_DAYS:
        return None
    return next((why for key, why in NOT_OURS.items() if key in dialect or key in case), None)


# Marked as another dialect, but the day rule does not matter in them.
WITHOUT_BOTH_DAYS = {"pub-crontab-elixir-046"}

FOLLOWED = [c for c in CASES if c["level"] in ("core", "dst") or (c["level"] == "dialect" and not reason_why_not(c))]
OTHER_POLICY = [case for case in CASES if case["level"] == "other" and "ours" in case]


def in_our_order(case: Case) -> str:
    fields = case["expr"].split()
    if len(fields) < 6 or dialect_of(case).get("second_first"):
        return str(case["expr"])
    return " ".join((fields[5], *fields[:5], *fields[6:]))


def answers(case: Case, count: int) -> list[str]:
    after = datetime.fromisoformat(case["start"])
    return [at.isoformat() for at in Cron(in_our_order(case), tz=case["zone"]).upcoming(count, after=after)]


@pytest.mark.parametrize("case", FOLLOWED, ids=lambda case: case["id"])
def test_a_published_case_holds(case: Case) -> None:
    if not case["expected"] and case["exhausted"]:
        with pytest.raises(ScheduleError, match="never run"):
            Cron(in_our_order(case), tz=case["zone"])
        return

    beyond = 1 if case["exhausted"] else 0

    assert answers(case, len(case["expected"]) + beyond) == case["expected"]


@pytest.mark.parametrize("case", OTHER_POLICY, ids=lambda case: case["id"])
def test_where_a_published_case_follows_another_policy_ours_is_the_oracles(case: Case) -> None:
    assert answers(case, len(case["ours"])) == case["ours"]


def test_most_cases_are_followed() -> None:
    assert len(FOLLOWED) + len(OTHER_POLICY) >= 240
