"""The results in docs/performance/: of each question the JSON, the page and the plot, and a page that leads to them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from machine import ROOT
from pages import index, page
from plots import svg
from results import Page

FOLDER = ROOT / "docs" / "performance"


def check(folder: Path) -> None:
    """That publishing there will not fail after all the work; and say so when there will be no plot."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _can_draw():
        print("matplotlib is not installed (pip install --group bench): no plot will be drawn", file=sys.stderr)


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def publish(results: Page, folder: Path = FOLDER) -> None:
    """Write its JSON, then all that is made of it."""
    (folder / f"{results['question']}.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    render(results, folder)
    (folder / "README.md").write_text(index(found(folder)), "utf-8")


def render(results: Page, folder: Path = FOLDER) -> None:
    """The page of what was measured, and the plot if it can be drawn."""
    plot = folder / f"{results['question']}.svg"
    plot.unlink(missing_ok=True)  # one of other figures would be worse than none
    if _can_draw():
        plot.write_text(svg(results), "utf-8")
    (folder / f"{results['question']}.md").write_text(page(results, plot=plot.exists()), "utf-8")


def found(folder: Path = FOLDER) -> Iterator[Page]:
    """What was published there, by name."""
    for file in sorted(folder.glob("*.json")):
        results: Page = json.loads(file.read_text("utf-8"))
        yield results
