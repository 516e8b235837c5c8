"""The same crontab under Debian's cron and under `clepsydra crontab`, side by side for some minutes.

Cron reads only its own places, so it is given them empty: a mount namespace of its own, which takes root and `unshare`.
The programs are `cron` from the path, or what the variable CRON names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

MINUTES = 4
IN_PLACES_OF_ITS_OWN = """
set -e
mount -t tmpfs none /var/spool
mkdir -p /var/spool/cron/crontabs
mount -t tmpfs none /run
[ ! -e /etc/cron.d ] || mount -t tmpfs none /etc/cron.d
[ ! -e /etc/crontab ] || mount --bind /dev/null /etc/crontab
cp "$1" /var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
exec "$2" -f
"""


def lines_of(now: datetime) -> list[str]:
    """Timings that fire, and timings that do not, in the minutes after this one."""
    soon, later = (now + timedelta(minutes=2)), (now + timedelta(minutes=4))
    today, month = f"{now:%a}".lower(), f"{now:%b}".lower()
    other_day = f"{now + timedelta(days=3):%a}".lower()
    odd = f"{1 + (now.day - 1) % 2}-31/2"  # begins with a number, and has today in it
    return [
        "* * * * *",
        "*/2 * * * *",
        "*/3 * * * *",
        "1-59/2 * * * *",
        f"{soon.minute} * * * *",
        f"{soon.minute},{later.minute} * * * *",
        f"{soon.minute} {soon.hour} * * *",
        f"{soon.minute} {(soon.hour + 1) % 24} * * *",
        f"* * {now.day} * *",
        f"* * {now.day} * {other_day}",
        f"* * {now.day % 28 + 1} * {other_day}",
        f"* * {now.day % 28 + 1} * {today}",
        f"* * */2 * {today}",
        f"* * */2 * {other_day}",
        f"* * {odd} * {other_day}",
        f"* * *,{now.day} * {other_day}",
        f"* * {now.day},* * {other_day}",
        f"* * {now.day} * */2",
        f"* * * {month} {today}",
        f"* * * {now.month % 12 + 1} *",
        "* * * * 0-7",
        f"* * * * {int(now.strftime('%w')) or 7}",
        "@hourly",
        "@reboot",
    ]


def crontab(out: Path, now: datetime) -> str:
    """Each line notes in which minute it ran; the last ones what they were given."""
    return "\n".join(
        [
            f"OUT={out}",
            'QUOTED=" two  words"',
            "PLAIN = one # two  ",
            "UNEXPANDED=$HOME/x",
            *(f"{timing} echo $(date -u +\\%H:\\%M:\\%S) {n} >> $OUT/fires" for n, timing in enumerate(lines_of(now))),
            "* * * * * cat > $OUT/stdin%one%two\\%three\\x%",
            "* * * * * cat > $OUT/nothing",
            r"* * * * * printf '\%s|' 'a\\b' 'a\%b' 'a\nb' \% > $OUT/escapes",
            "* * * * * (env | grep -v -e ^OUT= -e ^USER= -e ^CLEPSYDRA_ -e ^_= | sort; pwd) > $OUT/environment",
            "* * * * * echo $0 $- $(umask) $(cut -d' ' -f5,6 /proc/$$/stat | sed s/$$/self/g) > $OUT/shell",
            "",
        ]
    )


@pytest.fixture
def cron() -> str:
    """Debian's cron; without it the test says what it needs."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("cron is run beside it by root, on Linux")
    found = shutil.which(os.environ.get("CRON", "cron"), path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("NOT COMPARED: there is no cron here; apt-get install cron, or CRON=/path/to/cron")
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("NOT COMPARED: this machine allows no mount namespace, in which cron would be alone")
    return found


@contextmanager
def running(*arguments: str) -> Generator[None]:
    """A process for the length of the block."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TZ": "UTC"}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield
            assert process.poll() is None, f"{arguments[0]} has ended by itself"
        finally:
            process.terminate()


def fires(out: Path, within: set[str]) -> list[tuple[str, str]]:
    """Minute and line of each run in those minutes; `@reboot` counts whenever it was."""
    noted = [line.split() for line in (out / "fires").read_text().splitlines()]
    reboot = str(len(lines_of(datetime.now(UTC))) - 1)
    return sorted((at[:5] if n != reboot else "", n) for at, n in noted if at[:5] in within or n == reboot)


@pytest.mark.long
def test_it_fires_when_cron_fires_and_gives_commands_what_cron_gives(tmp_path: Path, cron: str) -> None:
    if datetime.now(UTC).second > 40:
        time.sleep(25)  # both are to be up when the minute begins
    now = datetime.now(UTC)
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.tab").write_text(crontab(tmp_path / name, now))

    ours = (sys.executable, "-m", "clepsydra", "crontab", str(tmp_path / "ours.tab"), "--clean-env")
    theirs = ("unshare", "-m", "sh", "-c", IN_PLACES_OF_ITS_OWN, "sh", str(tmp_path / "theirs.tab"), cron)
    with running(*theirs), running(*ours):
        time.sleep((60 - now.second) + 60 * MINUTES - 5)
    minutes = {f"{now + timedelta(minutes=1 + past):%H:%M}" for past in range(MINUTES)}

    found = fires(tmp_path / "ours", minutes)
    assert len([n for _, n in found if n == "0"]) == MINUTES
    assert found == fires(tmp_path / "theirs", minutes)
    for name in ("stdin", "nothing", "escapes", "environment", "shell"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text(), name
