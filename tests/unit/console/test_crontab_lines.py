"""Crontabs as text: what each line comes to. Where cron is the measure, Debian's (3.0pl1) was asked."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clepsydra.console.crontab_lines import (
    LONGEST_TITLE,
    Crontab,
    command_of,
    read_crontab,
    schedule_of,
    setting_of,
    title_of,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="crontabs need a POSIX system")

SATURDAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def times(crontab: Crontab, line: int = 0, count: int = 2) -> list[str]:
    """The next times of a job line."""
    found = crontab.lines[line]
    return [f"{at:%a %d %b %H:%M}" for at in found.schedule.upcoming(count, after=SATURDAY, name=found.title)]


# ---- Real lines


PACKAGES = [
    # cron's own /etc/crontab
    ("17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly", "Sat 21 Nov 12:17", "Sat 21 Nov 13:17"),
    ("25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd /; }", "Sun 22 Nov 06:25", "Mon 23 Nov 06:25"),
    ("47 6\t* * 7\troot\ttest -x /usr/sbin/anacron || { cd /; }", "Sun 22 Nov 06:47", "Sun 29 Nov 06:47"),
    ("52 6\t1 * *\troot\ttest -x /usr/sbin/anacron || { cd /; }", "Tue 01 Dec 06:52", "Fri 01 Jan 06:52"),
    # e2fsprogs
    ("30 3 * * 0 root test -e /run/systemd/system || e2scrub_all_cron", "Sun 22 Nov 03:30", "Sun 29 Nov 03:30"),
    ("10 3 * * * root test -e /run/systemd/system || e2scrub_all -A -r", "Sun 22 Nov 03:10", "Mon 23 Nov 03:10"),
    # sysstat
    ("5-55/10 * * * * root command -v debian-sa1 > /dev/null", "Sat 21 Nov 12:05", "Sat 21 Nov 12:15"),
    ("59 23 * * * root command -v debian-sa1 > /dev/null", "Sat 21 Nov 23:59", "Sun 22 Nov 23:59"),
    # php-common
    ("09,39 *     * * *     root   [ -x /usr/lib/php/sessionclean ]", "Sat 21 Nov 12:09", "Sat 21 Nov 12:39"),
    # certbot
    ("0 */12 * * * root test -x /usr/bin/certbot && certbot -q renew", "Sun 22 Nov 00:00", "Sun 22 Nov 12:00"),
    # mdadm, and as it was when "the first Sunday" still came to be eight days and more
    ("57 0 * * 0 root if [ $(date +\\%d) -le 7 ]; then true; fi", "Sun 22 Nov 00:57", "Sun 29 Nov 00:57"),
    ("6 1 1-7 * 7 root [ -x /usr/share/mdadm/checkarray ]", "Sun 22 Nov 01:06", "Sun 29 Nov 01:06"),
    # zfsutils-linux
    ("24 0 8-14 * * root if [ $(date +\\%w) -eq 0 ]; then true; fi", "Tue 08 Dec 00:24", "Wed 09 Dec 00:24"),
]


@pytest.mark.parametrize(("line", "first", "second"), PACKAGES)
def test_lines_of_debian_packages_run_when_they_should(line: str, first: str, second: str) -> None:
    crontab = read_crontab(line + "\n", system=True)

    assert (crontab.remarks, crontab.lines[0].user, times(crontab)) == ((), "root", [first, second])


PROJECTS = [
    ("* * * * * cd /path-to-your-project && php artisan schedule:run >> /dev/null 2>&1", "Sat 21 Nov 12:01"),  # Laravel
    ("*/5  *  *  *  * php -f /var/www/nextcloud/cron.php", "Sat 21 Nov 12:05"),  # Nextcloud
    ("*/15 * * * * /usr/bin/php  /path/to/moodle/admin/cli/cron.php >/dev/null", "Sat 21 Nov 12:15"),  # Moodle
    ("0 2 * * * /opt/gitlab/bin/gitlab-backup create CRON=1", "Sun 22 Nov 02:00"),  # GitLab
    ("15 0 1 * * awffull", "Tue 01 Dec 00:15"),
    ("5 4 * * sun echo 'run at 5 after 4 every sunday'", "Sun 22 Nov 04:05"),  # crontab(5), as the next three
    ("23 0-23/2 * * * echo 'run 23 minutes after midn, 2am, 4am ..., everyday'", "Sat 21 Nov 12:23"),
    ("0 22 * * 1-5 mail -s 'It is 10pm' joe%Joe,%%Where are your kids?%", "Mon 23 Nov 22:00"),
    ("0 4 8-14 * *  test $(date +\\%u) -eq 6 && echo '2nd Saturday'", "Tue 08 Dec 04:00"),
    ("30 4 1,15 * 5 true", "Fri 27 Nov 04:30"),
    ("@hourly /usr/local/bin/sync", "Sat 21 Nov 13:00"),
    ("@weekly /usr/local/bin/report", "Sun 22 Nov 00:00"),
    ("0 0 * * MON-FRI true", "Mon 23 Nov 00:00"),
    ("0 0 1 jan * true", "Fri 01 Jan 00:00"),
]


@pytest.mark.parametrize(("line", "first"), PROJECTS)
def test_lines_of_public_documentation_run_when_they_should(line: str, first: str) -> None:
    crontab = read_crontab(line)

    assert (crontab.remarks, times(crontab, count=1)) == ((), [first])


# ---- Settings


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("A=b", ("A", "b")),
        ("A = one two   # three", ("A", "one two   # three")),
        ('B="  quoted "', ("B", "  quoted ")),  # as its manual has it; the program loses the blank at the end
        ("C='it\"s'", ("C", 'it"s')),
        ('"D D"=dd', ("D D", "dd")),
        ("E=$HOME/x", ("E", "$HOME/x")),
        ("F=a=b", ("F", "a=b")),
        ("G=''", ("G", "")),
        ("PATH=/usr/local/bin:/usr/bin", ("PATH", "/usr/local/bin:/usr/bin")),
        ("* * * * * FOO=bar env", None),
        ("@reboot X=1 env", None),
    ],
)
def test_settings_are_read_as_debians_cron_reads_them(line: str, setting: tuple[str, str] | None) -> None:
    assert setting_of(line) == setting


def test_a_setting_holds_for_the_lines_below_it() -> None:
    crontab = read_crontab("@daily one\nA=1\n@daily two\nA=2\n@daily three")

    assert [line.settings for line in crontab.lines] == [{}, {"A": "1"}, {"A": "2"}]


def test_the_zone_holds_for_the_lines_below_it() -> None:
    crontab = read_crontab("0 9 * * * a\nCRON_TZ=Asia/Tokyo\n0 9 * * * b\nCRON_TZ=UTC\n0 9 * * * c", tz="Europe/Zurich")

    assert [line.schedule.tz_name for line in crontab.lines] == ["Europe/Zurich", "Asia/Tokyo", "UTC"]


@pytest.mark.parametrize("name", ["MAILTO", "TZ", "RANDOM_DELAY"])
def test_a_setting_that_does_nothing_here_is_said_to(name: str) -> None:
    remark = read_crontab(f"{name}=root").remarks[0]

    assert (remark.level, remark.number) == ("note", 1)
    assert remark.text.startswith(f"{name} has no effect here: ")


# ---- Days


@pytest.mark.parametrize(
    ("timing", "first"),
    [
        ("0 0 13 * 5", "Fri 27 Nov"),  # no star: either
        ("0 0 */2 * 1", "Mon 23 Nov"),  # a star: both, and the 23rd is odd
        ("0 0 */2 * 0", "Sun 29 Nov"),
        ("0 0 24 * */2", "Tue 24 Nov"),
        ("0 0 27 * */2", "Sun 27 Dec"),  # Friday 27 November is day 5 of its week
        ("0 0 1,*/2 * 1", "Mon 23 Nov"),  # begins with a number: either
        ("0 0 *,20 * 1", "Mon 23 Nov"),  # begins with a star: both
        ("0 0 20,* * 1", "Sun 22 Nov"),  # does not: either, and every day is named
        ("0 0 */3 * */5", "Sun 22 Nov"),
    ],
)
def test_the_two_day_fields_are_joined_as_cron_joins_them(timing: str, first: str) -> None:
    schedule = schedule_of(timing, "UTC")

    assert schedule is not None
    assert f"{schedule.upcoming(1, after=SATURDAY)[0]:%a %d %b}" == first


def test_a_day_that_never_comes_leaves_its_line_out() -> None:
    crontab = read_crontab("0 0 31 2 * never\n@daily ever")

    assert [line.command for line in crontab.lines] == ["ever"]
    assert crontab.errors == ()
    assert "never runs" in crontab.remarks[0].text


# ---- Commands


@pytest.mark.parametrize(
    ("text", "command", "stdin"),
    [
        ("cat", "cat", ""),
        ("cat%", "cat", ""),
        (r"cat%one%two\%three\x%%", "cat", "one\ntwo%three\\x\n\n"),
        (r"cat%a\\%b", "cat", "a\\%b\n"),
        (r"date +\%H:\%M", "date +%H:%M", ""),
        (r"printf 'a\\b' 'a\nb'", r"printf 'a\b' 'a\nb'", ""),
        (r"echo \\%in", "echo \\", "in\n"),
        ("echo end \\", "echo end \\", ""),
    ],
)
def test_the_percent_sign_ends_the_command(text: str, command: str, stdin: str) -> None:
    assert command_of(text) == (command, stdin)


def test_what_follows_a_command_belongs_to_it() -> None:
    assert read_crontab("  @daily   echo hi   # no comment  ").lines[0].command == "echo hi   # no comment"


def test_a_user_stands_before_the_command_of_the_system_format_only() -> None:
    line = "*/5 *\t* * *  www-data\t php -f cron.php"

    system, plain = read_crontab(line, system=True).lines[0], read_crontab(line).lines[0]

    assert (system.user, system.command) == ("www-data", "php -f cron.php")
    assert (plain.user, plain.command) == (None, "www-data\t php -f cron.php")


# ---- Names


def test_a_comment_names_the_line_below_it() -> None:
    crontab = read_crontab("# Name: the backup\n# every night\nA=1\n0 3 * * * backup\n0 4 * * * other")

    assert [line.title for line in crontab.lines] == ["the backup", "other"]
    assert crontab.remarks == ()


def test_a_name_does_not_reach_over_an_empty_line() -> None:
    crontab = read_crontab("# name: x\n\n0 3 * * * backup")

    assert crontab.lines[0].title == "backup"
    assert crontab.remarks[0].text == "the name 'x' stands above no job"


def test_a_long_command_has_a_name_that_tells_it_from_its_like() -> None:
    one, other = title_of("x" * 100 + "1"), title_of("x" * 100 + "2")

    assert one != other
    assert len(one) <= LONGEST_TITLE
    assert title_of("x" * 100 + "1") == one


def test_what_a_command_reads_is_no_part_of_its_name() -> None:
    assert [line.title for line in read_crontab("@daily mail me%hello\n@daily %hello").lines] == ["mail me", "%hello"]


def test_a_name_can_be_printed_whatever_the_command_is() -> None:
    assert title_of("printf\t'\x07'  \udcff") == "printf '?' ?"


# ---- What is refused


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("FOO=", "FOO=''"),
        ('FOO="a" b', "ends with the same quote"),
        ("FOO='a", "ends with the same quote"),
        ("CRON_TZ=Mars/Olympus", "Mars/Olympus"),
        ("CLEPSYDRA_TIMEOUT=1h", "a number of seconds"),
        ("CLEPSYDRA_TIMEOUT=nan", "a number of seconds"),
        ("CLEPSYDRA_OVERLAP=yes", "known are skip, allow, "),
        ("60 * * * * x", "minute '60' is out of range"),
        ("* * * *  x", "day of week 'X'"),
        ("0 0 * * monday x", "MONDAY"),
        ("* * * * *", "has no command"),
        ("@daily", "has no command"),
        ("@every 5m x", "@every"),
        ("backup every night", "neither NAME=value nor five fields"),
        ("@daily echo \0", "NUL"),
        ("# name:", "# name: backup"),
    ],
)
def test_a_line_that_cannot_be_read_is_told_with_its_number(line: str, said: str) -> None:
    crontab = read_crontab(f"# first\n{line}\n@daily true")

    assert [error.number for error in crontab.errors] == [2]
    assert said in crontab.errors[0].text


LIKE_CRONTABS = st.lists(
    st.one_of(st.text(), st.sampled_from([*"@#%=\\'\"*/,-0759 \t\r\n\x00", "CRON_TZ", "FRI", "@daily", "* * * * * "]))
)


@given(LIKE_CRONTABS, st.booleans())
@example(["@daily \x0b"], False)
@example(["0\x0b0 * * * * x"], False)
def test_any_text_comes_to_lines_and_remarks(parts: list[str], system: bool) -> None:
    text = "".join(parts)
    crontab = read_crontab(text, system=system)

    numbers = {line.number for line in crontab.lines} | {remark.number for remark in crontab.remarks}
    assert numbers <= set(range(1, text.count("\n") + 2))


def test_every_line_is_told_not_only_the_first() -> None:
    assert [error.number for error in read_crontab("x\n@daily ok\ny\n61 * * * * z").errors] == [1, 3, 4]


def test_the_system_format_without_a_command_says_what_a_line_is() -> None:
    assert "TIMES USER COMMAND" in read_crontab("* * * * * root", system=True).errors[0].text


def test_a_sixth_field_is_pointed_at() -> None:
    assert "five fields" in read_crontab("0 */3 * * * * /usr/local/bin/php").remarks[0].text


def test_files_from_elsewhere_are_read_too() -> None:
    crontab = read_crontab("A=1\r\n@daily one\r\n@hourly two")

    assert [(line.command, line.settings) for line in crontab.lines] == [("one", {"A": "1"}), ("two", {"A": "1"})]
