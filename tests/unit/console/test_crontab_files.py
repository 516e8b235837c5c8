"""Crontabs on this machine: which files count, what jobs are called, and for whom lines run."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("crontabs need a POSIX system", allow_module_level=True)

import pwd

from clepsydra import Overlap
from clepsydra.console.crontab import local_zone
from clepsydra.console.crontab_files import Wanted, load, paths_of
from clepsydra.console.errors import CommandError


def tab(folder: Path, text: str, name: str = "tab") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_of_a_directory_the_files_count_whose_names_cron_would_take(tmp_path: Path) -> None:
    for name in ("php", "un_der-2", "B2", "dot.ted", "ti~", ".hidden", "php.dpkg-dist"):
        tab(tmp_path, "", name)
    (tmp_path / "folder").mkdir()

    assert [path.name for path in paths_of([tmp_path])] == ["B2", "php", "un_der-2"]


def test_the_same_name_again_has_a_number_over_all_files(tmp_path: Path) -> None:
    one = tab(tmp_path, "@daily sync\n@hourly sync\n@hourly other", "one")
    two = tab(tmp_path, "# name: other\n@daily sync\n@weekly sync", "two")

    loaded = load(Wanted((one, two)))

    assert list(loaded.jobs) == ["sync", "sync (2)", "other", "other (2)", "sync (3)"]
    assert loaded.errands["other (2)"].where == f"{two}:2"


def test_names_do_not_depend_on_what_stands_around_their_lines(tmp_path: Path) -> None:
    before = load(Wanted((tab(tmp_path, "@daily one\n@daily two"),)))
    after = load(Wanted((tab(tmp_path, "A=1\n\n@hourly zero\n# a comment\n@daily two\n@daily one"),)))

    assert {name: after.jobs[name] for name in ("one", "two")} == dict(before.jobs)


def test_what_the_command_line_says_holds_for_every_job(tmp_path: Path) -> None:
    wanted = Wanted((tab(tmp_path, "0 9 * * * one"),), tz="Asia/Tokyo", overlap=Overlap.ALLOW)

    job = load(wanted).jobs["one"]

    assert job.schedule is not None
    assert (job.schedule.tz_name, job.overlap) == ("Asia/Tokyo", Overlap.ALLOW)


def test_settings_of_the_file_hold_for_the_lines_below_them(tmp_path: Path) -> None:
    text = "@daily a\nCLEPSYDRA_TIMEOUT=90\nCLEPSYDRA_OVERLAP=buffer_one\n@daily b\nCLEPSYDRA_TIMEOUT=''\n@daily c"

    jobs = load(Wanted((tab(tmp_path, text),), timeout=timedelta(seconds=5))).jobs

    assert [job.work.timeout for job in jobs.values()] == [5_000_000, 90_000_000, None]
    assert [job.overlap for job in jobs.values()] == [Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.BUFFER_ONE]


def test_errors_of_all_files_are_told(tmp_path: Path) -> None:
    one, two = tab(tmp_path, "61 * * * * x", "one"), tab(tmp_path, "@daily ok\n@daily", "two")

    errors = load(Wanted((one, two))).errors

    assert [str(error).split(" error: ")[0] for error in errors] == [f"{one}:1:", f"{two}:2:"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="none cannot be read: no such file or directory"):
        load(Wanted((tmp_path / "none",)))


def test_bytes_that_are_no_text_reach_the_shell_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "tab"
    path.write_bytes(b"\xef\xbb\xbf@daily cat \xff%\xfe\n")

    loaded = load(Wanted((path,)))

    errand = loaded.errands["cat ?"]
    assert (os.fsencode(errand.command), errand.stdin) == (b"cat \xff", b"\xfe\n")


# ---- For whom


def test_without_root_only_ones_own_lines_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "getuid", lambda: nobody.pw_uid)
    path = tab(tmp_path, "@daily nobody id\n@daily root id\n@daily no_such_user id")

    loaded = load(Wanted((path,), system=True))

    assert [error.remark.text for error in loaded.errors] == [
        "runs as root, which only root can start; this process is nobody",
        "no user is called 'no_such_user' on this machine",
    ]
    assert loaded.errands["id"].identity is None


def test_root_runs_lines_as_the_user_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("HOME", "/home/of/the/service")
    nobody = pwd.getpwnam("nobody")

    errand = load(Wanted((tab(tmp_path, "@daily nobody id"),), system=True)).errands["id"]

    assert errand.identity is not None
    assert (errand.identity.uid, errand.identity.gid) == (nobody.pw_uid, nobody.pw_gid)
    assert [errand.environment[name] for name in ("HOME", "LOGNAME", "USER")] == [nobody.pw_dir, "nobody", "nobody"]
    assert errand.folder == (nobody.pw_dir if os.path.isdir(nobody.pw_dir) else "/")


def test_a_number_without_a_name_can_run_crontabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    monkeypatch.delenv("HOME", raising=False)

    errand = load(Wanted((tab(tmp_path, "@daily id"),))).errands["id"]

    assert (errand.environment["LOGNAME"], errand.folder) == ("3999999999", "/")


def test_jobs_see_the_environment_of_the_service_or_the_bare_one_of_cron(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "from outside")
    monkeypatch.setenv("SHELL", "/bin/zsh")
    path = tab(tmp_path, "LOGNAME=somebody\nA=1\n@daily id")

    full = load(Wanted((path,))).errands["id"]
    bare = load(Wanted((path,), clean=True)).errands["id"]

    assert (full.environment["TOKEN"], full.environment["SHELL"]) == ("from outside", "/bin/sh")
    assert bare.environment.keys() == {"PATH", "HOME", "SHELL", "LOGNAME", "USER", "A"}
    assert bare.environment["LOGNAME"] != "somebody"


# ---- Where


@pytest.mark.parametrize(
    ("environment", "zone"),
    [({"TZ": "Asia/Tokyo"}, "Asia/Tokyo"), ({"TZ": ":Asia/Tokyo"}, "Asia/Tokyo"), ({}, "Europe/Zurich")],
)
def test_the_zone_is_that_of_the_machine(tmp_path: Path, environment: dict[str, str], zone: str) -> None:
    place = tmp_path / "usr" / "share" / "zoneinfo" / "Europe"
    place.mkdir(parents=True)
    (place / "Zurich").touch()
    (tmp_path / "localtime").symlink_to(place / "Zurich")

    assert local_zone(environment, tmp_path / "localtime") == zone


def test_a_machine_whose_zone_is_a_copy_says_its_name_beside_it(tmp_path: Path) -> None:
    (tmp_path / "localtime").touch()
    (tmp_path / "timezone").write_text("Europe/Zurich\n")

    assert local_zone({}, tmp_path / "localtime") == "Europe/Zurich"


def test_a_machine_without_a_zone_has_utc(tmp_path: Path) -> None:
    assert local_zone({}, tmp_path / "localtime") == "UTC"
