"""The peers of the durable benchmarks, each in an environment of its own, because their requirements clash.

An environment is made at the first use, in the user's cache folder, by pip. What is measured there is one of the
programs in `peer_programs/`, which print what they have measured as JSON in their last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

REQUIREMENTS = {
    "pgqueuer": "pgqueuer[asyncpg]==1.6.0",
    "procrastinate": "procrastinate==3.10.0",
    "huey": "huey==3.5.4",
}
_PROGRAMS = Path(__file__).with_name("peer_programs")


def measured(peer: str, question: str, size: int, place: str) -> Any:
    """What the peer's program answers."""
    command = [str(_python(peer)), str(_PROGRAMS / f"with_{peer}.py"), question, str(size), place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise SystemExit(f"{peer} failed: {said}")
    return json.loads(done.stdout.splitlines()[-1])


def _python(peer: str) -> Path:
    """The interpreter of the peer's environment."""
    requirement = REQUIREMENTS[peer]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = (
        _cache() / "clepsydra-bench" / f"{requirement.replace('==', '-').replace('[', '-').replace(']', '')}-{version}"
    )
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    ready = place / "ready"
    if not ready.exists():
        venv.create(place, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{requirement} cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        ready.touch()
    return python


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
