"""What the pages point to is there, and what they draw is what the code has."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import clepsydra
from clepsydra import Scheduler, SQLiteStorage

from .pages import DOCS, ROOT, anchors, blocks, links, pages, title

INVARIANTS = DOCS / "explanation" / "invariants.md"
LIFE = DOCS / "explanation" / "life_of_a_tick.md"
SUPERVISION = DOCS / "explanation" / "supervision.md"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PACKAGE = Path(next(iter(clepsydra.__path__)))

_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_SOURCE = re.compile(r"`((?:model|storage|stages|pipeline|console|testing)/\w+\.py)`")


@pytest.mark.parametrize("page", [*pages(), ROOT / "CONTRIBUTING.md"], ids=title)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{title(page)} points to {link}"
        if anchor:
            assert anchor in anchors(target), f"{title(page)} points to {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, to_visit = set[Path](), [ROOT / "README.md"]
    while to_visit:
        page = to_visit.pop()
        reached.add(page)
        found = {(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link}
        to_visit += [each for each in found if each.suffix == ".md" and each not in reached]

    assert [title(page) for page in pages() if page not in reached] == []


def test_no_page_names_a_place_on_somebodys_machine() -> None:
    for page in pages():
        assert not re.search(r"/(?:home|root|tmp|work|opt)/", page.read_text("utf-8")), title(page)


@pytest.mark.parametrize("page", pages(), ids=title)
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    missing = [name for name in _SOURCE.findall(page.read_text("utf-8")) if not (PACKAGE / name).exists()]

    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=title)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for file, name in _TEST.findall(page.read_text("utf-8")):
        assert (ROOT / file).is_file(), f"{title(page)} names {file}"
        if name:
            text = (ROOT / file).read_text("utf-8")
            assert re.search(rf"def {name}\b", text), f"{title(page)} names {file}::{name}"


def test_every_invariant_names_a_test_that_holds_it() -> None:
    text = INVARIANTS.read_text("utf-8")
    numbered = re.split(r"^\*\*(?=I\d+\b)", text, flags=re.MULTILINE)[1:]

    assert [int(part[1:].split(".")[0]) for part in numbered] == list(range(1, len(numbered) + 1))
    assert [
        part.splitlines()[0] for part in numbered if not _TEST.search(part) and "clepsydra.storage" not in part
    ] == []


def test_the_promises_of_the_store_that_invariants_name_exist() -> None:
    for module, name in re.findall(r"`(clepsydra\.[\w.]+):(\w+)`", INVARIANTS.read_text("utf-8")):
        assert importlib.util.find_spec(module) is not None, module
        assert hasattr(importlib.import_module(module), name), f"{module}:{name}"


@pytest.mark.anyio
async def test_the_drawing_of_the_supervision_tree_is_that_of_the_code(tmp_path: Path) -> None:
    (drawing,) = [block.text for block in blocks(SUPERVISION) if block.text.startswith("scheduler (")]

    async with Scheduler(SQLiteStorage(tmp_path / "jobs.db")) as scheduler:
        branch = scheduler.health().stages

    assert branch is not None
    assert drawing.splitlines() == list(branch.lines())


def test_the_walk_passes_every_stage_in_the_order_of_the_chain() -> None:
    stations = re.findall(r"^## \d+\. .*?`(stages/\w+\.py|pipeline/\w+\.py)`", LIFE.read_text("utf-8"), re.MULTILINE)
    chain = [
        "stages/job_broadcaster.py",
        "stages/execution_broadcaster.py",
        "stages/node_selector.py",
        "stages/executor.py",
        "stages/worker_pool.py",
    ]

    assert [station for station in stations if station in chain] == chain


def test_decisions_are_numbered_without_a_gap_and_say_what_they_cost() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for page in DECISIONS:
        text = page.read_text("utf-8")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], title(page)
        assert text.startswith(f"# {page.name[:4]} "), title(page)
        assert 12 <= len(text.splitlines()) <= 32, title(page)
