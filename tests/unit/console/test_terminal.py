"""The program on a terminal: tables fit its width, NO_COLOR is respected, and it asks before it destroys."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from clepsydra import Every, Job, Operator, SQLiteStorage, migrate_store
from clepsydra.console.tables import wide

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

import fcntl
import pty
import struct
import subprocess
import termios

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a hundred jobs, whose names are of any length."""
    own = tmp_path / "jobs.db"
    migrate_store(SQLiteStorage(own))
    with Operator(SQLiteStorage(own)) as operator:
        operator.add_jobs(
            [
                Job(
                    f"job {number:03} {'of a tenant whose name is 長い ' * (number % 4)}".strip(),
                    "a.task",
                    Every(minutes=5),
                )
                for number in range(100)
            ],
            check_task=False,
        )
    return own


def on_terminal(words: list[str], columns: int, says: str = "", **environment: str) -> tuple[int, str]:
    """What the program shows on a terminal of this size where somebody types this, and its exit code."""
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "clepsydra", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**known, "TERM": "xterm", **environment},
    ) as program:
        os.close(theirs)
        shown = read_until(terminal, b"[y/N] ") if says else b""
        os.write(terminal, says.encode())
        shown += read_until(terminal, None)
    os.close(terminal)
    return program.returncode, shown.decode().replace("\r\n", "\n")


def read_until(terminal: int, mark: bytes | None) -> bytes:
    """What is written up to a mark, or to the end."""
    shown = b""
    while mark is None or mark not in shown:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # on Linux the end of the program is an error
            break
        if not read:
            break
        shown += read
    return shown


@pytest.mark.parametrize("columns", [80, 160])
def test_nothing_is_wider_than_the_terminal(path: Path, columns: int) -> None:
    code, shown = on_terminal(["jobs", "--no-pager", "--limit", "100", "--store", str(path)], columns)

    plain = _COLOUR.sub("", shown).splitlines()
    assert code == 0
    assert len(plain) == 103
    assert max(map(wide, plain)) <= columns
    assert "…" in shown
    assert "\x1b[32mactive\x1b[0m" in shown


def test_no_color_is_respected(path: Path) -> None:
    _, shown = on_terminal(["jobs", "--no-pager", "--store", str(path)], 80, NO_COLOR="1")

    assert "active" in shown
    assert "\x1b" not in shown


def test_a_long_answer_goes_to_the_pager_and_a_short_one_does_not(path: Path, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho paged $(wc -l)\n")
    pager.chmod(0o755)

    _, long = on_terminal(["jobs", "--limit", "90", "--store", str(path)], 80, PAGER=str(pager))
    _, short = on_terminal(["jobs", "--limit", "5", "--store", str(path)], 80, PAGER=str(pager))

    assert long.strip() == "paged 94"
    assert "paged" not in short


@pytest.mark.parametrize(("says", "code", "left"), [("y\n", 0, 99), ("n\n", 1, 100), ("\n", 1, 100)])
def test_it_asks_before_it_destroys(path: Path, says: str, code: int, left: int) -> None:
    ended, shown = on_terminal(["remove", "job 000", "--store", str(path)], 80, says)

    assert "remove 1 job ('job 000')? [y/N] " in shown
    assert ended == code
    assert ("nothing was changed" in shown) == (code == 1)
    with Operator(SQLiteStorage(path)) as operator:
        assert operator.count_jobs() == left
