"""What is shipped is the package `clepsydra`, all of it, and nothing else.

In a checkout a wheel is built and looked into. Around an installed wheel that is being tested there is no checkout: the
installed files are looked at instead, and the tests that compare with the sources say that they are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import files as installed_files
from pathlib import Path, PurePosixPath

import pytest

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
DIST_INFO = f"clepsydra-{PROJECT['project']['version']}.dist-info"
DATA = {"clepsydra/py.typed"}

in_a_checkout = (CHECKOUT / "__init__.py").is_file()
needs_the_sources = pytest.mark.skipif(not in_a_checkout, reason="an installed wheel is tested: no sources around")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the wheel, or of what was installed from one."""
    if not in_a_checkout:
        return set(files_of_the_installation())
    wheel = build("wheel", tmp_path_factory.mktemp("wheel"))
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the sdist, below its one folder."""
    with tarfile.open(build("sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        return {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}


def test_only_clepsydra_is_installed(shipped: set[str]) -> None:
    assert {PurePosixPath(name).parts[0] for name in shipped} == {"clepsydra", DIST_INFO}


def test_every_module_is_in_a_declared_package(shipped: set[str]) -> None:
    folders = {str(PurePosixPath(name).parent) for name in shipped if name.endswith(".py")}

    assert folders == {package.replace(".", "/") for package in PROJECT["tool"]["setuptools"]["packages"]}


def test_type_checkers_are_told_that_it_is_typed(shipped: set[str]) -> None:
    assert "clepsydra/py.typed" in shipped


def test_the_license_is_shipped(shipped: set[str]) -> None:
    assert f"{DIST_INFO}/licenses/LICENSE" in shipped


@needs_the_sources
def test_the_wheel_has_exactly_the_modules_of_the_package_folders(shipped: set[str]) -> None:
    modules = {f"clepsydra/{file.relative_to(CHECKOUT).as_posix()}" for file in sources()}

    assert {name for name in shipped if name.startswith("clepsydra/")} == modules | DATA


@needs_the_sources
def test_every_package_folder_is_declared() -> None:
    folders = {file.parent.relative_to(CHECKOUT).parts for file in sources()}

    assert {".".join(("clepsydra", *parts)) for parts in folders} == set(PROJECT["tool"]["setuptools"]["packages"])


@needs_the_sources
def test_no_script_stands_at_the_root() -> None:
    assert {file.name for file in CHECKOUT.glob("*.py")} <= {"__init__.py", "__main__.py"}, "scripts live in tools/"


@needs_the_sources
def test_the_sdist_brings_all_that_its_tests_need(sdist: set[str]) -> None:
    tests = {file.relative_to(CHECKOUT).as_posix() for file in (CHECKOUT / "tests").rglob("*.py")}
    project_files = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"}

    assert tests | project_files | {"tools/check.py", "tools/environment.py"} <= sdist


def sources() -> Iterator[Path]:
    """The modules of the package in this checkout: those at the root, and those in a folder that is a package."""
    yield from CHECKOUT.glob("*.py")
    for init in CHECKOUT.glob("*/__init__.py"):
        yield from init.parent.rglob("*.py")


def files_of_the_installation() -> Iterator[str]:
    by_the_installer = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"}
    for file in installed_files("clepsydra") or []:
        if ".." not in file.parts and file.suffix != ".pyc" and file.name not in by_the_installer:
            yield file.as_posix()


def build(kind: str, folder: Path) -> Path:
    """Build in a copy: setuptools takes into a wheel whatever an earlier build left behind in build/."""
    copy, out = folder / "source", folder / "out"
    made_here = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(CHECKOUT, copy, ignore=made_here)
    out.mkdir()
    script = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built
