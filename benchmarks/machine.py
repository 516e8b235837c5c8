"""What a reader has to know of the machine and of the code, so that a figure means something."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).resolve().parent.parent


def described() -> dict[str, str]:
    """The machine, in words by name; how busy it is just now included."""
    return {
        "processor": f"{_line_of('/proc/cpuinfo', 'model name') or platform.processor() or 'unknown'}",
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "disk": f"a page written and synced in {_sync() * 1000:.2g} ms",
        "load before": load(),
    }


def load() -> str:
    """Of the last one, five and fifteen minutes."""
    return " / ".join(f"{minutes:.1f}" for minutes in os.getloadavg())


def commit() -> str:
    """Of the checkout; `with changes` when it has some that are not committed, other than what was measured."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/performance")
        return name + (", with changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a checkout"


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _line_of(file: str, key: str) -> str:
    about = Path(file)
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _memory() -> str:
    kilobytes = _line_of("/proc/meminfo", "MemTotal").removesuffix(" kB")
    return f"{int(kilobytes) / 2**20:.1f} GiB" if kilobytes else "unknown"


def _sync() -> float:
    """Median seconds until one page is on the disk on which the databases are."""
    took: list[float] = []
    with TemporaryFile(prefix="clepsydra-bench-") as file:
        for _ in range(20):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)
