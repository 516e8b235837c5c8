"""The programs under examples/ do what they say."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio

from clepsydra import Scheduler
from clepsydra.testing import CONTRACT

from .pages import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:Using .httpx. with .starlette.testclient. is deprecated")


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Some keep a file."""
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("example_")]:
        del sys.modules[name]


def example(name: str) -> ModuleType:
    """One of them, loaded anew."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # FastAPI resolves annotations by the module's name
    spec.loader.exec_module(module)
    return module


def client(app: Any) -> Any:
    """A client that runs the app's lifespan."""
    return pytest.importorskip("starlette.testclient", reason="NOT TESTED: starlette is not installed").TestClient(app)


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text("utf-8")

    assert [path.stem for path in (ROOT / "examples").glob("*.py") if f'example("{path.stem}")' not in text] == []


def test_the_fastapi_app_enqueues_from_a_request_and_tells_what_became_of_it() -> None:
    pytest.importorskip("fastapi", reason="NOT TESTED: fastapi is not installed")
    with client(example("fastapi_app").app) as browser:
        answer = browser.post("/users/7/welcome")
        seen = browser.get(f"/executions/{answer.json()['execution']}").json()
        give_up = time.monotonic() + 10
        while seen["state"] in ("pending", "running") and time.monotonic() < give_up:
            seen = browser.get(f"/executions/{answer.json()['execution']}").json()
        health = browser.get("/health")

    assert answer.status_code == 202
    assert seen == {"state": "succeeded", "result": '"welcome, user 7"', "error": None}
    assert health.json() == {"status": "ok", "reasons": []}
    assert health.status_code == 200


def test_the_fastapi_app_says_404_for_what_it_does_not_know() -> None:
    pytest.importorskip("fastapi", reason="NOT TESTED: fastapi is not installed")
    with client(example("fastapi_app").app) as browser:
        assert browser.get("/executions/none").status_code == 404


def test_the_starlette_app_fires_its_job_and_answers_with_a_result() -> None:
    with client(example("starlette_app").app) as browser:
        assert browser.post("/words", content="one two three").json() == {"words": 3}
        give_up = time.monotonic() + 10
        while not (beats := browser.get("/beats").json()) and time.monotonic() < give_up:
            time.sleep(0.01)

    assert beats


def test_the_trio_service_retries_and_ends_when_its_nursery_is_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    service = example("trio_service")

    trio.run(service.main, 1.0)

    assert service.attempts == [1, 2]
    assert "got through" in (said := capsys.readouterr().out)
    assert "sampled" in said


def test_the_supervisor_tree_restarts_the_listener_and_leaves_the_scheduler_alone(
    capsys: pytest.CaptureFixture[str], anyio_backend: str
) -> None:
    app = example("supervisor_tree")

    anyio.run(app.main, 1.0, backend=anyio_backend)

    assert app.crashes == 2
    assert "beat" in (said := capsys.readouterr().out)
    assert "app (one_for_one)\n  scheduler (permanent)\n  listener (transient)\n" in said


def test_plain_threads_use_a_scheduler_that_lives_in_another_one() -> None:
    assert example("threads").main() == [0, 1, 4, 9, 16, 25, 36, 49]


def test_the_toy_store_keeps_every_promise_and_carries_a_scheduler() -> None:
    toy = example("toy_store")

    def times_itself(number: int) -> int:
        return number * number

    async def life() -> object:
        scheduler = Scheduler(toy.ToyStorage())
        square = scheduler.task(name="square")(times_itself)
        async with scheduler:
            return await (await scheduler.enqueue(square.call(7))).result(10)

    assert toy.main() == len(CONTRACT)
    assert anyio.run(life) == 49
