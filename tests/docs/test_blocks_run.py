"""Every block of code in README and docs is run, page by page, and prints what the page says it prints."""

from __future__ import annotations

import ast
import inspect
import io
import linecache
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from clepsydra.console.main import main

from .pages import KNOWN, ROOT, RUN, Block, blocks, event_loops, pages, title

WITH_CODE = [page for page in pages() if any(block.language in RUN for block in blocks(page))]
CASES = [(page, backend) for page in WITH_CODE for backend in event_loops(page)]


# Starlette wants a client that is not everywhere yet; which one it takes is not what these pages are about.
pytestmark = pytest.mark.filterwarnings("ignore:Using .httpx. with .starlette.testclient. is deprecated")


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pages may write files, and import those that they have written, and the examples."""
    places = str(tmp_path), str(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for place in places:
        monkeypatch.syspath_prepend(place)  # pyright: ignore[reportUnknownMemberType]
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(places):
            del sys.modules[name]


@pytest.mark.parametrize(("page", "backend"), CASES, ids=[f"{title(page)}-{backend}" for page, backend in CASES])
def test_the_code_on_the_page_does_what_the_page_says(
    page: Path, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "DATABASE_URL" in page.read_text("utf-8"):
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgres").dsn)
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for block in blocks(page):
        match block.mark, block.language:
            case "skip", _:
                continue
            case "file", _:
                Path(block.argument).write_text(block.text, "utf-8")
            case "prints", _:
                assert printed.rstrip() == block.text.rstrip(), f"{block.place} shows something else"
            case _, "python":
                printed = _caught(partial(_run_python, block, namespace, backend))
            case _, "sh":
                printed = _caught(partial(_run_shell, block))
            case _:
                pass


@pytest.mark.parametrize("page", pages(), ids=title)
def test_every_block_says_its_language_and_every_skip_its_reason(page: Path) -> None:
    for block in blocks(page):
        assert block.language in KNOWN, f"{block.place} has the language {block.language!r}"
        assert block.mark != "skip" or block.argument, f"{block.place} is skipped without a reason"
        assert block.mark != "skip" or block.language != "python", f"{block.place}: Python is never skipped"


def _caught(run: Callable[[], None]) -> str:
    heard = io.StringIO()
    with redirect_stdout(heard):
        run()
    return heard.getvalue()


def _run_python(block: Block, namespace: dict[str, Any], backend: str) -> None:
    name = block.place
    source = "\n" * (block.line - 1) + block.text
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # for tracebacks
    code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        anyio.run(_awaited, code, namespace, backend=backend)
    else:
        exec(code, namespace)


async def _awaited(code: Any, namespace: dict[str, Any]) -> None:
    with anyio.fail_after(30):
        await eval(code, namespace)


def _run_shell(block: Block) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        command, *arguments = shlex.split(line, comments=True) or [""]
        if not command:
            continue
        assert command == "clepsydra", f"{block.place}: {line!r} cannot be run; mark the block as skipped"
        status = _status_of(arguments)
        assert status == 0, f"{block.place}: {line!r} ends with {status}"


def _status_of(arguments: list[str]) -> int:
    try:
        return int(main(arguments) or 0)
    except SystemExit as ended:
        return int(ended.code or 0)
