"""What the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from .processes import Nursery, nursery
from .scene import Scene


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Nursery]:
    """Child processes that are gone when the test ends."""
    with nursery(tmp_path) as started:
        yield started


@pytest.fixture
def scene(processes: Nursery, tmp_path: Path) -> Scene:
    """Workers on one file."""
    return Scene(processes, tmp_path)


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """The seed is in the head of pytest's report."""
    return Random(f"{request.config.option.hypothesis_seed} {request.node.name}")
