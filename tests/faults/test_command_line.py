"""The command in a process of its own: signals, pipes whose reader goes away, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

COMMAND = (sys.executable, "-W", "error", "-m", "clepsydra")
PATIENCE = 60.0
SLOW = """
import anyio
from clepsydra import Every, Scheduler, SQLiteStorage, Stages

scheduler = Scheduler(SQLiteStorage("jobs.db"), name="node", stages=Stages(grace={grace}))

@scheduler.job(Every(seconds=0.1))
async def slow():
    print("begun", flush=True)
    await anyio.sleep({seconds})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def command(folder: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """The command, at work in a folder; gone when the block ends."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "NO_COLOR"}


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What it prints up to the line that matches."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"it ended without {pattern!r}: {''.join(lines)}")


def slow(folder: Path, seconds: float, grace: float = 30) -> None:
    (folder / "slow.py").write_text(SLOW.format(seconds=seconds, grace=grace))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_what_runs_end(folder: Path, backend: str, number: signal.Signals) -> None:
    slow(folder, 0.5)
    with command(folder, "run", "slow:scheduler", "--backend", backend) as process:
        read_until(process, "begun")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)

    assert f"{number.name}: draining, waiting for 1 run; once more cancels them" in out
    assert "verdict=fired state=succeeded" in out
    assert out.splitlines()[-1].split(" ", 1)[1].startswith("ended: 1 run, 0 failed")
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_one_does_not_wait_for_it(folder: Path, backend: str, number: signal.Signals) -> None:
    slow(folder, 3600)
    with command(folder, "run", "slow:scheduler", "--backend", backend) as process:
        read_until(process, "begun")
        process.send_signal(number)
        read_until(process, "draining")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)

    assert "state=pending" in out, "it is given back, for the next start"
    assert "Traceback" not in err
    assert process.returncode == 128 + number


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_sighup_reads_a_file_of_declarations_again(folder: Path, backend: str) -> None:
    (folder / "things.py").write_text("def thing(): ...")
    file, job = folder / "clepsydra.toml", "[jobs.{}]\ntask = 'things:thing'\nschedule = {{ every = 0.05 }}\n"
    file.write_text(job.format("one"))
    with command(folder, "run", "clepsydra.toml", "--backend", backend) as process:
        read_until(process, "one .*state=succeeded")
        file.write_text(job.format("two"))
        process.send_signal(signal.SIGHUP)
        assert "reloaded: 1 job declared" in read_until(process, "two .*state=succeeded")
        file.write_text("jobs = 7")
        process.send_signal(signal.SIGHUP)
        read_until(process, "not reloaded, everything stays as it was: clepsydra.toml: jobs=7: must be a table")
        read_until(process, "two .*state=succeeded")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (0, "")


def test_a_grace_that_is_over_ends_it_too(folder: Path) -> None:
    slow(folder, 3600, grace=0.2)
    with command(folder, "run", "slow:scheduler") as process:
        read_until(process, "begun")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)

    assert "state=pending" in out
    assert process.returncode == 0


def test_a_service_whose_reader_goes_away_ends_in_good_order(folder: Path) -> None:
    slow(folder, 0.01)
    with command(folder, "run", "slow:scheduler") as process:
        read_until(process, "begun")
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(PATIENCE)

    assert process.returncode == 128 + signal.SIGPIPE
    assert "telemetry handler" not in err


def test_next_into_a_pipe_that_closes_says_nothing(folder: Path) -> None:
    with command(folder, "next", "* * * * *", "--count", "1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(PATIENCE)

    assert err == ""
    assert process.returncode in (0, 128 + signal.SIGPIPE)


def test_the_database_of_another_program_is_not_touched(folder: Path) -> None:
    other = folder / "other.db"
    other.write_bytes(b"this is somebody's text, not a database. " * 100)
    before = other.read_bytes()
    with command(folder, "demo", "--db", str(other), "--for", "1") as process:
        out, err = process.communicate(timeout=PATIENCE)

    assert (out, process.returncode) == ("", 1)
    assert err.startswith(f"clepsydra: error: {other} is damaged or no SQLite database")
    assert err.count("\n") == 1
    assert other.read_bytes() == before


def test_the_demo_prints_no_colour_into_a_pipe_and_sums_up_at_a_signal(folder: Path) -> None:
    with command(folder, "demo", "--db", "demo.db") as process:
        shown = read_until(process, r"load .* fired +ok")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)

    assert "\x1b" not in shown + out
    assert "SIGINT: nothing new is started, what runs may end" in out
    assert "VERDICTS" in out
    assert (process.returncode, err) == (0, "")
