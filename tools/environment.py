"""Makes .venv and installs clepsydra into it; does nothing when that has been done already.

    python tools/environment.py          what it takes to run the scheduler
    python tools/environment.py dev      and the dependency group `dev`

It is run by whatever Python the machine has, so it needs nothing but the standard library. The install is editable and
strict: a tree of links under build/ that static tools read like any installed package. The tree knows only the modules
it was made for, hence the fingerprint: the install is made again when pyproject.toml changes, or when a file of the
package comes, goes or is renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "clepsydra.json"


class Install(TypedDict):
    """What .venv was made from; the stamp in it is this, as JSON."""

    python: str
    files: str
    groups: list[str]


def main(groups: set[str]) -> None:
    if unknown := sorted(group for group in groups if not group.isidentifier()):
        sys.exit(f"{', '.join(unknown)}: not a dependency group of pyproject.toml; give their names, as in `dev`")
    fcntl.flock(os.open(ROOT, os.O_RDONLY), fcntl.LOCK_EX)  # two makes at once: the second one waits, and finds it done
    found = _found()
    # What is there is kept: `make run` after `make test` does not take the tools away.
    wanted = Install(python=sys.version, files=_fingerprint(), groups=sorted(groups.union(found["groups"])))
    if found != wanted:
        STAMP.unlink(missing_ok=True)  # an install that breaks off must be made again
        if found["python"] != wanted["python"]:
            print("making .venv with Python", sys.version.split()[0], flush=True)
            _run(sys.executable, "-m", "venv", "--clear", str(VENV))
        print("installing", " and ".join(["clepsydra", *wanted["groups"]]), "into .venv", flush=True)
        _install(wanted["groups"])
        STAMP.write_text(json.dumps(wanted))


def _found() -> Install:
    """What .venv holds; nothing at all when it does not run, say because the Python it was made with is gone."""
    install = Install(python="", files="", groups=[])
    try:
        # In another folder than this one, where the package could be mistaken for an installed one.
        probe = [str(PYTHON), "-c", "import importlib.util as find; print(bool(find.find_spec('clepsydra')))"]
        seen = subprocess.run(probe, cwd=VENV, capture_output=True, text=True, check=True).stdout.strip()
        install.update(json.loads(STAMP.read_text()))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return install
    if seen != "True":  # build/ is gone
        install["files"] = ""
    return install


def _fingerprint() -> str:
    names = "\n".join(sorted(str(file.relative_to(ROOT)) for file in _package_files()))
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + names.encode()).hexdigest()


def _package_files() -> Iterator[Path]:
    yield from ROOT.glob("*.py")
    for init in ROOT.glob("*/__init__.py"):
        yield from (file for file in init.parent.rglob("*") if file.is_file() and file.suffix != ".pyc")


def _install(groups: list[str]) -> None:
    pip = (str(PYTHON), "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check", "install")
    strict = ("--editable=.", "--config-settings=editable_mode=strict")
    _run(*pip, "--upgrade", "pip")  # `--group` needs 25.1
    _run(*pip, *strict, *(f"--group={group}" for group in groups))


def _run(*command: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
