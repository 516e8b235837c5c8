"""What is no cron expression, and what is said about it: the field, what came, what would be right, on one line."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clepsydra.model.cron import Cron
from clepsydra.model.cron_fields import FieldError
from clepsydra.model.errors import ScheduleError

WRONG_FIELDS = [
    ("60 * * * *", "minute", "out of range"),
    ("-5 * * * *", "minute", "not read"),
    ("+5 * * * *", "minute", "not read"),
    ("0x5 * * * *", "minute", "not read"),
    ("1_0 * * * *", "minute", "not read"),
    ("5, * * * *", "minute", "empty"),
    ("5,,6 * * * *", "minute", "empty"),
    ("** * * * *", "minute", "not read"),
    ("*5 * * * *", "minute", "not read"),
    ("5* * * * *", "minute", "not read"),
    ("*-5 * * * *", "minute", "not read"),
    ("1-2-3 * * * *", "minute", "not read"),
    ("*/5/5 * * * *", "minute", "not read"),
    ("*/ * * * *", "minute", "not read"),
    ("/5 * * * *", "minute", "not read"),
    ("*/0 * * * *", "minute", "steps in this field are 1 to 60"),
    ("1-5/0 * * * *", "minute", "steps in this field are 1 to 60"),
    ("*/90 * * * *", "minute", "steps in this field are 1 to 60"),
    ("*/99999 * * * *", "minute", "not read"),
    ("99999 * * * *", "minute", "out of range"),
    ("? * * * *", "minute", "day of month and day of week only"),
    ("R * * * *", "minute", "random"),
    ("R(0-5) * * * *", "minute", "random"),
    ("R/5 * * * *", "minute", "random"),
    ("mon * * * *", "minute", "not read"),
    ("H(5-5) * * * *", "minute", "a below b"),
    ("H(0-60) * * * *", "minute", "from 0 to 59"),
    ("H/0 * * * *", "minute", "steps in this field are 1 to 60"),
    ("H/100 * * * *", "minute", "steps in this field are 1 to 60"),
    ("H(1) * * * *", "minute", "not read"),
    ("61 0 * * * *", "second", "out of range"),
    ("0 24 * * *", "hour", "values are 0 to 23"),
    ("0 0 0 * *", "day of month", "values are 1 to 31"),
    ("0 0 32 * *", "day of month", "out of range"),
    ("0 0 32W * *", "day of month", "1W to 31W"),
    ("0 0 0W * *", "day of month", "1W to 31W"),
    ("0 0 L-31 * *", "day of month", "L-1 to L-30"),
    ("0 0 L-0 * *", "day of month", "L-1 to L-30"),
    ("0 0 L/2 * *", "day of month", "not read"),
    ("0 0 5#2 * *", "day of month", "not read"),
    ("0 0 * 0 *", "month", "values are 1 to 12 or JAN to DEC"),
    ("0 0 * 13 *", "month", "out of range"),
    ("0 0 * january *", "month", "JAN to DEC"),
    ("0 0 * L *", "month", "not read"),
    ("0 0 * * 8", "day of week", "values are 0 to 7 or SUN to SAT"),
    ("0 0 * * monday", "day of week", "SUN to SAT"),
    ("0 0 * * jan", "day of week", "SUN to SAT"),
    ("0 0 * * L", "day of week", "FRIL"),
    ("0 0 * * 8L", "day of week", "names no weekday"),
    ("0 0 * * xyz#2", "day of week", "names no weekday"),
    ("0 0 * * mon#6", "day of week", "#1 to #5"),
    ("0 0 * * mon#0", "day of week", "#1 to #5"),
    ("0 0 * * mon#2#3", "day of week", "not read"),
    ("0 0 * * 1-3#2", "day of week", "not read"),
    ("0 0 0 1 1 * 1969", "year", "values are 1970 to 2099"),
    ("0 0 0 1 1 * 2100", "year", "out of range"),
    ("0 0 0 1 1 * 2030-2020", "year", "do not wrap"),
    ("0 0 0 1 1 * H", "year", "H(2030-2040)"),
]


@pytest.mark.parametrize(("expr", "field", "says"), WRONG_FIELDS, ids=lambda value: str(value))
def test_an_error_names_the_field_and_what_would_be_right(expr: str, field: str, says: str) -> None:
    with pytest.raises(FieldError) as caught:
        Cron(expr)

    assert caught.value.field == field
    assert field in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("", "has 0 fields"),
        ("*", "has 1 field;"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * * *", "has 8 fields; expected 5 (minute"),
        ("@fortnightly", "known are @secondly"),
        ("@every 5m", "no such word"),
        ("@daily *", "no such word"),
        ("\u0665 * * * *", "ASCII"),
        ("\uff15 * * * *", "ASCII"),
        ("5\u00a0* * * * *", "ASCII"),
        ("*" * 5000, "at most 1000"),
        ("1," * 400 + "1 * * * * " + "*" * 200, "at most 1000"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_expression_that_is_none_is_refused(expr: str, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Cron(expr)

    assert says in str(caught.value)


@pytest.mark.parametrize("expr", [None, 5, 1.5, b"* * * * *", ["*"], object()], ids=lambda value: type(value).__name__)
def test_what_is_no_text_is_refused(expr: Any) -> None:
    with pytest.raises(ScheduleError, match="must be text such as"):
        Cron(expr)


@pytest.mark.parametrize(
    "expr",
    [
        "0 0 30 2 *",
        "0 0 30-31 FEB *",
        "0 0 31 4,6,9,11 *",
        "0 0 0 29 2 * 2027",
        "0 0 0 29 2 * 2025-2027,2029",
        "0 0 L-29 2 *",
        "0 0 0 L-28 2 * 2027",
        "0 0 H(30-31) 2 *",
    ],
)
def test_a_day_that_does_not_exist_is_refused(expr: str) -> None:
    with pytest.raises(ScheduleError, match="never run"):
        Cron(expr)


@pytest.mark.parametrize("expr", ["0 0 30 2 MON", "0 0 29 2 *", "0 0 L-28 2 *", "0 0 31 2,3 *"])
def test_a_day_that_exists_at_times_is_not(expr: str) -> None:
    assert len(Cron(expr).upcoming(2)) == 2


@pytest.mark.parametrize("gap", ["", "before", True, 1, ["after"]], ids=str)
def test_an_unknown_gap_rule_is_refused(gap: Any) -> None:
    with pytest.raises(ScheduleError, match="'after', 'skip' or None"):
        Cron("0 2 * * *", gap=gap)


@pytest.mark.parametrize("fold", ["", "none", 0, ["first"]], ids=str)
def test_an_unknown_fold_rule_is_refused(fold: Any) -> None:
    with pytest.raises(ScheduleError, match="'first', 'second', 'both' or None"):
        Cron("0 2 * * *", fold=fold)


# ---- Whatever comes

CRONISH = st.text(alphabet="0123456789*/-,?LWHR#@()ABCDEJNSUM \t", max_size=60)


@given(expr=st.one_of(CRONISH, st.text(max_size=200), st.lists(CRONISH, min_size=5, max_size=7).map(" ".join)))
@example("*/5 " * 2000)
@example("0" * 900 + " * * * *")
@example("1-59/1," * 140 + "5 * * * *")
@example("(" * 1000)
@example("H(" * 400)
@example("5#5#5#5#5 * * * *")
def test_no_input_hangs_or_is_repeated_at_length(expr: str) -> None:
    began = time.perf_counter()
    refusal = refusal_of(expr)

    assert len(refusal) < 500
    assert "\n" not in refusal
    assert time.perf_counter() - began < 5  # a hundredth of it is usual


def refusal_of(expr: str) -> str:
    """What is said about it, or nothing if it is read."""
    try:
        Cron(expr).upcoming(1, name="report")
    except ScheduleError as refusal:
        return str(refusal)
    return ""
