"""Builds the sdist, and the wheel out of it, and checks what is inside the wheel.

    python tools/distributions.py DIRECTORY [options of `python -m build`]

It builds in a copy of the checkout: setuptools would otherwise take into the wheel what an earlier build left behind in
build/, such as modules that are gone since.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE_HERE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


def main(directory: Path, options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "clepsydra"
        shutil.copytree(ROOT, source, ignore=MADE_HERE)
        command = [sys.executable, "-m", "build", "--outdir", str(directory.resolve()), *options, str(source)]
        # What it has to tell is long, and of interest only when it fails.
        built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if built.returncode:
        sys.stdout.buffer.write(built.stdout)
        return built.returncode
    wheels = sorted(directory.glob("*.whl"))
    return subprocess.run([sys.executable, "-m", "check_wheel_contents", *wheels], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
