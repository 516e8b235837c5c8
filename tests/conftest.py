"""What every test may lean on: both event loops, reproducible randomness, and long runs on demand."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from .postgres import NoServer, Schemas, server

settings.register_profile("ci", max_examples=50, deadline=None, print_blob=True, database=None)
settings.register_profile("long", settings.get_profile("ci"), max_examples=2_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the runs that take minutes, and many more examples")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis reads its own options
def pytest_configure(config: pytest.Config) -> None:
    # Some who start us in the background, nohup for one, have it ignored; the processes that tests start inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.load_profile("long" if config.getoption("long") else "ci")
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.getrandbits(32))


def pytest_report_header(config: pytest.Config) -> str:
    return f"to draw the same examples again: --hypothesis-seed={config.option.hypothesis_seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with --long"))


@pytest.fixture
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether the run may take minutes: more steps, more faults, more seeds."""
    return bool(request.config.getoption("long"))


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both: `pytestmark = pytest.mark.anyio`."""
    return str(request.param)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Schemas]:
    """A PostgreSQL server with schemas to take. Where there is none the tests are skipped, but not where CI is set."""
    try:
        with server() as dsn:
            schemas = Schemas(dsn)
            yield schemas
            schemas.drop()
    except NoServer as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
