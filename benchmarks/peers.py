"""The peers of the benchmarks, each in an environment of its own, because their requirements clash.

An environment is made at the first use, in the user's cache folder, by pip. What is measured there is one of the
programs in `peer_programs/`, which print what they have measured as JSON in their last line.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

REQUIREMENTS = {
    "aiocron": "aiocron==2.1",
    "apscheduler3": "apscheduler[sqlalchemy]==3.11.3",
    "apscheduler4": "apscheduler[sqlalchemy,asyncpg]==4.0.0a6",
    "huey": "huey==3.5.4",
    "oban": "oban",
    "pgqueuer": "pgqueuer[asyncpg]==1.6.0",
    "procrastinate": "procrastinate==3.10.0",
    "saq": "saq[postgres]==0.26.4",
    "taskiq": "taskiq==0.13.0",
}
ALSO = {
    "apscheduler3": ["psycopg[binary]>=3.2", "uvloop>=0.21"],
    "apscheduler4": ["aiosqlite>=0.20", "trio>=0.27", "uvloop>=0.21"],
    "aiocron": ["uvloop>=0.21"],
    "taskiq": ["uvloop>=0.21"],
}
"""What a peer needs for the questions that are put to it, and does not require itself."""
_PROGRAMS = Path(__file__).with_name("peer_programs")


class PeerMissingError(Exception):
    """A peer that is not to be had here; it says why."""


def measured(peer: str, question: str, size: int, place: str) -> Any:
    """What the peer's program answers."""
    program = _PROGRAMS / f"with_{peer}.py"
    command = [str(_python(peer)), str(program), question, str(size), place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed: {_last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


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
    wanted = [REQUIREMENTS[peer], *ALSO.get(peer, ())]
    place = _cache() / "clepsydra-bench" / f"{peer}-{sys.version_info.major}.{sys.version_info.minor}"
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    ready = place / "ready"
    if not ready.exists() or ready.read_text() != "\n".join(wanted):
        venv.create(place, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissingError(f"{' '.join(wanted)} cannot be installed: {_last_line(done.stderr)}")
        ready.write_text("\n".join(wanted))
    return python


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[-1]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
