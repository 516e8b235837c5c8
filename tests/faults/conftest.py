"""What the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ..postgres import Schemas
from .places import FilePlace, Place, ServerPlace
from .processes import Nursery, nursery
from .scene import Scene


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Nursery]:
    """Child processes that are gone when the test ends."""
    with nursery(tmp_path) as started:
        yield started


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A store that is empty, on either database."""
    if request.param == "sqlite":
        yield FilePlace(tmp_path / "jobs.db")
        return
    schemas: Schemas = request.getfixturevalue("postgres")
    schema = schemas.take()
    yield ServerPlace(schemas.dsn, schema)
    schemas.give_back(schema)


@pytest.fixture
def scene(place: Place, processes: Nursery, tmp_path: Path) -> Scene:
    """Workers on one store. They end before its place is given back."""
    return Scene(processes, place, tmp_path)


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """The seed is in the head of pytest's report."""
    return Random(f"{request.config.option.hypothesis_seed} {request.node.name}")
