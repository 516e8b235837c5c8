"""`clepsydra next`: times of a cron expression, with the changes of the clocks between them."""

from __future__ import annotations

import pytest

from clepsydra.console.main import main


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[str]:
    assert main(["next", *arguments]) == code
    captured = capsys.readouterr()
    return (captured.out + captured.err).splitlines()


def test_words_come_first_and_then_the_times(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "30 9 * * MON", "--from", "2027-01-01", "--count", "2", "--tz", "Europe/Zurich")

    assert lines == [
        "at 09:30 on Monday, Europe/Zurich time",
        "",
        "2027-01-04 09:30:00+01:00  2027-01-04T08:30:00Z  in 3d 9h",
        "2027-01-11 09:30:00+01:00  2027-01-11T08:30:00Z  in 10d 9h",
    ]


def test_in_utc_a_time_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "@daily", "--from", "2027-01-01", "--count", "1")

    assert lines[-1] == "2027-01-02 00:00:00+00:00  in 1d"


def test_a_time_in_a_gap_is_marked_where_it_runs_instead(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "30 2 * * *", "--tz", "Europe/Zurich", "--from", "2027-03-27T12:00", "--count", "2")

    assert "clocks go forward from 02:00 to 03:00: 02:30 does not exist on 2027-03-28; runs at 03:00" in lines[2]
    assert lines[3].startswith("2027-03-28 03:00:00+02:00")


def test_times_in_a_gap_that_are_left_out_are_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "*/30 1-3 * * *", "--tz", "Europe/Zurich", "--from", "2027-03-28", "--count", "3")

    assert [line[:16] for line in lines[2:4]] == ["2027-03-28 01:00", "2027-03-28 01:30"]
    assert lines[4].endswith("02:00 and more do not exist on 2027-03-28; left out")
    assert lines[5].startswith("2027-03-28 03:00:00+02:00")


def test_of_a_time_that_comes_twice_each_pass_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "*/30 2 * * *", "--tz", "Europe/Zurich", "--from", "2027-10-31", "--count", "4")

    assert lines[2].endswith("02:00 and more come twice on 2027-10-31; runs both times")
    assert [line.partition("  (")[2] for line in lines[3:]] == [
        "the first 02:00)",
        "the first 02:30)",
        "the second 02:00)",
        "the second 02:30)",
    ]


def test_from_may_have_an_offset_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "@daily", "--from", "2027-01-01T00:00+05:00", "--count", "1")

    assert lines[-1] == "2027-01-01 00:00:00+00:00  in 5h"


def test_an_expression_with_h_takes_the_name_of_its_job(capsys: pytest.CaptureFixture[str]) -> None:
    missing = said(capsys, "H H * * *", code=2)
    named = said(capsys, "H H * * *", "--name", "backup", "--count", "1")

    assert missing[0].endswith("give it with --name")
    assert named[2].split()[1].endswith("00+00:00")


def test_reboot_has_words_and_no_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "@reboot") == ["at each start of the scheduler"]


def test_an_expression_whose_times_are_over_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "0 0 0 1 1 * 2027", "--from", "2028-01-01", code=1)

    assert lines[-1] == "no time to come after 2028-01-01 00:00:00+00:00"


def test_an_expression_that_ends_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "0 0 0 1 1 * 2027", "--from", "2026-01-01")

    assert lines[-1] == "and no more"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["61 * * * *"], "minute '61' is out of range"),
        (["* * * *"], "has 4 fields"),
        (["@daily", "--tz", "Zurich"], "did you mean 'Europe/Zurich'?"),
        (["@daily", "--from", "tomorrow"], "write it like 2027-03-28"),
    ],
)
def test_what_is_not_read_is_one_line_on_standard_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["next", *arguments]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("clepsydra: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
