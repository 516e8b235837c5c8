"""How the command line says lengths, errors and tables."""

from __future__ import annotations

import io
import traceback
from datetime import UTC, datetime, timedelta, timezone

import pytest

from clepsydra.console.words import Paint, length, moment, one_line, table, utc, value

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("micros", "said"),
    [
        (0, "0.0ms"),
        (-5, "0.0ms"),
        (9_949, "9.9ms"),
        (12_345, "12ms"),
        (999_999, "999ms"),
        (SECOND, "1s"),
        (59 * SECOND + 940_000, "59.9s"),
        (59 * SECOND + 960_000, "1m"),
        (60 * SECOND, "1m"),
        (3 * 3600 * SECOND + 12 * 60 * SECOND + 5 * SECOND, "3h 12m"),
        (24 * 3600 * SECOND + 59 * SECOND, "1d"),
        (400 * 86_400 * SECOND + 3600 * SECOND, "400d 1h"),
    ],
)
def test_a_length_is_said_in_its_two_largest_units(micros: int, said: str) -> None:
    assert length(micros) == said


def test_a_moment_keeps_its_offset_and_says_utc_beside_it() -> None:
    at = datetime(2027, 3, 28, 3, 0, tzinfo=timezone(timedelta(hours=2)))

    assert (moment(at), utc(at)) == ("2027-03-28 03:00:00+02:00", "2027-03-28T01:00:00Z")


def test_a_moment_shows_milliseconds_only_where_there_are_some() -> None:
    assert moment(datetime(2027, 1, 1, 0, 0, 0, 5000, tzinfo=UTC)) == "2027-01-01 00:00:00.005+00:00"


def test_of_a_traceback_the_error_is_told_even_if_its_message_has_lines() -> None:
    assert one_line(_traceback(ValueError("no such thing\n  and more"))) == "ValueError: no such thing"


def test_of_a_chain_of_errors_the_last_one_is_told() -> None:
    error = KeyError("late")
    error.__cause__ = ValueError("early")

    assert one_line(_traceback(error)) == "KeyError: 'late'"


def test_of_a_group_an_error_within_is_told() -> None:
    assert one_line(_traceback(ExceptionGroup("many", [_raised(OSError("one"))]))) == "OSError: one"


def test_of_other_texts_the_first_line_is_told() -> None:
    assert one_line("took too long\nmore") == "took too long"
    assert one_line("  \n") == one_line(None) == ""


@pytest.mark.parametrize(
    ("text", "written"), [("plain", "plain"), ("two words", '"two words"'), ("", '""'), ("a=b", '"a=b"')]
)
def test_values_are_quoted_when_a_reader_would_split_them(text: str, written: str) -> None:
    assert value(text) == written


def test_a_table_is_as_wide_as_its_cells_and_has_no_blanks_at_the_end() -> None:
    assert table([("a", "10"), ("bcd", "9")], right=frozenset([1])) == ["a    10", "bcd   9"]
    assert table([("a", ""), ("bcd", "9")]) == ["a", "bcd  9"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    assert Paint(Terminal())("red", "x") == "\x1b[31mx\x1b[0m"
    assert Paint(Terminal())(None, "x") == "x"
    assert Paint(io.StringIO())("red", "x") == "x"


def test_colour_is_not_for_those_who_refuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert Paint(Terminal())("red", "x") == "x"


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(_raised(error)))
