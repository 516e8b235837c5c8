"""The peers of the benchmarks, each in an environment of its own, because their requirements clash.

An environment is made at the first use, in the user's cache folder, by pip. What is measured there is one of the
programs in `peer_programs/`, which print what they have measured as JSON in their last line. A peer that needs a newer
Python than the one that runs this takes it from CLEPSYDRA_BENCH_PYTHON, from the PATH or from pyenv.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REQUIREMENTS = {
    "aiocron": "aiocron==2.1",
    "apscheduler3": "apscheduler[sqlalchemy]==3.11.3",
    "apscheduler4": "apscheduler[sqlalchemy,asyncpg]==4.0.0a6",
    "cronexpr": "cronexpr==0.30.0",
    "croniter_rs": "croniter-rs==0.2.0",
    "huey": "huey==3.5.4",
    "oban": "oban==0.7.0",
    "pgqueuer": "pgqueuer[asyncpg]==1.6.0",
    "procrastinate": "procrastinate==3.10.0",
    "saq": "saq[postgres]==0.26.4",
    "taskiq": "taskiq==0.13.0",
}
ALSO = {
    "apscheduler3": ["psycopg[binary]>=3.2", "uvloop>=0.21"],
    "apscheduler4": ["aiosqlite>=0.20", "sniffio>=1.3", "trio>=0.27", "uvloop>=0.21"],
    "aiocron": ["uvloop>=0.21"],
    "oban": ["psycopg[binary]>=3.2"],
    "saq": ["psycopg[binary]>=3.2"],
    "taskiq": ["uvloop>=0.21"],
}
"""What a peer needs for the questions that are put to it, and does not require itself."""
NEWER_PYTHON = {"oban": (3, 12)}
"""Of those that do not install on the oldest one that we run on."""

GIVEN = "CLEPSYDRA_BENCH_PYTHON"
_PROGRAMS = Path(__file__).with_name("peer_programs")
_VERSION = "import ensurepip, sys; print(sys.version_info[0], sys.version_info[1])"


class PeerMissingError(Exception):
    """A peer that is not to be had here; it says why."""


def measured(peer: str, question: str, size: int, *told: str) -> Any:
    """What the peer's program answers; where its database is and what else it has to know is told."""
    command = [str(_python(peer)), str(_program(peer, question)), question, str(size), *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed: {_last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


def configured(peer: str, question: str = "") -> str:
    """What its program says that it was told: the last paragraph of its docstring."""
    told = ast.get_docstring(ast.parse(_program(peer, question).read_text("utf-8"))) or ""
    return told.split("\n\n")[-1].replace("\n", " ")


def _program(peer: str, question: str) -> Path:
    """One for that question alone, or the one for all the others."""
    own = _PROGRAMS / f"{question}_with_{peer}.py"
    return own if own.exists() else _PROGRAMS / f"with_{peer}.py"


def version(peer: str) -> str:
    """Of a peer, or of a distribution that is installed here; empty when it is nowhere."""
    if peer not in REQUIREMENTS:
        try:
            return importlib.metadata.version(peer)
        except importlib.metadata.PackageNotFoundError:
            return ""
    try:
        python = _python(peer)
    except PeerMissingError:
        return ""
    name = REQUIREMENTS[peer].partition("==")[0].partition("[")[0]
    asked = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def _python(peer: str) -> Path:
    """The interpreter of the peer's environment."""
    base, (major, minor) = _interpreter(peer)
    wanted = [REQUIREMENTS[peer], *ALSO.get(peer, ())]
    # One for each set of requirements: two checkouts that differ do not make each other's again and again.
    mark = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:8]
    place = _cache() / "clepsydra-bench" / f"{peer}-{mark}-{major}.{minor}"
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    ready = place / "ready"
    if not ready.exists():
        made = subprocess.run([base, "-m", "venv", "--clear", str(place)], capture_output=True, text=True, check=False)
        if made.returncode:
            raise PeerMissingError(
                f"an environment cannot be made with {base}: {_last_line(made.stdout + made.stderr)}"
            )
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissingError(f"{' '.join(wanted)} cannot be installed: {_last_line(done.stderr)}")
        ready.touch()
    return python


def _interpreter(peer: str) -> tuple[str, tuple[int, int]]:
    """This one, or a newer one where the peer needs it."""
    here, needed = (sys.version_info.major, sys.version_info.minor), NEWER_PYTHON.get(peer, (3, 11))
    if here >= needed:
        return sys.executable, here
    for candidate in _candidates():
        version = _version_of(candidate)
        if version is not None and version >= needed:
            return candidate, version
    needs, this = (".".join(map(str, each)) for each in (needed, here))
    raise PeerMissingError(f"it needs Python {needs} or later and this is {this}: name one in {GIVEN}")


def _candidates() -> Iterator[str]:
    if os.environ.get(GIVEN):
        yield os.environ[GIVEN]
    yield from (f"python3.{minor}" for minor in (13, 12, 14))
    if shutil.which("pyenv"):  # its shims fail for a version that is installed and not chosen
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        yield from sorted(map(str, Path(root, "versions").glob("3.*/bin/python3")), reverse=True)


def _version_of(python: str) -> tuple[int, int] | None:
    """None where there is none: a version manager's shim may exist and fail."""
    try:
        done = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[-1]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
