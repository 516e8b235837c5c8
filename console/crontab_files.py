"""From the files that are named to errands and jobs: which files count, for whom lines run, what the jobs are called.

Reads files and the accounts of this machine, and starts nothing. What is wrong anywhere keeps all of it from being
used: half a crontab is worse than the one of before.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from attrs import field, frozen

from .. import ClepsydraError, Job, Misfire, Overlap
from .children import Identity
from .crontab_lines import OVERLAP, TIMEOUT, JobLine, Remark, overlap_of, read_crontab, timeout_of, title_of
from .errands import Errand
from .errors import CommandError

_T = TypeVar("_T")

TASK: Final = "crontab.run"
SHELL: Final = "/bin/sh"
PATH: Final = "/usr/bin:/bin"
_OF_A_DIRECTORY = re.compile(r"[A-Za-z0-9_-]+")

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""What tells that files have changed: path, inode, size and time of each."""


@frozen
class Wanted:
    """What the command line says about the files and about every job of them."""

    files: tuple[Path, ...]
    system: bool = False
    tz: str = "UTC"
    clean: bool = False
    """Jobs have the environment that cron gives them, instead of the one of this process."""
    overlap: Overlap = Overlap.SKIP
    timeout: timedelta | None = None
    misfire: Misfire = field(factory=Misfire)


@frozen
class Complaint:
    """A remark on a line of a file."""

    path: Path
    remark: Remark

    @property
    def is_error(self) -> bool:
        """Whether the file must not be used."""
        return self.remark.level == "error"

    def __str__(self) -> str:
        return f"{self.path}:{self.remark.number}: {self.remark.level}: {self.remark.text}"


@frozen
class Loaded:
    """What all files together come to."""

    stamp: Stamp
    errands: Mapping[str, Errand] = field(hash=False)
    jobs: Mapping[str, Job] = field(hash=False)
    complaints: tuple[Complaint, ...]

    @property
    def errors(self) -> list[Complaint]:
        """Those complaints for which it must not be used."""
        return [complaint for complaint in self.complaints if complaint.is_error]


def load(wanted: Wanted) -> Loaded:
    """Read all files. Raises `CommandError` for one that cannot be read."""
    stamp = stamp_of(wanted.files)
    lines: list[tuple[Path, JobLine]] = []
    complaints: list[Complaint] = []
    for path in paths_of(wanted.files):
        crontab = read_crontab(_text(path), system=wanted.system, tz=wanted.tz)
        lines += [(path, line) for line in crontab.lines]
        complaints += [Complaint(path, remark) for remark in crontab.remarks]
    errands: dict[str, Errand] = {}
    jobs: dict[str, Job] = {}
    for path, line in lines:
        name = _free_name(line.title, errands)
        try:
            errands[name] = errand_of(name, f"{path}:{line.number}", line, wanted.clean)
            jobs[name] = _job(name, line, wanted)
        except (CommandError, ClepsydraError) as error:
            complaints.append(Complaint(path, Remark(line.number, "error", str(error))))
    return Loaded(stamp, errands, jobs, tuple(complaints))


def _free_name(title: str, taken: Mapping[str, object]) -> str:
    """The title, or with a number the first that is free: the order of the lines decides."""
    names = (title if number == 1 else f"{title} ({number})" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _job(name: str, line: JobLine, wanted: Wanted) -> Job:
    settings = line.settings
    return Job(
        name,
        TASK,
        line.schedule,
        args={"command": title_of(line.command, longest=1000)},  # for those who look at it in a store
        overlap=overlap_of(settings[OVERLAP]) if OVERLAP in settings else wanted.overlap,
        timeout=timeout_of(settings[TIMEOUT]) if TIMEOUT in settings else wanted.timeout,
        misfire=wanted.misfire,
        recovery="fail",  # nobody knows whether half a command may be done again
    )


# --- files ---------------------------------------------------------------------------------------------------------


def paths_of(named: Sequence[Path]) -> Iterator[Path]:
    """The files that count: of a directory those whose names cron would take, in order."""
    for path in named:
        if not path.is_dir():
            yield path
            continue
        yield from sorted(file for file in path.iterdir() if _OF_A_DIRECTORY.fullmatch(file.name) and file.is_file())


def stamp_of(named: Sequence[Path]) -> Stamp:
    """How the files look now. Raises `CommandError` when one is not there."""
    stamps: list[tuple[str, int, int, int]] = []
    for path in _or_why(lambda: list(paths_of(named)), named):
        facts = _or_why(path.stat, path)
        stamps.append((str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(stamps)


def _text(path: Path) -> str:
    # What is no UTF-8 reaches the shell as it is.
    return _or_why(lambda: path.read_bytes(), path).decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _or_why(look: Callable[[], _T], what: object) -> _T:
    try:
        return look()
    except OSError as error:
        name = error.filename or what
        raise CommandError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from error


# --- for whom ------------------------------------------------------------------------------------------------------


def errand_of(name: str, where: str, line: JobLine, clean: bool) -> Errand:
    """A line on this machine. Raises `CommandError` when it cannot be run for whom it is to be run."""
    account, identity = _account(line.user)
    surroundings = {} if clean else dict(os.environ)
    if clean or line.user is not None:
        surroundings["HOME"] = account.pw_dir
    environment = {
        "PATH": PATH,
        "HOME": account.pw_dir,
        **surroundings,
        "SHELL": SHELL,
        "USER": account.pw_name,
        **line.settings,
        "LOGNAME": account.pw_name,  # no setting changes this one, as in cron
    }
    home = environment["HOME"]
    return Errand(
        name,
        where,
        line.command,
        line.stdin.encode("utf-8", "surrogateescape"),
        environment["SHELL"],
        home if os.path.isdir(home) and (identity is not None or os.access(home, os.X_OK)) else "/",
        environment,
        identity,
    )


def _account(user: str | None) -> tuple[pwd.struct_passwd, Identity | None]:
    """Whom a line runs as; no identity where that is whom this process runs as already."""
    ours = os.getuid()
    if user is None:
        return _own_account(ours), None
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CommandError(f"no user is called {user!r} on this machine") from None
    if account.pw_uid == ours:
        return account, None
    if ours != 0:
        raise CommandError(f"runs as {user}, which only root can start; this process is {_own_account(ours).pw_name}")
    groups = tuple(os.getgrouplist(account.pw_name, account.pw_gid))
    return account, Identity(account.pw_uid, account.pw_gid, groups)


def _own_account(uid: int) -> pwd.struct_passwd:
    """Containers run as numbers that have no name."""
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return pwd.struct_passwd((str(uid), "x", uid, os.getgid(), "", "/", SHELL))
