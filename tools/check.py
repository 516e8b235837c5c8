"""Everything that is checked without running the tests: shape, lint, types, docstring examples, contents of the wheel.

    python tools/check.py                all of it
    python tools/check.py mypy pyright   some of it

All steps run even when one fails; the last line says which did. Each tool has its settings in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("tests", "examples", "benchmarks", "docs", "tools")
"""Folders that import clepsydra as users do; mypy is not given those that have no Python file."""


def formatting() -> bool:
    return _module("ruff", "format", "--check", ".")


def lint() -> bool:
    return _module("ruff", "check", ".")


def mypy() -> bool:
    folders = [folder for folder in OUTSIDE if any((ROOT / folder).rglob("*.py"))]
    package = _module("mypy", "-p", "clepsydra")
    return _module("mypy", *folders) and package


def pyright() -> bool:
    return _module("pyright", "--pythonpath", sys.executable)


def docstrings() -> bool:
    return _module("pytest", "--quiet", "--doctest-modules", "--pyargs", "clepsydra", no_tests_is_fine=True)


def wheel() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return _run([sys.executable, "tools/distributions.py", folder, "--no-isolation"])


STEPS: dict[str, Callable[[], bool]] = {
    step.__name__: step for step in (formatting, lint, mypy, pyright, docstrings, wheel)
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(STEPS):
        print(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
        return 2
    failed = [name for name in names or STEPS if not _timed(name)]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def _timed(name: str) -> bool:
    print(f"-- {name}", flush=True)
    started = time.monotonic()
    passed = STEPS[name]()
    print(f"-- {name} {'passed' if passed else 'FAILED'} in {time.monotonic() - started:.1f} s\n", flush=True)
    return passed


def _module(*arguments: str, no_tests_is_fine: bool = False) -> bool:
    return _run([sys.executable, "-m", *arguments], fine=(0, 5) if no_tests_is_fine else (0,))


def _run(command: list[str], fine: tuple[int, ...] = (0,)) -> bool:
    return subprocess.run(command, cwd=ROOT, check=False).returncode in fine


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
