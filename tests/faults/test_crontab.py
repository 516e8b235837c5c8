"""`clepsydra crontab` in a process of its own, with commands that are processes in their turn."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

COMMAND = (sys.executable, "-W", "error", "-m", "clepsydra", "crontab")
PATIENCE = 60.0
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Service:
    """The service at work on a crontab in a folder."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self.process = folder, process
        self.lines: list[str] = []

    def until(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Read on to the line that matches, the last of so many."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if (found := re.search(pattern, line)) is not None:
                count -= 1
                if not count:
                    return found
        assert self.process.stderr is not None
        raise AssertionError(f"it ended without {pattern!r}:\n{self.shown}\n{self.process.stderr.read()}")

    def write(self, crontab: str) -> None:
        """Change the crontab, at once."""
        write(self.folder, crontab)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to end: its exit code, and what it wrote to standard error."""
        self.send(number)
        return self.rest()

    def rest(self) -> tuple[int, str]:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=PATIENCE)
        self.lines += out.splitlines()
        return self.process.returncode, err

    @property
    def shown(self) -> str:
        return "\n".join(self.lines)


def write(folder: Path, crontab: str) -> None:
    new = folder / "new"
    new.write_text(crontab)
    new.rename(folder / "tab")


@contextmanager
def service(folder: Path, crontab: str, *options: str, before: tuple[str, ...] = ()) -> Generator[Service]:
    """Gone when the block ends. `before` is what stands before the command."""
    write(folder, crontab)
    with subprocess.Popen(
        [*before, *COMMAND, "tab", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TZ": "UTC", "CLEPSYDRA_STORE": ""},
    ) as process:
        enough = threading.Timer(3 * PATIENCE, process.kill)  # whoever waits for a line finds the end instead
        enough.start()
        try:
            yield Service(folder, process)
        finally:
            enough.cancel()
            process.kill()


def wait_until_gone(pid: int) -> None:
    """A process that has ended and been reaped."""
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


# ---- Runs


@BACKENDS
def test_what_a_command_writes_is_logged_line_by_line_under_its_name(tmp_path: Path, backend: str) -> None:
    crontab = "# name: hello\n@reboot echo one; echo two >&2; printf 'a\\033[1m\\377'; cat; exit 3%from stdin"
    with service(tmp_path, crontab, "--backend", backend) as at_work:
        at_work.until("state=failed")
        code, err = at_work.end()

    said = [re.sub(r"^\S+ |pid=\d+ ", "", line) for line in at_work.lines if " job=hello pid=" in line]
    assert sorted(said) == [
        "job=hello err: two",
        "job=hello out: a\\x1b[1m\\xfffrom stdin",
        "job=hello out: one",
    ]
    assert 'note="exit status 3: two"' in at_work.shown
    assert (code, err) == (0, "")


def test_lines_of_json_say_the_same_for_programs(tmp_path: Path) -> None:
    with service(tmp_path, "# name: hello\n@reboot echo one; kill -9 $$", "--json") as at_work:
        at_work.until('"state": "failed"')
        at_work.end()

    facts: list[dict[str, Any]] = [json.loads(line) for line in at_work.lines]
    assert [fact["text"] for fact in facts if fact.get("stream") == "out"] == ["one"]
    assert [fact["note"] for fact in facts if fact.get("state") == "failed"] == ["ended by SIGKILL"]


def test_a_terminal_that_lacks_a_sign_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with service(tmp_path, "@reboot printf 'n\\303\\251e\\n'") as at_work:
        at_work.until(r"out: n\\xe9e")
        code, err = at_work.end()

    assert (code, err) == (0, "")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_command_has_a_process_group_and_a_session_of_its_own(tmp_path: Path) -> None:
    with service(tmp_path, "@reboot echo group $(cut -d' ' -f5,6 /proc/$$/stat) of $$") as at_work:
        found = at_work.until(r"out: group (\d+) (\d+) of (\d+)")
        at_work.end()

    assert found[1] == found[2] == found[3]


def test_a_command_has_the_settings_of_the_file_and_the_environment_of_the_service(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    crontab = f'HOME={tmp_path}/home\nA="b c"\n# name: it\n@reboot echo "$A|$TZ|$SHELL|$CLEPSYDRA_JOB|$(pwd)"'
    with service(tmp_path, crontab) as at_work:
        found = at_work.until(r"out: (.*)")
        at_work.end()

    assert found[1].split("|") == ["b c", "UTC", "/bin/sh", "it", f"{tmp_path}/home"]


def test_a_shell_that_is_not_there_is_a_failed_run(tmp_path: Path) -> None:
    with service(tmp_path, "SHELL=/no/such/shell\n@reboot true") as at_work:
        found = at_work.until("state=failed.*")
        at_work.end()

    assert "/no/such/shell cannot be started" in found[0]


def test_what_a_command_leaves_running_is_heard_and_does_not_hold_it_up(tmp_path: Path) -> None:
    crontab = "@reboot (while [ ! -e go ]; do sleep 0.05; done; echo late) & echo early"
    with service(tmp_path, f"HOME={tmp_path}\n{crontab}") as at_work:
        at_work.until("state=succeeded")
        (tmp_path / "go").touch()
        at_work.until("out: late")
        assert at_work.end()[0] == 0

    assert "out: early" in at_work.shown


def test_nothing_runs_twice_at_once_unless_asked(tmp_path: Path) -> None:
    with service(tmp_path, "@secondly echo begun; sleep 600", "--grace", "0.1") as at_work:
        at_work.until("verdict=overlap_skipped", 2)
        at_work.end()
    assert at_work.shown.count("out: begun") == 1

    with service(tmp_path, "@secondly echo begun; sleep 600", "--overlap", "--grace", "0.1") as at_work:
        at_work.until("out: begun", 2)
        at_work.end()
    assert "overlap_skipped" not in at_work.shown


@LINUX
def test_a_command_that_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    crontab = "@reboot trap 'echo asked to' TERM; (trap '' TERM; exec sleep 600) & echo child $!; wait; wait"
    with service(tmp_path, crontab, "--reap", "--timeout", "4", "--kill-after", "3") as at_work:
        child = int(at_work.until(r"out: child (\d+)")[1])
        at_work.until("state=failed.*timed out after")
        wait_until_gone(child)
        at_work.end()

    assert "out: asked to" in at_work.shown


@LINUX
@BACKENDS
def test_orphans_are_reaped(tmp_path: Path, backend: str) -> None:
    crontab = "@reboot sh -c 'sh -c \"sleep 0.2; exit 7\" & echo orphan $!'"
    with service(tmp_path, crontab, "--reap", "--log-level", "debug", "--backend", backend) as at_work:
        orphan = int(at_work.until(r"out: orphan (\d+)")[1])
        at_work.until("state=succeeded")
        wait_until_gone(orphan)
        _, err = at_work.end()

    assert f"reaped process {orphan}, which was left by its parent: exit status 7" in err


def may_have_processes_of_its_own() -> bool:
    """Whether a process can be made the first one of a namespace here."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return (
        sys.platform == "linux"
        and shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@BACKENDS
def test_as_process_1_it_reaps_and_obeys(tmp_path: Path, backend: str) -> None:
    if not may_have_processes_of_its_own():
        pytest.skip("this machine allows no namespace of processes, so nobody but its init is process 1")
    crontab = "@reboot sh -c 'sh -c \"sleep 0.2; exit 7\" & echo orphan $!'; echo child of $PPID"
    options = ("--log-level", "debug", "--backend", backend)
    first = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with service(tmp_path, crontab, *options, before=first) as at_work:
        at_work.until("out: orphan")
        at_work.until("out: child of 1$")
        assert at_work.process.stderr is not None
        assert any("which was left by its parent: exit status 7" in line for line in at_work.process.stderr)
        children = Path(f"/proc/{at_work.process.pid}/task/{at_work.process.pid}/children")
        os.kill(int(children.read_text()), signal.SIGTERM)
        code, _ = at_work.rest()

    assert "SIGTERM: draining" in at_work.shown
    assert code == 0


# ---- The end


@BACKENDS
def test_the_first_signal_lets_commands_end(tmp_path: Path, backend: str) -> None:
    crontab = f"HOME={tmp_path}\n@reboot echo begun; while [ ! -e go ]; do sleep 0.05; done; echo done"
    with service(tmp_path, crontab, "--grace", "600", "--backend", backend) as at_work:
        at_work.until("out: begun")
        at_work.send(signal.SIGTERM)
        at_work.until("draining, waiting for 1 run")
        (tmp_path / "go").touch()
        code, err = at_work.rest()

    assert "out: done" in at_work.shown
    assert "state=succeeded" in at_work.shown
    assert (code, err) == (0, "")


@LINUX
@BACKENDS
def test_when_the_grace_is_over_groups_are_asked_and_then_killed(tmp_path: Path, backend: str) -> None:
    crontab = "@reboot trap 'echo asked to' TERM; (trap '' TERM; exec sleep 600) & echo child $!; wait; wait"
    options = ("--grace", "0.1", "--kill-after", "3", "--backend", backend, "--reap")
    with service(tmp_path, crontab, *options) as at_work:
        child = int(at_work.until(r"out: child (\d+)")[1])
        code, _ = at_work.end()

    assert "out: asked to" in at_work.shown
    assert re.search("state=failed.*interrupted by a shutdown", at_work.shown)
    assert code == 0
    wait_until_gone(child)


def test_the_time_to_clean_up_may_be_long_and_a_second_signal_cuts_it_short(tmp_path: Path) -> None:
    crontab = (
        f"HOME={tmp_path}\n@reboot trap 'sleep 6; echo clean; exit 0' TERM; echo begun; while :; do sleep 0.05; done"
    )
    with service(tmp_path, crontab, "--grace", "0.1", "--kill-after", "600") as at_work:
        at_work.until("out: begun")
        code, _ = at_work.end()
    assert "out: clean" in at_work.shown, "longer than the scheduler would have waited by itself"
    assert "state=succeeded" in at_work.shown
    assert code == 0

    crontab = "@reboot trap '' TERM; echo begun; while :; do sleep 0.05; done"
    with service(tmp_path, crontab, "--grace", "0.1", "--kill-after", "600") as at_work:
        at_work.until("out: begun")
        at_work.send(signal.SIGTERM)
        at_work.until("the grace is over")
        code, _ = at_work.end()
    assert 'note="interrupted by a shutdown: ended by SIGKILL"' in at_work.shown
    assert code == 128 + signal.SIGTERM


def test_a_second_signal_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    with service(tmp_path, "@reboot echo begun; exec sleep 600", "--grace", "600") as at_work:
        at_work.until("out: begun")
        at_work.send(signal.SIGTERM)
        at_work.until("draining")
        code, _ = at_work.end()

    assert code == 128 + signal.SIGTERM


# ---- When the file changes


@pytest.mark.parametrize("how", ["SIGHUP", "by itself"])
def test_a_changed_file_is_taken_over_and_what_runs_goes_on(tmp_path: Path, how: str) -> None:
    first = f"HOME={tmp_path}\n# name: long\n@reboot echo begun; while [ ! -e go ]; do sleep 0.05; done; echo done"
    poll = "600" if how == "SIGHUP" else "0.1"
    with service(tmp_path, f"{first}\n@secondly echo old\n", "--poll", poll) as at_work:
        at_work.until("out: begun")
        at_work.until("out: old")
        at_work.write("@secondly echo new\n")
        if how == "SIGHUP":
            at_work.send(signal.SIGHUP)
        at_work.until("1 job: 1 new, 0 changed, 2 removed")
        at_work.until("out: new")
        taken_over = len(at_work.lines)
        (tmp_path / "go").touch()
        at_work.until("out: done")
        at_work.until("out: new", 2)
        at_work.end()

    assert "out: old" not in "\n".join(at_work.lines[taken_over:])


def test_a_file_that_is_broken_changes_nothing_and_says_where(tmp_path: Path) -> None:
    with service(tmp_path, "@secondly echo old", "--poll", "600") as at_work:
        at_work.until("out: old")
        at_work.write("@secondly echo new\n61 * * * * broken\n")
        at_work.send(signal.SIGHUP)
        at_work.until(r"tab:2: error: .*minute '61' is out of range")
        at_work.until("1 error in the crontab: the jobs stay as they were")
        at_work.until("out: old", 2)
        (tmp_path / "tab").unlink()
        at_work.send(signal.SIGHUP)
        at_work.until("tab cannot be read: no such file or directory; the jobs stay as they were")
        at_work.until("out: old", 2)
        at_work.write("@secondly echo new\n")
        at_work.send(signal.SIGHUP)
        at_work.until("out: new")
        assert at_work.end()[0] == 0


def test_a_line_that_has_only_another_schedule_keeps_its_job(tmp_path: Path) -> None:
    with service(tmp_path, "# name: it\n0 0 1 1 * echo fired", "--poll", "600") as at_work:
        at_work.until("job it: next")
        at_work.write("# name: it\n@secondly echo fired")
        at_work.send(signal.SIGHUP)
        at_work.until("1 job: 0 new, 1 changed, 0 removed")
        at_work.until("out: fired")
        at_work.end()


def test_a_line_for_the_start_that_comes_later_waits_for_the_next_one(tmp_path: Path) -> None:
    with service(tmp_path, "# name: first\n@reboot echo first", "--poll", "600") as at_work:
        at_work.until("out: first")
        at_work.write("# name: first\n@reboot echo changed\n@reboot echo late\n@secondly echo tick")
        at_work.send(signal.SIGHUP)
        at_work.until("3 jobs: 2 new, 1 changed, 0 removed")
        at_work.until("@reboot counts from the next start on: first, echo late")
        at_work.until("out: tick", 2)
        at_work.end()

    assert "out: changed" not in at_work.shown
    assert "out: late" not in at_work.shown


def test_a_durable_store_forgets_the_lines_that_are_gone(tmp_path: Path) -> None:
    options = ("--store", f"sqlite:///{tmp_path}/jobs.db")
    with service(
        tmp_path, "# name: stays\n@secondly echo stays\n# name: goes\n@secondly echo goes", *options
    ) as at_work:
        at_work.until("out: goes")
        at_work.end()
    with service(tmp_path, "# name: stays\n@secondly echo stays", *options) as at_work:
        at_work.until("started: .*, 1 job$")
        at_work.until("out: stays", 2)
        at_work.end()

    assert [line for line in at_work.shown.splitlines() if "goes" in line and "state=removed" not in line] == []


# ---- Exit codes


@pytest.mark.parametrize(
    ("crontab", "options", "code", "said"),
    [
        ("@daily true\nMAILTO=x", ["--check"], 0, "1 job, 0 errors"),
        ("@daily true\n61 * * * * true", ["--check"], 1, "tab:2: error: cron '61 * * * *'"),
        ("@daily no_such_user true", ["--check", "--system"], 1, "tab:1: error: no user is called 'no_such_user'"),
        ("@daily true\n61 * * * * true", [], 1, "nothing is started"),
        ("@daily true", ["missing", "--check"], 1, "missing cannot be read: no such file or directory"),
        ("@daily true", ["--check", "--tz", "Mars"], 2, "Mars"),
        ("@daily true", ["--store", "mysql://me:secret@host/x"], 2, "--store: must be the URL of a store"),
        ("@daily true", ["--store", "no/such/folder/jobs.db"], 1, "no/such/folder"),
        ("@daily true", ["--timeout", "never"], 2, "a number of seconds"),
    ],
)
def test_the_exit_code_tells_what_was_wrong(
    tmp_path: Path, crontab: str, options: list[str], code: int, said: str
) -> None:
    with service(tmp_path, crontab, *options) as ended:
        found, err = ended.rest()

    assert said in ended.shown + err
    assert "Traceback" not in err
    assert "secret" not in err
    assert found == code


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="only root runs commands as others")
def test_root_runs_commands_as_the_user_of_the_line(tmp_path: Path) -> None:
    crontab = '@reboot nobody echo "$(id -u) $LOGNAME $USER"'
    with service(tmp_path, crontab, "--system") as at_work:
        found = at_work.until("out: (.*)")
        at_work.end()

    assert found[1].split()[1:] == ["nobody", "nobody"]
    assert int(found[1].split()[0]) != 0
